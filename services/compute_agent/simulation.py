"""A simulated host: a directory tree with sysfs's layout, and the changes that a kernel would make to it.

The tree holds the whole state, so that any process may open it and continue. This module does what the kernel
does when it is asked through sysfs (create VFs, bind drivers), in the kernel's order and with the kernel's
errors.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.routing import vf_addresses
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

MARKER = "simulation.json"  # marks a simulated tree; has the host's name and driver table


class NotSimulated(RuntimeError):
    """The tree is not a simulated one: changing it could change a real ``/sys``."""


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of function: ids as sysfs shows them without ``0x``, and the driver that takes it."""

    vendor_id: str
    product_id: str
    class_id: str
    driver: str

    @property
    def ids(self) -> str:
        """``vendor:product``, as ``lspci -n`` writes it."""
        return f"{self.vendor_id}:{self.product_id}"


ROOT_PORT = Model("8086", "2030", "060400", "pcieport")
PORT = Model("8086", "1572", "020000", "i40e")
PORT_VF = Model("8086", "154c", "020000", "iavf")
ACCELERATOR = Model("10de", "20b5", "030200", "nvidia")
MODELS = (ROOT_PORT, PORT, PORT_VF, ACCELERATOR)

VFIO = "vfio-pci"
VF_OFFSET, VF_STRIDE = 128, 2  # as on Intel's 82576: VF addresses are not contiguous


