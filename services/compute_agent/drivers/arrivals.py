"""Instances that a live migration brings to this host. They take no device before they run here."""

from __future__ import annotations

from uuid import UUID

from portclaim.services.compute_agent.drivers.base import DriverError, InstanceNotFound


class Arrivals:
    """The instances that are arriving. Threads may share one."""

    def __init__(self) -> None:
        self._arriving: set[UUID] = set()

    def check(self, instance_id: UUID, *, is_here: bool, is_arriving: bool) -> None:
        """Return if the instance can get devices now.

        Raises :class:`InstanceNotFound` if it may still come, and :class:`DriverError` if its migration to
        this host was aborted: then it will not come.
        """
        if is_here and not is_arriving:
            self._arriving.discard(instance_id)
            return
        if is_arriving:
            self._arriving.add(instance_id)
        elif instance_id in self._arriving:
            self._arriving.discard(instance_id)
            raise DriverError(f"the migration of instance {instance_id} to this host was aborted")
        raise InstanceNotFound(f"instance {instance_id} is not on this host")
