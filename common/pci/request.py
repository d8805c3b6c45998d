"""A PCI request: how many devices, and which would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from portclaim.common.pci.errors import InvalidRequest

MAX_COUNT = 256
"""The most devices that one request may ask for: as many functions as fit on one PCI bus, and more than
any guest has slots for. A slip of the keyboard must not hold up a fleet."""


class NumaPolicy(StrEnum):
    """How close to the instance's memory its devices have to be (Nova, ``hw:pci_numa_affinity_policy``)."""

    REQUIRED = "required"
    SOCKET = "socket"
    PREFERRED = "preferred"
    LEGACY = "legacy"


class GroupPolicy(StrEnum):
    """May the devices of one claim share a port? ``isolate``: every VF from another PF (``group_policy``)."""

    NONE = "none"
    ISOLATE = "isolate"


@dataclass(frozen=True, slots=True)
class PciRequest:
    """``count`` devices, each of which satisfies at least one of the alternatives in ``spec``.

    An alternative maps ``vendor_id``, ``product_id``, ``dev_type`` and tag names to wanted values;
    None wants the tag not to be there.
    """

    count: int
    spec: tuple[Mapping[str, str | None], ...]
    alias_name: str | None = None
    numa_policy: NumaPolicy = NumaPolicy.LEGACY

    def __post_init__(self) -> None:
        """Raises :class:`InvalidRequest` for a count out of range or no alternative at all."""
        if not 1 <= self.count <= MAX_COUNT:
            raise InvalidRequest(f"{self.count} devices asked for; a request can have 1 to {MAX_COUNT}")
        if not self.spec:
            raise InvalidRequest("no device would do: the request has no alternative in its spec")
