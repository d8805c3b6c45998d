"""The messages of calls that make or release several claims at once."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from portclaim.common import errors
from portclaim.common.errors import PortclaimError, ServiceFailed
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.fields import Message, Uuid

MOST = 256
"""The most claims in one call."""


class ClaimBatch(Message):
    """Several claims. Each is served or refused by itself, in this order."""

    claims: Annotated[list[ClaimRequest], Field(min_length=1, max_length=MOST)] = Field(
        description="The claims, in the order in which they are served."
    )


class ReleaseBatch(Message):
    """Several releases."""

    claim_ids: Annotated[list[Uuid], Field(min_length=1, max_length=MOST)] = Field(
        description="The claims to release."
    )


class CallError(Message):
    """An error that a call about one claim would have raised."""

    type: str = Field(description="The name of the class, for example `ClaimRefused`.")
    message: str = Field(description="What was wrong and what to do.")
    kwargs: dict[str, Any] = Field(default={}, description="The facts, as JSON values.")

    @classmethod
    def of(cls, error: PortclaimError) -> Self:
        """The message that carries the error."""
        return cls(type=type(error).__name__, message=error.message, kwargs=error.kwargs)

    def as_error(self) -> PortclaimError:
        """The error itself. A class that this release does not know becomes :class:`ServiceFailed`."""
        found = getattr(errors, self.type, None)
        if not isinstance(found, type) or not issubclass(found, PortclaimError):
            found = ServiceFailed
        return found(self.message, **self.kwargs)


class Outcome(Message):
    """What became of one claim of a batch: one of the two fields is set."""

    claim: Claim | None = Field(default=None, description="The claim as it is now.")
    error: CallError | None = Field(default=None, description="Why there is no claim.")


class Outcomes(Message):
    """What became of each claim of a batch."""

    outcomes: list[Outcome] = Field(description="In the order of the batch.")

    @classmethod
    def of(cls, results: list[Claim | PortclaimError]) -> Self:
        """The message that carries the results."""
        return cls(
            outcomes=[
                Outcome(error=CallError.of(result))
                if isinstance(result, PortclaimError)
                else Outcome(claim=result)
                for result in results
            ]
        )

    def results(self) -> list[Claim | PortclaimError]:
        """The claims, and the errors of those that are none."""
        return [outcome.claim or _error_of(outcome) for outcome in self.outcomes]


def _error_of(outcome: Outcome) -> PortclaimError:
    return outcome.error.as_error() if outcome.error else ServiceFailed("the service answered neither")
