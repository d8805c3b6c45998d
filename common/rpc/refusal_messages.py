"""Messages about claims that were refused: which to list, and what is kept of each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from portclaim.common.rpc.claim_messages import Explanation
from portclaim.common.rpc.fields import Message, Project, Text, Uuid
from portclaim.common.rpc.pages import After, Limit, Next


class RefusalFilter(Message):
    """Which refused claims to list. A field that is null excludes none.

    Example::

        for refusal in scheduler.refusals(RefusalFilter(reason="quota", limit=20)).refusals:
            print(refusal.at, refusal.reason, refusal.message)
    """

    claim_id: Uuid | None = Field(default=None, description="Only the claim with this id.")
    instance_id: Uuid | None = Field(default=None, description="Only claims for this instance.")
    project: Project | None = Field(default=None, description="Only claims of this project.")
    reason: Annotated[Text, Field(max_length=100)] | None = Field(
        default=None, description="Only claims that were refused for this reason."
    )
    explained: bool = Field(
        default=False, description="True: with their explanations, which are long. False: without them."
    )
    limit: Limit = Field(default=100, description="The most refused claims to answer.")
    after: After = None


class Refusal(Message):
    """A claim that was refused, from the view `recent_refusals`."""

    at: str = Field(description="When it was refused last, ISO 8601.")
    claim_id: Uuid = Field(description="The id that the caller chose.")
    instance_id: Uuid = Field(description="The instance that the claim was for.")
    project: str | None = Field(description="The project of the claim. Null: none.")
    reason: str = Field(
        description="The first filter that left no device; or `queue`, `quota`, `conflict` or `invalid`."
    )
    message: str = Field(description="What the caller was told.")
    alias: str | None = Field(description="Its extra spec `pci_passthrough:alias`.")
    times: int = Field(description="How often it was refused: a call that is repeated counts again.")
    request: dict[str, Any] = Field(
        description="What it asked for, as ExplainRequest has it, without fields at their default."
    )
    is_cut: bool = Field(
        description="True: it named more than 100 hosts or claims, and the rest is not in `request`."
    )
    explanation: Explanation | None = Field(
        description="What each filter left then, and up to 5 of the devices that came closest. Null: it is "
        "not asked for, or the claim was not refused for want of devices."
    )


class Refusals(Message):
    """A list of refused claims."""

    refusals: list[Refusal] = Field(description="The claims that were refused, the newest first.")
    more: bool = Field(description="True: more claims fit than `limit`.")
    after: Next = None
