"""What requests of the HTTP API carry: the messages of RPC without what the path or the token says."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from portclaim.common.db.tokens import Role
from portclaim.common.rpc.claim_messages import ClaimRequest, ExplainRequest
from portclaim.common.rpc.fields import Address, Message, Project, Text, Uuid
from portclaim.common.rpc.move_messages import MoveRequest
from portclaim.common.rpc.operator_messages import Reason, Retry

B = TypeVar("B", bound=BaseModel)

PageLimit = Annotated[int, Query(ge=1, le=1000, description="The most rows to answer.")]
PageAfter = Annotated[
    str | None, Query(max_length=2000, description="`after` of the last answer to the same request.")
]
Age = Annotated[int, Query(ge=0, lt=2**31)]


ReasonInQuery = Annotated[Reason | None, Query(description="Why, for the audit.")]


class ClaimBody(ClaimRequest):
    """The devices that an instance needs. One host serves all of them, or the claim is refused."""

    claim_id: Uuid | None = Field(  # type: ignore[assignment]
        default=None, description="The same id as in the path, or nothing."
    )


class ExplainBody(ExplainRequest):
    """The question whether a claim would be served now."""


class MoveBody(MoveRequest):
    """Claim devices on another host for the instance of an allocated claim."""

    claim_id: Uuid | None = Field(  # type: ignore[assignment]
        default=None, description="The same id as in the path, or nothing."
    )
    who: None = Field(default=None, description="Nothing: it is the name of the token.")


class OrderBody(Message):
    """Why it is done, for the audit."""

    reason: Reason | None = None


class ReasonBody(Message):
    """Why it is done."""

    reason: Reason


class DrainBody(ReasonBody):
    """Stop new claims on a host, or on one of its ports."""

    address: Text | None = Field(default=None, description="PCI address of the port. Null: the whole host.")


class UndrainBody(OrderBody):
    """Allow new claims again."""

    address: Text | None = Field(default=None, description="PCI address of the port. Null: the whole host.")


class RenewBody(OrderBody):
    """Allow a device that was used once to be handed out again."""

    address: Address = Field(description="PCI address of the device.")


class Renewed(Message):
    """Whether the device had been used."""

    renewed: bool


class RetryBody(Retry):
    """Send unanswered steps now."""

    who: None = Field(default=None, description="Nothing: it is the name of the token.")


class TokenBody(OrderBody):
    """A new token."""

    name: Annotated[Text, Field(min_length=1, max_length=255)] = Field(description="Who uses it.")
    role: Role = Field(description="`reader`: sees. `claimer`: claims for its project. `operator`: all.")
    project: Project | None = Field(
        default=None, description="The only project whose claims it sees. A claimer needs one."
    )
    valid_for: Annotated[int, Field(ge=1, le=10 * 366 * 24 * 3600)] | None = Field(
        default=None, description="Seconds until it expires. Null: never."
    )


class TokenRow(Message):
    """What is kept of a token."""

    name: str
    role: str
    project: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class TokenRows(Message):
    """A list of tokens."""

    tokens: list[TokenRow]


class Holder(Message):
    """Who has a token, and what it is for."""

    name: str
    role: Role
    project: str | None = Field(description="The only project whose claims it sees. Null: all.")


class NewToken(Message):
    """A token that was made. Nobody can read it again."""

    name: str
    token: str


class Pool(Message):
    """Devices of a host that are alike, counted by effective status, from the view `pool_totals`."""

    host: str
    dev_type: str
    vendor_id: str
    product_id: str
    numa_node: int | None
    tags: dict[str, Any]
    total: int
    available: int
    claimed: int
    allocated: int
    unclaimable: int
    unavailable: int


class Pools(Message):
    """A list of pools."""

    pools: list[Pool]
    more: bool = Field(description="True: there are more hosts than `limit`.")
    after: str | None = Field(
        description="Give it to the next call to get the next page. Null: there is none."
    )


class Health(Message):
    """How the API and what it needs are."""

    status: str = Field(description="`ok`, or `unavailable`.")
    checks: dict[str, str] = Field(default={}, description="What was checked: `ok`, or what is wrong.")


def answer(message: BaseModel, status: int = 200) -> Response:
    """The message as the body of an answer."""
    return Response(message.model_dump_json(), status, media_type="application/json")


def complete(kind: type[B], body: BaseModel, **facts: Any) -> B:
    """The body with what the path and the token say."""
    return kind.model_validate({**{name: getattr(body, name) for name in body.model_fields_set}, **facts})
