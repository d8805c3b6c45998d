"""A recording of what a scan reads from a machine's sysfs, for tests on another machine."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from pathlib import Path

from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

FORMAT = 1

_ATTRIBUTES = (
    "vendor",
    "device",
    "class",
    "numa_node",
    "sriov_totalvfs",
    "sriov_offset",
    "sriov_stride",
    "sriov_vf_device",
    "sriov_drivers_autoprobe",
    "reset_method",
)
_LINK = re.compile(r"driver|iommu_group|physfn|virtfn\d+")
_NAMED_BY_MAC = re.compile(r"enx[0-9a-f]{12}")  # a predictable name of systemd that contains the MAC
_NODES, _CPUS = "devices/system/node", "devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Recording:
    """Text attributes, links and binary attributes (base64) by their paths below the root of sysfs."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    binaries: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON document, with a number that names its format."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recording:
        """The reverse of :meth:`as_json`. Raises ValueError for anything else."""
        content = json.loads(text)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"no recording of format {FORMAT}: make one with `portclaim host record`")
        return cls(**content)

    def replay(self, root: Path) -> None:
        """Build the tree below ``root``. None of its files may exist yet."""
        for path, text in self.files.items():
            _make_room(root / path).write_text(f"{text}\n")
        for path, encoded in self.binaries.items():
            _make_room(root / path).write_bytes(b64decode(encoded))
        for path, target in self.links.items():
            _make_room(root / path).symlink_to(target)


def record(tree: SysfsTree, *, identifying: bool = False) -> Recording:
    """Read all PCI functions, bridges too, and the NUMA cells.

    Serial numbers and MACs are left out unless ``identifying``; so is a MAC in an interface's name.
    ``sriov_numvfs`` is not read: see :class:`~.scanner.Scanner`.
    """
    found = Recording()
    for name in sorted(tree.names(PCI_DEVICES) or ()):
        _record_function(tree, found, name, identifying)
    for node in _numbered(tree, _NODES, "node"):
        _copy(tree, found, f"{_NODES}/{node}", "cpulist")
    for cpu in _numbered(tree, _CPUS, "cpu"):
        _copy(tree, found, f"{_CPUS}/{cpu}", "topology/physical_package_id")
    return found


def _record_function(tree: SysfsTree, found: Recording, name: str, identifying: bool) -> None:
    link = f"{PCI_DEVICES}/{name}"
    try:
        target = (tree.root / link).readlink()
    except OSError:
        return  # the device disappeared after the names were read
    found.links[link] = str(target)
    place = os.path.normpath(f"{PCI_DEVICES}/{target}")
    _copy(tree, found, place, *_ATTRIBUTES)
    for entry in sorted(tree.names(place) or ()):
        path = f"{place}/{entry}"
        if _LINK.fullmatch(entry) and (tree.root / path).is_symlink():
            found.links[path] = str((tree.root / path).readlink())
    for number, netdev in enumerate(sorted(tree.names(f"{place}/net") or ())):
        is_telling = _NAMED_BY_MAC.fullmatch(netdev) and not identifying
        _record_netdev(tree, found, f"{place}/net", netdev, f"net{number}" if is_telling else netdev)
        if identifying:
            _copy(tree, found, f"{place}/net/{netdev}", "address", "bonding_slave/perm_hwaddr")
    if identifying and (vpd := tree.binary(f"{place}/vpd")):
        found.binaries[f"{place}/vpd"] = b64encode(vpd).decode()


def _record_netdev(tree: SysfsTree, found: Recording, net: str, name: str, shown_as: str) -> None:
    for attribute in ("dev_port", "addr_assign_type"):
        text = tree.text(f"{net}/{name}/{attribute}")
        if text is not None:
            found.files[f"{net}/{shown_as}/{attribute}"] = text


def _copy(tree: SysfsTree, found: Recording, place: str, *names: str) -> None:
    for name in names:
        text = tree.text(f"{place}/{name}")
        if text is not None:
            found.files[f"{place}/{name}"] = text


def _numbered(tree: SysfsTree, path: str, prefix: str) -> list[str]:
    return sorted(name for name in tree.names(path) or () if re.fullmatch(rf"{prefix}\d+", name))


def _make_room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
