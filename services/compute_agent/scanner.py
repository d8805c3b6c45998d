"""The PCI functions of a host, read from its sysfs in one consistent picture."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.errors import InvalidPciAddress
from portclaim.common.pci.routing import vf_addresses
from portclaim.services.compute_agent.netlink import permanent_addresses
from portclaim.services.compute_agent.sysfs import KERNELS_OWN, PCI_DEVICES, SysfsTree
from portclaim.services.compute_agent.vpd import serial_number

LOG = logging.getLogger(__name__)

ATTEMPTS = 10
_VIRTFN = re.compile(r"virtfn(\d+)", re.ASCII)
_BRIDGE = "06"  # base class of host bridges, root ports and switches (PCI Code and ID Assignment)


class ScanError(RuntimeError):
    """The tree could not be read consistently: it is not a sysfs tree, or it changed during every attempt."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The devices of a host, in order of address. ``problems``: why some of them are not usable now."""

    devices: tuple[PciDevice, ...]
    problems: Mapping[PciAddress, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Function:
    device: PciDevice
    vfs: Mapping[PciAddress, int] = field(default_factory=dict)  # targets and numbers of the virtfn* links
    vf_range: frozenset[PciAddress] = frozenset()  # possible addresses of VFs of this PF


@dataclass(frozen=True, slots=True)
class _Reading:
    functions: Mapping[PciAddress, _Function]
    names: Mapping[str, PciAddress]  # of these functions
    bridges: frozenset[str]
    broken: frozenset[str]  # names without ids: appearing, disappearing, or never complete
    moved: bool  # the list of devices changed while it was read


_NOTHING = _Reading({}, {}, frozenset(), frozenset(), moved=False)


class Scanner:
    """Reads one tree, completely or only what has changed. It reads VPD only once, because that is slow.

    The type is decided as Nova's libvirt driver does: a VF has ``physfn``; a PF has VFs or a
    ``sriov_totalvfs`` above 0. ``sriov_numvfs`` is never read: its reader hangs while a blocked unbind holds
    the device's lock. The ``virtfn*`` links give the same without a lock.
    """

    def __init__(self, tree: SysfsTree, macs: Callable[[], Mapping[str, str]] | None = None) -> None:
        """``macs`` gives the MACs that sysfs does not show. For the kernel's own tree this is rtnetlink."""
        self._tree = tree
        self._macs = macs or (permanent_addresses if tree.root == KERNELS_OWN else dict)
        self._serials: dict[tuple[PciAddress, int | None], str | None] = {}
        self._unreadable: set[str] = set()
        self._last: _Reading | None = None

    def scan(self) -> Scan:
        """Read all functions except bridges.

        If a function came, went or was only half linked during a pass, the pass is repeated. If the next pass
        finds the same, this is the state of the host, and ``problems`` has the inconsistent devices. Raises
        :class:`ScanError`.
        """
        before: tuple[Scan, frozenset[str]] | None = None
        for _ in range(ATTEMPTS):
            reading = self._read_all()
            scan = _judge(reading.functions)
            flawless = not scan.problems and not reading.broken
            if not reading.moved and (flawless or (scan, reading.broken) == before):
                self._forget_serials(reading.functions)
                self._last = reading
                return scan
            before = scan, reading.broken
        raise ScanError(
            f"the PCI devices below {self._tree.root} changed during each of {ATTEMPTS} scans; "
            "look in the kernel's log for a device that comes and goes"
        )

    def rescan(self, changed: Collection[PciAddress]) -> Scan:
        """What :meth:`scan` would find if only ``changed`` devices have changed since the last scan.

        It reads these again, their PFs and VFs, and new devices. While the tree changes, it reads new and
        inconsistent devices again, and after ``ATTEMPTS`` passes everything. Later changes send events of
        their own. Raises :class:`ScanError`.
        """
        last = self._last
        if last is None:
            return self.scan()
        for _ in range(ATTEMPTS):
            partners = (_partners(last.functions.get(address)) for address in changed)
            last = self._read_all(last, set(changed).union(*partners))
            scan = _judge(last.functions)
            if not (last.moved or last.broken or scan.problems):
                self._last = last
                return scan
            changed = scan.problems.keys()
        return self.scan()

    def look(self, address: PciAddress) -> PciDevice | None:
        """One function as it is now, without regard to others; None if it does not exist."""
        path = f"{PCI_DEVICES}/{address}/"
        function = self._read(address, path, self._tree.text(path + "class"))
        return None if function is None else function.device

    def vfs(self, pf: PciAddress) -> tuple[PciAddress, ...]:
        """The VFs that a port lists now, in order of address; empty for any other device."""
        path = f"{PCI_DEVICES}/{pf}/"
        return tuple(sorted(self._virtfns(path)))

    def _read_all(self, last: _Reading = _NOTHING, stale: AbstractSet[PciAddress] = frozenset()) -> _Reading:
        """Read all functions, except those that ``last`` has and that are not ``stale``."""
        names = self._tree.names(PCI_DEVICES)
        if names is None:
            raise ScanError(
                f"{self._tree.root / PCI_DEVICES} does not exist: this is not the root of a sysfs tree"
            )
        known = {
            name: address
            for name in names
            if (address := last.names.get(name)) is not None and address not in stale
        }
        functions = {address: last.functions[address] for address in known.values()}
        bridges = set(last.bridges.intersection(names)) - set(map(str, stale))
        broken: set[str] = set()
        unread = [name for name in names if name not in known and name not in bridges]
        read: dict[str, PciAddress] = {}
        for name in unread:
            address = self._address(name)
            if address is None:
                continue
            class_id = self._tree.text(f"{PCI_DEVICES}/{name}/class")
            if class_id is not None and class_id.removeprefix("0x").startswith(_BRIDGE):
                bridges.add(name)
                continue
            function = self._read(address, f"{PCI_DEVICES}/{name}/", class_id)
            if function is None:
                broken.add(name)
                continue
            functions[address], read[name] = function, address
            parent = function.device.parent
            if parent is not None and str(parent) in known:  # a PF with a new VF: read it again
                del known[str(parent)]
                unread.append(str(parent))
        moved = set(self._tree.names(PCI_DEVICES) or ()) != set(names)
        return _Reading(functions, known | read, frozenset(bridges), frozenset(broken), moved)

    def _address(self, name: str) -> PciAddress | None:
        try:
            return PciAddress.parse(name)
        except InvalidPciAddress as error:
            if name not in self._unreadable:
                self._unreadable.add(name)
                LOG.warning("a PCI device is ignored: %s", error)
            return None

    def _read(self, address: PciAddress, path: str, class_id: str | None) -> _Function | None:
        """One function, or None if it shows no ids."""
        tree = self._tree
        vendor, product = tree.text(path + "vendor"), tree.text(path + "device")
        if vendor is None or product is None:
            return None
        group = tree.link(path + "iommu_group")
        node = tree.number(path + "numa_node")
        device = PciDevice(
            address=address,
            dev_type=DeviceType.PCI,
            vendor_id=vendor.removeprefix("0x"),
            product_id=product.removeprefix("0x"),
            numa_node=None if node is None or node < 0 else node,
            class_id=None if class_id is None else class_id.removeprefix("0x"),
            driver=tree.link(path + "driver"),
            iommu_group=int(group) if group is not None and group.isdecimal() else None,
            netdev=self._netdev(path),
        )
        parent = tree.link(path + "physfn")
        if parent is not None:
            return _Function(replace(device, dev_type=DeviceType.VF, parent=PciAddress.parse(parent)))
        device = replace(device, mac=self._mac(path, device.netdev), serial=self._serial(address, path))
        total = tree.number(path + "sriov_totalvfs")
        if total is None:
            return _Function(device)
        return self._read_pf(device, path, total)

    def _read_pf(self, device: PciDevice, path: str, total: int) -> _Function:
        tree = self._tree
        vfs = self._virtfns(path)
        if not total and not vfs:
            return _Function(device)  # its driver allows no VFs: for Nova it is a plain device
        offset, stride = tree.number(path + "sriov_offset") or 0, tree.number(path + "sriov_stride") or 0
        pf = replace(
            device,
            dev_type=DeviceType.PF,
            total_vfs=total,
            num_vfs=len(vfs),
            vf_product_id=tree.text(path + "sriov_vf_device"),
            vf_offset=offset,
            vf_stride=stride,
        )
        vf_range = vf_addresses(device.address, offset, stride, total if offset else 0)
        return _Function(pf, vfs, frozenset(vf_range))

    def _virtfns(self, path: str) -> dict[PciAddress, int]:
        """The VFs that a PF links to, each with its number."""
        links = [link for name in self._tree.names(path) or () if (link := _VIRTFN.fullmatch(name))]
        targets = ((self._tree.link(path + link[0]), int(link[1])) for link in links)
        return {PciAddress.parse(vf): number for vf, number in targets if vf is not None}

    def _netdev(self, path: str) -> str | None:
        """The function's network interface; the first port's, if several ports share the function."""
        names = self._tree.names(path + "net")
        if not names:
            return None
        return min(names, key=lambda name: (self._tree.number(f"{path}net/{name}/dev_port") or 0, name))

    def _mac(self, path: str, netdev: str | None) -> str | None:
        """The permanent MAC of the card.

        sysfs shows the current MAC and its origin: 0 is the card's own (kernel ABI, ``addr_assign_type``). A
        bond keeps the MACs of its members in ``perm_hwaddr``. If another MAC was set, rtnetlink has the
        permanent one.
        """
        if netdev is None:
            return None
        net = f"{path}net/{netdev}/"
        if self._tree.number(net + "addr_assign_type") == 0:
            return self._tree.text(net + "address")
        kept = self._tree.text(net + "bonding_slave/perm_hwaddr")
        return kept or self._macs().get(netdev)

    def _serial(self, address: PciAddress, path: str) -> str | None:
        """The card's serial number. It is read once per device, because reading VPD from the card is slow."""
        key = address, self._tree.identity(path)
        if key not in self._serials:
            vpd = self._tree.binary(path + "vpd")
            self._serials[key] = None if vpd is None else serial_number(vpd)
        return self._serials[key]

    def _forget_serials(self, functions: Mapping[PciAddress, _Function]) -> None:
        for key in [key for key in self._serials if key[0] not in functions]:
            del self._serials[key]


def _partners(function: _Function | None) -> Iterable[PciAddress]:
    """The PF of a VF, the VFs of a PF."""
    if function is None:
        return ()
    return function.vfs if function.device.parent is None else (function.device.parent,)


def _judge(functions: Mapping[PciAddress, _Function]) -> Scan:
    """Sort the functions and find inconsistencies.

    A blocked unbind leaves PFs and VFs half linked while it lasts. A VF without its ``physfn`` must not be
    taken for a plain device, which could be handed out.
    """
    parents = {vf: pf for pf, function in functions.items() for vf in function.vf_range.union(function.vfs)}
    devices: list[PciDevice] = []
    problems: dict[PciAddress, str] = {}
    for address in sorted(functions):
        function = functions[address]
        device = function.device
        if device.dev_type is DeviceType.PCI and address in parents:
            device = replace(device, dev_type=DeviceType.VF, parent=parents[address])
            problems[address] = f"the kernel shows no physfn of this VF of {device.parent}"
        elif device.parent is not None and not _is_pf(functions.get(device.parent)):
            LOG.warning("VF %s is ignored: %s is not a PF", address, device.parent)
            continue
        elif device.parent is not None and address not in functions[device.parent].vfs:
            problems[address] = f"PF {device.parent} does not list this VF"
        if device.parent is not None:
            device = replace(device, vf_num=functions[device.parent].vfs.get(address))
        strays = {vf for vf in function.vfs if vf not in functions or functions[vf].device.parent != address}
        if strays:
            problems[address] = f"this PF lists VFs that do not exist or do not link back: {_list(strays)}"
        devices.append(device)
    return Scan(tuple(devices), problems)


def _is_pf(function: _Function | None) -> bool:
    return function is not None and function.device.dev_type is DeviceType.PF


def _list(addresses: Iterable[PciAddress]) -> str:
    return ", ".join(str(address) for address in sorted(addresses))
