"""Does a device do for a request? Nova's rules, one filter at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.option_text import read_boolean
from portclaim.common.pci.request import NumaPolicy, PciRequest

IGNORED_KEYS = frozenset({"resource_class", "traits"})
"""Keys that only Placement reads: in aliases and as tags they change nothing here."""

REMOTE_MANAGED = "remote_managed"
_OWN_KEYS = frozenset({"vendor_id", "product_id", "dev_type"})


@dataclass(frozen=True, slots=True)
class Kind:
    """What devices have in common that are alike for requests: a pool."""

    dev_type: DeviceType
    vendor_id: str
    product_id: str
    tags: Mapping[str, str]

    @property
    def keys(self) -> int:
        """How many things beyond ids and type can be asked of it: Nova uses the plainest pools first."""
        names = self.tags.keys() - IGNORED_KEYS
        return len(names if self.dev_type is DeviceType.PCI else names | {REMOTE_MANAGED})

    def value(self, key: str) -> str | None:
        """What the device says to one key of a request. SR-IOV devices are not remote-managed by default."""
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
    """Vendor, product and type are those of an alternative."""
    return any(_agree(alternative, kind, _OWN_KEYS & alternative.keys()) for alternative in request.spec)


def has_tags(request: PciRequest, kind: Kind) -> bool:
    """An alternative agrees in everything that it names, tags included; case does not matter."""
    return any(_agree(alternative, kind, alternative.keys() - IGNORED_KEYS) for alternative in request.spec)


def is_wanted_type(request: PciRequest, kind: Kind) -> bool:
    """PFs and vDPA devices go only to who asks for them by type."""
    return kind.dev_type in (DeviceType.PCI, DeviceType.VF) or any(
        alternative.get("dev_type") == kind.dev_type for alternative in request.spec
    )


def is_managed_as_wanted(request: PciRequest, kind: Kind) -> bool:
    """What a DPU manages goes only to who asks for that."""
    return not read_boolean(kind.value(REMOTE_MANAGED)) or any(
        read_boolean(alternative.get(REMOTE_MANAGED)) for alternative in request.spec
    )


FILTERS: Mapping[str, Callable[[PciRequest, Kind], bool]] = {
    "ids": has_ids,
    "tags": has_tags,
    "type": is_wanted_type,
    "remote_managed": is_managed_as_wanted,
}
"""The filters by name, in the order in which they are best reported."""


def satisfies(request: PciRequest, kind: Kind) -> bool:
    """Does a device of this kind do, as far as ids, type and tags go?"""
    return has_tags(request, kind) and is_wanted_type(request, kind) and is_managed_as_wanted(request, kind)


def _agree(alternative: Mapping[str, str | None], kind: Kind, keys: Collection[str]) -> bool:
    return all(_same(alternative[key], kind.value(key)) for key in keys)


def _same(wanted: str | None, found: str | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    return wanted.lower() == found.lower()


@dataclass(frozen=True, slots=True)
class Affinity:
    """Where an instance's memory is. ``cells`` are host NUMA nodes; empty: it has no NUMA topology.

    ``sockets`` gives the socket of each of the host's NUMA nodes, None where the host does not say.
    """

    cells: frozenset[int] = frozenset()
    sockets: Mapping[int, int | None] = field(default_factory=dict)

    def distance(self, policy: NumaPolicy, node: int | None) -> int | None:
        """How far a device at ``node`` is: 0 is best, None is not allowed under the policy."""
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
