"""Every error that crosses a service's boundary, each with what was wrong and what to do about it.

An error is a message for people plus ``kwargs``, its facts for programs. Both travel over the bus
and arrive as the same class, so that a caller catches the same type in process and remotely.
"""

from __future__ import annotations

from typing import Any


class PortclaimError(Exception):
    """The root of all errors that Portclaim raises on purpose.

    ``kwargs`` holds the facts as JSON values. The name is oslo.messaging's: it carries an
    attribute of that name across the bus.
    """

    def __init__(self, message: str, **kwargs: Any) -> None:
        super().__init__(message)
        self.kwargs = kwargs

    @property
    def message(self) -> str:
        """What was wrong and what to do, for people."""
        return str(self.args[0])


class InvalidConfiguration(PortclaimError):
    """A service was configured with something it cannot honour; it does not start."""


class InvalidMessage(PortclaimError):
    """A message has missing or unknown fields, or values of the wrong type; it changed nothing."""


class UnknownSchema(PortclaimError):
    """An event follows another version of the schema than this program reads. It is left where it is."""


class InvalidRequest(PortclaimError):
    """A well-formed message asks for something that has no meaning here, like an unknown alias."""


class ClaimRefused(PortclaimError):
    """No host can serve the claim now. ``explanation`` says per filter what was left."""


class ClaimConflict(PortclaimError):
    """The claim's id is already in use for another request."""


class ClaimNotFound(PortclaimError):
    """There is no claim of this id."""


class MoveConflict(PortclaimError):
    """The claim cannot be moved as things stand, or its move has ended in the other way."""


class MoveNotFound(PortclaimError):
    """No move has this claim as its target."""


class UnknownHost(PortclaimError):
    """No agent has ever published an inventory for this host."""


class HostOwnedByAnotherAgent(PortclaimError):
    """Another agent that is alive publishes for this host."""


class HostIsAlive(PortclaimError):
    """The agent of the host gives signs of life, and what was asked is for a host that will not come back."""


class HostInUse(PortclaimError):
    """The host has live claims, and what was asked is for one that has none."""


class StaleStep(PortclaimError):
    """An agent answered a step that a later one has overtaken; the answer changed nothing."""


class ServiceUnavailable(PortclaimError):
    """A service did not answer in time, or could not reach what it needs. Calling again is safe."""


class ServiceFailed(PortclaimError):
    """A service met a fault of its own while it worked on the call; its log says more."""
