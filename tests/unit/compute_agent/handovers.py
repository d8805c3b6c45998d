"""A fake kernel for tests: it acts on a simulated host as the real kernel acts on real devices."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.network_settings import VfSettings, Vlan
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import Kernel, KernelRefused
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vf_link import PortSettings, SettingRefused, VfLinks
from portclaim.services.compute_agent.vf_network import VfNetwork


class SimulatedKernel(Kernel):
    """Does everything at once. ``opened``: devices that guests use. ``calls``: the calls so far.

    ``writes``: what was written to sysfs. ``broken`` makes calls of that name fail. ``unloaded``: drivers
    that take no device. ``prefers``: the driver that takes every device without a ``driver_override``.
    """

    def __init__(self, host: SimulatedTree) -> None:
        super().__init__(SysfsTree(host.root), timeout=10.0)
        self._host = host
        self.opened: set[PciAddress] = set()
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.keeps_no_vfs = False
        self.writes: list[str] = []
        self.unloaded: set[str] = set()
        self.prefers: str | None = None

    def bind_to_vfio(self, address: PciAddress) -> None:
        self._ask("bind_to_vfio", address)
        super().bind_to_vfio(address)

    def return_to_driver(self, address: PciAddress, driver: str | None, override: str | None) -> None:
        self._ask("return_to_driver", address)
        super().return_to_driver(address, driver, override)

    def bind_anew(self, address: PciAddress) -> None:
        self._ask("bind_anew", address)
        self._host.bind(address, self._host.own_driver(address))

    def set_num_vfs(self, pf: PciAddress, count: int) -> None:
        self._ask(f"set_num_vfs {count}", pf)
        if count and self.keeps_no_vfs:
            return
        super().set_num_vfs(pf, count)

    def _write(self, address: PciAddress, path: str, text: str) -> None:
        self.writes.append(f"{text.strip()} > {path}")
        place, _, attribute = path.rpartition("/")
        here = self.driver(address)
        try:
            if attribute == "driver_override":
                (self._host.root / path).write_text(f"{text.strip() or '(null)'}\n")
            elif attribute == "unbind":
                if place.rpartition("/")[2] != here:
                    raise KernelRefused(f"{address}: no such device")
                self._host.bind(address, None)
            elif attribute == "drivers_probe":
                wanted = self.override(address) or self.prefers or self._host.own_driver(address)
                if here is None and wanted not in self.unloaded:
                    self._host.bind(address, wanted)
            elif attribute == "sriov_numvfs":
                self._host.set_num_vfs(address, int(text))
        except OSError as error:
            raise KernelRefused(str(error)) from error

    def reset(self, address: PciAddress) -> bool:
        self._ask("reset", address)
        return True

    def in_use(self, address: PciAddress) -> bool:
        return address in self.opened

    def _ask(self, what: str, address: PciAddress) -> None:
        self.calls.append(f"{what} {address}")
        if what.split(maxsplit=1)[0] in self.broken:
            raise DriverError(f"{what} of {address} is broken")


def at_once(condition: Callable[[], bool], timeout: float) -> bool:
    """Replaces waiting, because nothing happens later on a simulated host."""
    return condition()


FRESH = VfSettings("00:00:00:00:00:00", Vlan(), 0, 0, "auto", trust=False, spoofchk=True)
"""How most drivers show a VF of which nothing was set."""

FACTORY = PortSettings("3c:fd:fe:00:00:01", 1500)


class CardLinks(VfLinks):
    """The card itself: it keeps what is set. ``vfs``: settings by interface and number; ``writes`` so far.

    ``ports``: settings of the interfaces themselves. ``refused``: settings that its driver does not set.
    ``ignored``: those that it says to set, and does not. ``keeps_macs``: how it treats a MAC of zeroes.
    """

    def __init__(self) -> None:
        super().__init__(timeout=10.0)
        self.vfs: dict[tuple[str, int], VfSettings] = {}
        self.ports: dict[str, PortSettings] = {}
        self.writes: list[str] = []
        self.refused: set[str] = set()
        self.ignored: set[str] = set()
        self.keeps_macs = ""
        self.before_write: Callable[[], None] = lambda: None

    def read(self, netdev: str, vf: int) -> VfSettings:
        return self.vfs.setdefault((netdev, vf), FRESH)

    def write(self, netdev: str, vf: int, name: str, value: Any) -> None:
        self.before_write()
        self.writes.append(f"{netdev} {vf} {name}")
        if self.keeps_macs == "silently" and value == FRESH.mac:
            return
        if name in self.refused or (self.keeps_macs and value == FRESH.mac):
            raise SettingRefused("Operation not supported")
        changes = {"min_tx_rate": value[0], "max_tx_rate": value[1]} if name == "rate" else {name: value}
        if name not in self.ignored:
            self.vfs[netdev, vf] = replace(self.read(netdev, vf), **changes)

    def read_port(self, netdev: str) -> PortSettings:
        return self.ports.setdefault(netdev, FACTORY)

    def write_port(self, netdev: str, name: str, value: Any) -> None:
        self.before_write()
        self.writes.append(f"{netdev} {name}")
        if name in self.refused:
            raise SettingRefused("Operation not supported")
        self.ports[netdev] = self.read_port(netdev)._replace(**{name: value})


def settings_of(
    host: SimulatedTree, scanner: Scanner, restorer: Restorer, links: VfLinks | None = None, *, enabled: bool
) -> VfNetwork:
    """What the agent of that host sets network settings with."""
    return VfNetwork(
        SysfsTree(host.root),
        scanner,
        links or CardLinks(),
        restorer,
        enabled=enabled,
    )


def share_group(host: SimulatedTree, one: PciAddress, other: PciAddress) -> None:
    """Put both devices into the IOMMU group of the first."""
    place, other_place = (
        (host.root / "bus/pci/devices" / str(address)).resolve() for address in (one, other)
    )
    group = (place / "iommu_group").resolve()
    shutil.rmtree((other_place / "iommu_group").resolve())
    (other_place / "iommu_group").unlink()
    (other_place / "iommu_group").symlink_to(group)
    (group / "devices" / str(other)).symlink_to(other_place)
