"""The errors of Portclaim. Each says what was wrong and what to do about it.

An error has a message for people and ``kwargs`` with facts for programs. Both cross the bus, and the error
keeps its class, so that a caller catches the same class in process and remotely.
"""

from __future__ import annotations

from typing import Any


class PortclaimError(Exception):
    """The root of all errors that Portclaim raises on purpose.

    ``kwargs`` holds the facts as JSON values. oslo.messaging sends an attribute of this name over the bus.
    """

    def __init__(self, message: str, **kwargs: Any) -> None:
        super().__init__(message)
        self.kwargs = kwargs

    @property
    def message(self) -> str:
        """What was wrong and what to do, for people."""
        return str(self.args[0])


class InvalidConfiguration(PortclaimError):
    """The configuration has a value that a service cannot honour. The service does not start."""


class InvalidMessage(PortclaimError):
    """A message has missing or unknown fields, or invalid values. It changed nothing.

    ``kwargs``: ``method``, and ``faults``, a list with the ``field`` and the ``fault`` of each.
    """


class UnknownSchema(PortclaimError):
    """An event has a version of the schema that this program cannot read. It stays in its queue."""


class InvalidRequest(PortclaimError):
    """A message is well-formed, but asks for something that does not exist, for example an unknown alias."""


class ClaimRefused(PortclaimError):
    """No host can serve the claim now.

    ``kwargs["explanation"]`` has the fields of :class:`~portclaim.Explanation`.
    """


class QuotaExceeded(PortclaimError):
    """The project of the claim has used up its quota, or the claim asks for more than what is left of it.

    ``kwargs``: ``project``, the ``alias`` or null for all devices, the ``kind`` (``PFs``, ``VFs`` or
    ``waiting claims``), the ``quota``, how much is ``used``, and how much the claim ``asked`` for.
    """


class ClaimConflict(PortclaimError):
    """The claim's id is already used for another request. Choose a new id."""


class ClaimNotFound(PortclaimError):
    """No claim has this id."""


class ClaimEnded(PortclaimError):
    """The claim has ended, or is being released, and cannot get the status that the caller waits for.

    ``kwargs``: ``claim_id``, its ``status``, the ``reason`` or null, and ``until``, which was waited for.
    """


class WaitTimeout(PortclaimError):
    """The claim has not got the status that the caller waited for in time. Wait again, or release the claim.

    ``kwargs``: ``claim_id``, its last ``status``, ``until``, which was waited for, and the ``timeout``.
    """


class MoveConflict(PortclaimError):
    """The claim cannot be moved now, or its move has already ended in the other way."""


class MoveNotFound(PortclaimError):
    """No move has this claim as its target."""


class UnknownHost(PortclaimError):
    """No agent has ever reported an inventory for this host."""


class HostOwnedByAnotherAgent(PortclaimError):
    """Another agent that is alive already reports for this host."""


class HostIsAlive(PortclaimError):
    """The host's agent is alive, but the request is for a host that will not come back."""


class HostInUse(PortclaimError):
    """The host has live claims, but the request is for a host without claims."""


class StaleStep(PortclaimError):
    """An agent answered a step that a later step has replaced. The answer changed nothing."""


class NotAuthorized(PortclaimError):
    """The sender of a message may not send it, or has not signed it well. The message changed nothing.

    ``kwargs``: the ``reason``, for example ``unknown-key``.
    """


class UnsupportedVersion(PortclaimError):
    """A service, or the pin in ``[upgrade_levels]``, is older than the call. The call changed nothing.

    ``kwargs``: ``method``, the version that it has ``needed``, and the version that is ``spoken``.
    """


class ServiceUnavailable(PortclaimError):
    """A service did not answer in time, or cannot reach the database or the bus. Repeat the call later."""


class ServiceFailed(PortclaimError):
    """A service failed because of a fault of its own. Its log says more."""
