"""Does a device satisfy a request? Nova's rules, one filter at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.option_text import read_boolean
from portclaim.common.pci.placement_names import (
    KEYS,
    RESOURCE_CLASS,
    TRAITS,
    class_name,
    default_class,
    trait_names,
    traits_of,
)
from portclaim.common.pci.request import NumaPolicy, PciRequest

REMOTE_MANAGED = "remote_managed"
_OWN_KEYS = frozenset({"vendor_id", "product_id", "dev_type", RESOURCE_CLASS})


@dataclass(frozen=True, slots=True)
class Kind:
    """The properties of a pool: what its devices have in common."""

    dev_type: DeviceType
    vendor_id: str
    product_id: str
    tags: Mapping[str, str]

    @property
    def keys(self) -> int:
        """The number of its properties beyond ids, type, class and traits. Nova prefers pools with fewer."""
        names = self.tags.keys() - KEYS
        return len(names if self.dev_type is DeviceType.PCI else names | {REMOTE_MANAGED})

    @property
    def resource_class(self) -> str:
        """The class that its device_spec entry names, or else the class of its ids."""
        named = class_name(self.tags.get(RESOURCE_CLASS, ""))
        return named or default_class(self.vendor_id, self.product_id)

    def value(self, key: str) -> str | None:
        """The value for one key of a request. SR-IOV devices are not remote-managed by default."""
        match key:
            case "dev_type":
                return self.dev_type
            case "vendor_id":
                return self.vendor_id
            case "product_id":
                return self.product_id
        default = "false" if key == REMOTE_MANAGED and self.dev_type is not DeviceType.PCI else None
        return self.tags.get(key, default)


def has_ids(request: PciRequest, kind: Kind) -> bool:
    """Do vendor, product, type and resource class agree with one alternative of the request?"""
    return any(_agree(alternative, kind, _OWN_KEYS & alternative.keys()) for alternative in request.spec)


def has_tags(request: PciRequest, kind: Kind) -> bool:
    """Does one alternative agree in every key that it names, tags and traits included?

    Case does not matter.
    """
    return any(_agree(alternative, kind, alternative.keys()) for alternative in request.spec)


def has_requested_type(request: PciRequest, kind: Kind) -> bool:
    """PFs and vDPA devices satisfy only requests that name their type."""
    return kind.dev_type in (DeviceType.PCI, DeviceType.VF) or any(
        alternative.get("dev_type") == kind.dev_type for alternative in request.spec
    )


def has_requested_management(request: PciRequest, kind: Kind) -> bool:
    """Remote-managed devices (of a DPU) satisfy only requests that ask for remote_managed."""
    return not read_boolean(kind.value(REMOTE_MANAGED)) or any(
        read_boolean(alternative.get(REMOTE_MANAGED)) for alternative in request.spec
    )


FILTERS: Mapping[str, Callable[[PciRequest, Kind], bool]] = {
    "ids": has_ids,
    "tags": has_tags,
    "type": has_requested_type,
    "remote_managed": has_requested_management,
}
"""The filters by name, in the order in which explanations report them."""


def satisfies(request: PciRequest, kind: Kind) -> bool:
    """Does a device of this kind satisfy the request, apart from NUMA?"""
    return (
        has_tags(request, kind)
        and has_requested_type(request, kind)
        and has_requested_management(request, kind)
    )


def _agree(alternative: Mapping[str, str | None], kind: Kind, keys: Collection[str]) -> bool:
    return all(
        _meets(key, alternative[key], kind) if key in KEYS else _same(alternative[key], kind.value(key))
        for key in keys
    )


def _meets(key: str, wanted: str | None, kind: Kind) -> bool:
    """Is the device of the wanted resource class; does it have the wanted traits? None: it names none."""
    if wanted is None:
        return key not in kind.tags
    if key == TRAITS:
        return trait_names(wanted) <= traits_of(kind.tags)
    return class_name(wanted) in {"", kind.resource_class}


def _same(wanted: str | None, found: str | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    return wanted.lower() == found.lower()


@dataclass(frozen=True, slots=True)
class Affinity:
    """Where an instance runs. ``cells`` are host NUMA nodes; empty: it has no NUMA topology.

    ``sockets`` gives the socket of each of the host's NUMA nodes, None where the host does not say.
    """

    cells: frozenset[int] = frozenset()
    sockets: Mapping[int, int | None] = field(default_factory=dict)

    def distance(self, policy: NumaPolicy, node: int | None) -> int | None:
        """How far a device at ``node`` is: 0 is best; None: the policy does not allow it."""
        if not self.cells or node in self.cells:
            return 0
        match policy:
            case NumaPolicy.REQUIRED:
                return None
            case NumaPolicy.SOCKET:
                return 1 if self._shares_socket(node) else None
            case NumaPolicy.LEGACY:
                return 1 if node is None else None
            case NumaPolicy.PREFERRED:
                return 1 if node is None else 2

    def _shares_socket(self, node: int | None) -> bool:
        if node is None or node not in self.sockets or None in self.sockets.values():
            return False
        return self.sockets[node] in {self.sockets.get(cell) for cell in self.cells}


ANYWHERE = Affinity()
"""For an instance without a NUMA topology."""
