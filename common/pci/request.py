"""A PCI request: how many devices, and which would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class NumaPolicy(StrEnum):
    """How close to the instance's memory its devices have to be (Nova, ``hw:pci_numa_affinity_policy``)."""

    REQUIRED = "required"
    SOCKET = "socket"
    PREFERRED = "preferred"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class PciRequest:
    """``count`` devices, each of which satisfies at least one of the alternatives in ``spec``.

    An alternative maps ``vendor_id``, ``product_id``, ``dev_type`` and tag names to wanted values.
    """

    count: int
    spec: tuple[Mapping[str, str], ...]
    alias_name: str | None = None
    numa_policy: NumaPolicy = NumaPolicy.LEGACY
