"""Messages about claims that an agent knows and the database does not, for example after a restore."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portclaim.common.rpc.fields import Address, Host, Message, Uuid
from portclaim.common.rpc.operator_messages import Reason, Who

MOST_DEVICES = 4096


class UnknownClaim(Message):
    """A claim that an agent has devices for, and that the conductor does not know."""

    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="The instance that has the devices.")
    step: Annotated[int, Field(ge=0)] = Field(
        description="The claim's last step on this host. 0: none is known."
    )
    addresses: Annotated[list[Address], Field(min_length=1, max_length=MOST_DEVICES)] = Field(
        description="PCI addresses of the devices."
    )


class UnknownClaims(Message):
    """The answer of an agent."""

    claims: list[UnknownClaim] = Field(description="Ordered by claim.")


class Recovery(Message):
    """Take such a claim back into the database."""

    host: Host = Field(description="The host whose agent has the devices.")
    claim: UnknownClaim = Field(description="What the agent says of it.")
    who: Who
    reason: Reason = Field(description="Why, for the audit.")