class SimulatedTree:
    """One simulated host. Each change is made in the kernel's order, so a scan may find it half done.

    Two threads must not change one PF's tree at the same time. A real kernel prevents that with its device
    lock.
    """

    def __init__(self, root: Path) -> None:
        """Open a tree. Raises :class:`NotSimulated` if it is not a simulated one."""
        try:
            about = json.loads((root / MARKER).read_text())
        except FileNotFoundError:
            raise NotSimulated(f"{root} is not a simulated tree: it has no {MARKER}") from None
        self.root = root
        self.name: str = about["name"]
        self._drivers: dict[str, str] = about["drivers"]
        self._tree = SysfsTree(root)

    @classmethod
    def create(cls, root: Path, name: str) -> SimulatedTree:
        """Make an empty tree for this host name. Raises FileExistsError if ``root`` exists."""
        root.mkdir(parents=True)
        (root / PCI_DEVICES).mkdir(parents=True)
        drivers = {model.ids: model.driver for model in MODELS}
        (root / MARKER).write_text(json.dumps({"name": name, "drivers": drivers}))
        return cls(root)

    def add_numa_node(self, node: int, socket: int, cpus: Iterable[int]) -> None:
        """A NUMA cell whose CPUs all sit in one socket."""
        cpus = list(cpus)
        self._write(Path(f"devices/system/node/node{node}"), cpulist=",".join(map(str, cpus)))
        for cpu in cpus:
            self._write(Path(f"devices/system/cpu/cpu{cpu}/topology"), physical_package_id=str(socket))

    def add_function(
        self, path: Path, address: PciAddress, model: Model, numa_node: int = -1, **more: str
    ) -> Path:
        """Add a function below ``path`` (the directory of its bridge in ``devices``) and bind its driver.

        ``more`` are further attributes by file name. Returns the directory of the function.
        """
        place = self._plug(path / str(address), address, model, numa_node, more)
        self.bind(address, self._drivers.get(model.ids))
        return place

    def add_port(
        self, path: Path, address: PciAddress, total_vfs: int, numa_node: int = -1, model: Model = PORT
    ) -> None:
        """A PF with its SR-IOV capability and no VFs yet."""
        place = self.add_function(
            path,
            address,
            model,
            numa_node,
            sriov_totalvfs=str(total_vfs),
            sriov_numvfs="0",
            sriov_offset=str(VF_OFFSET),
            sriov_stride=str(VF_STRIDE),
            sriov_vf_device=PORT_VF.product_id,
            sriov_drivers_autoprobe="1",
        )
        (self.root / place / "vpd").write_bytes(_vpd(self._digest(address)[:12].upper()))

    def num_vfs(self, pf: PciAddress) -> int:
        """``sriov_numvfs`` of a port."""
        return self._tree.number(f"{PCI_DEVICES}/{pf}/sriov_numvfs") or 0

    def vfs(self, pf: PciAddress) -> list[PciAddress]:
        """The VFs that a port has."""
        links = (self.root / self._place(pf)).glob("virtfn*")
        return sorted(PciAddress.parse(link.readlink().name) for link in links)

    def set_num_vfs(self, pf: PciAddress, count: int) -> None:
        """Write ``sriov_numvfs``. The next write finishes one that was killed half way.

        Raises OSErrors as the kernel does: EBUSY if the port has VFs and ``count`` is not 0, ERANGE above
        ``sriov_totalvfs``, ENOENT without a driver that makes VFs.
        """
        place = self._place(pf)
        attributes = SysfsTree(self.root / place)
        current, total = self.num_vfs(pf), attributes.number("sriov_totalvfs") or 0
        offset, stride = attributes.number("sriov_offset") or 0, attributes.number("sriov_stride") or 0
        possible = vf_addresses(pf, offset, stride, total)
        there = [vf for vf in possible if (self.root / PCI_DEVICES / str(vf)).is_symlink()]
        is_whole = current == len(there) == len(self.vfs(pf))  # for the kernel it always is
        if count == current and is_whole:
            return
        if count > total:
            raise OSError(errno.ERANGE, f"{pf} has at most {total} VFs")
        if attributes.link("driver") in {None, VFIO}:
            raise OSError(errno.ENOENT, f"{pf} has no driver that could make VFs")
        if count and current and is_whole:
            raise OSError(errno.EBUSY, f"{pf} has {current} VFs: set 0 first")
        model = Model(
            (attributes.text("vendor") or "").removeprefix("0x"),
            attributes.text("sriov_vf_device") or "",
            PORT_VF.class_id,
            PORT_VF.driver,
        )
        node = attributes.number("numa_node") or 0
        for n, vf in enumerate(possible):
            if n < count:
                self._plug(place.parent / str(vf), vf, model, node, {})
                self._link(place / f"virtfn{n}", place.parent / str(vf))
                self._link(place.parent / str(vf) / "physfn", place)
                self.bind(vf, self._drivers.get(model.ids))
            else:
                (self.root / place / f"virtfn{n}").unlink(missing_ok=True)
                self.unplug(vf)
        self._write(place, sriov_numvfs=str(count))

    def bind(self, address: PciAddress, driver: str | None) -> None:
        """Unbind the function and bind it to another driver; None leaves it without.

        A PF that changes its driver loses its VFs. Only a PF on its own driver has a network interface.
        """
        place = self._place(address)
        if self._tree.link(str(place / "driver")) != driver:
            if self.num_vfs(address):
                self.set_num_vfs(address, 0)
            (self.root / place / "driver").unlink(missing_ok=True)
            shutil.rmtree(self.root / place / "net", ignore_errors=True)
            if driver is not None:
                home = Path("bus/pci/drivers") / driver
                self._write(home)
                self._link(place / "driver", home)
        if driver == PORT.driver:
            digest = self._digest(address)
            mac = ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])
            netdev = f"enp{address.bus}s{address.slot}f{address.function}"
            self._write(place / "net" / netdev, address=mac, addr_assign_type="0", dev_port="0")

    def own_driver(self, address: PciAddress) -> str | None:
        """The driver that takes this function by default."""
        place = self._place(address)
        vendor, product = (self._tree.text(str(place / name)) or "" for name in ("vendor", "device"))
        return self._drivers.get(f"{vendor.removeprefix('0x')}:{product.removeprefix('0x')}")

    def unplug(self, address: PciAddress) -> None:
        """Take a function out of the tree; nothing happens if it is not there."""
        link = self.root / PCI_DEVICES / str(address)
        if not link.is_symlink():
            return
        place = link.resolve()
        (place / "physfn").unlink(missing_ok=True)
        link.unlink()
        shutil.rmtree(self.root / f"kernel/iommu_groups/{_iommu_group(address)}", ignore_errors=True)
        shutil.rmtree(place)

    def _plug(
        self, place: Path, address: PciAddress, model: Model, numa_node: int, more: dict[str, str]
    ) -> Path:
        self._write(
            place,
            vendor=f"0x{model.vendor_id}",
            device=f"0x{model.product_id}",
            numa_node=str(numa_node),
            driver_override="(null)",
            **{"class": f"0x{model.class_id}"},
            **more,
        )
        group = Path(f"kernel/iommu_groups/{_iommu_group(address)}")
        self._link(place / "iommu_group", group)
        self._link(group / "devices" / str(address), place)
        self._link(Path(PCI_DEVICES) / str(address), place)
        return place

    def _place(self, address: PciAddress) -> Path:
        target = (self.root / PCI_DEVICES / str(address)).readlink()
        return Path(os.path.normpath(f"{PCI_DEVICES}/{target}"))

    def _write(self, place: Path, **attributes: str) -> None:
        (self.root / place).mkdir(parents=True, exist_ok=True)
        for name, value in attributes.items():
            (self.root / place / name).write_text(f"{value}\n")

    def _link(self, at: Path, target: Path) -> None:
        link = self.root / at
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, at.parent))

    def _digest(self, address: PciAddress) -> str:
        return hashlib.sha256(f"{self.name}/{address}".encode()).hexdigest()


def _iommu_group(address: PciAddress) -> int:
    """Each function has its own IOMMU group, as on a host that isolates all functions."""
    return address.domain << 16 | address.bus << 8 | address.slot << 3 | address.function


def _vpd(serial: str) -> bytes:
    field = b"SN" + bytes([len(serial)]) + serial.encode()
    name = b"Portclaim simulated port"
    return b"\x82%c\0%b\x90%c\0%b\x78" % (len(name), name, len(field), field)
