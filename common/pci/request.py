"""A PCI request: how many devices, and of which kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from portclaim.common.pci.errors import InvalidRequest

MAX_COUNT = 256
"""The most devices that one request may ask for: the number of functions of one PCI bus, and more than any
guest has slots for. The limit catches typing errors."""


class NumaPolicy(StrEnum):
    """How close to the instance's memory its devices have to be (Nova, ``hw:pci_numa_affinity_policy``)."""

    REQUIRED = "required"
    SOCKET = "socket"
    PREFERRED = "preferred"
    LEGACY = "legacy"


class GroupPolicy(StrEnum):
    """May the devices of one claim share a port? ``isolate``: each is from another one (``group_policy``)."""

    NONE = "none"
    ISOLATE = "isolate"


@dataclass(frozen=True, slots=True)
class PciRequest:
    """``count`` devices, each of which satisfies at least one of the alternatives in ``spec``.

    An alternative maps ``vendor_id``, ``product_id``, ``dev_type`` and tag names to wanted values;
    None: the device must not have the tag.
    """

    count: int
    spec: tuple[Mapping[str, str | None], ...]
    alias_name: str | None = None
    numa_policy: NumaPolicy = NumaPolicy.LEGACY

    def __post_init__(self) -> None:
        """Raises :class:`InvalidRequest` if the count is out of range or ``spec`` has no alternative."""
        if not 1 <= self.count <= MAX_COUNT:
            raise InvalidRequest(f"a request for {self.count} devices is invalid: ask for 1 to {MAX_COUNT}")
        if not self.spec:
            raise InvalidRequest("the spec of the request is empty: give at least one alternative")
