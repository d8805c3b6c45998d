"""Does the host use the disks of a device: for file systems, swap, volumes?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.sysfs import SysfsTree

_BLOCK = "class/block"
_CONTROLLERS = "class/nvme-subsystem"
_CONTROLLER = re.compile(r"nvme\d+")


def host_uses(tree: SysfsTree, address: PciAddress, proc: Path = Path("/proc")) -> str | None:
    """A disk of this device that the host uses, and for what; None: it uses none.

    The host uses a disk if it or a partition of it is mounted or used as swap (proc(5): ``mountinfo``,
    ``swaps``), or if a RAID, a volume group or an encryption is built on it (kernel ABI, ``holders``). Mounts
    are those of this process and, if they are visible, of process 1. Other use by a process, and ZFS, is not
    detected.
    """
    uses = _uses(proc)
    for name in sorted(_disks_of(tree, address)):
        holders = sorted(tree.names(f"{_BLOCK}/{name}/holders") or ())
        if holders:
            return f"{', '.join(holders)} is built on {name}"
        for key in (name, tree.text(f"{_BLOCK}/{name}/dev") or ""):
            if key in uses:
                return f"{name} is {uses[key]}"
    return None


def _disks_of(tree: SysfsTree, address: PciAddress) -> Iterator[str]:
    """The disks of the device and their partitions.

    An NVMe disk with several paths belongs to its subsystem.
    """
    marks = {str(address)}
    for subsystem in tree.names(_CONTROLLERS) or ():
        entries = tree.names(f"{_CONTROLLERS}/{subsystem}") or ()
        links = [f"{_CONTROLLERS}/{subsystem}/{entry}" for entry in entries if _CONTROLLER.fullmatch(entry)]
        if any(marks & _components(tree, link) for link in links):
            marks.add(subsystem)
    for name in tree.names(_BLOCK) or ():
        if marks & _components(tree, f"{_BLOCK}/{name}"):
            yield name


def _components(tree: SysfsTree, link: str) -> set[str]:
    """The names of the directories in the target of a link."""
    target = tree.target(link)
    return set() if target is None else set(target.split("/"))


def _uses(proc: Path) -> Mapping[str, str]:
    """What each block device is used for, by its numbers (``8:1``) and by its name."""
    uses = {}
    for line in _lines(proc / "swaps")[1:]:
        uses[_name(line.split()[0])] = "used for swap"
    for line in _lines(proc / "self/mountinfo") + _lines(proc / "1/mountinfo"):
        before, _, after = line.partition(" - ")
        numbers, place = before.split()[2], before.split()[4]
        use = f"mounted on {_unescaped(place)}"
        uses.setdefault(numbers, use)
        source = after.split()[1]
        if source.startswith("/dev/"):  # a file system of several disks has numbers of its own
            uses.setdefault(_name(source), use)
    return uses


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, PermissionError):
        return []


def _name(path: str) -> str:
    return os.path.realpath(_unescaped(path)).rpartition("/")[2]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
