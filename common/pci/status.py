"""The status of a device and what a change of one does to its PF/VF tree."""

from __future__ import annotations

from enum import StrEnum


class DeviceStatus(StrEnum):
    """Nova's ``PciDeviceStatus`` words."""

    AVAILABLE = "available"
    CLAIMED = "claimed"
    ALLOCATED = "allocated"
    UNCLAIMABLE = "unclaimable"
    UNAVAILABLE = "unavailable"
    REMOVED = "removed"


HELD = frozenset({DeviceStatus.CLAIMED, DeviceStatus.ALLOCATED})
"""The statuses in which a device belongs to a claim."""
