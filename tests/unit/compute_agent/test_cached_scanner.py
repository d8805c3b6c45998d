"""The cached scan: after an event only the named devices are read again, and the result is still complete."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.cached_scanner import CachedScanner
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import VFIO, Model, SimulatedTree
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

PORTS = [PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:02:00.0")]
VF = PciAddress.parse("0000:01:10.0")
ACCELERATOR = PciAddress.parse("0000:03:00.0")
MODEL = Model("10de", "20b5", "030200", "")


class Change(NamedTuple):
    """A change of a host. ``make`` returns the devices that the kernel's events name."""

    what: str
    make: Callable[[SimulatedTree], set[PciAddress]]

    def __repr__(self) -> str:
        return self.what


def vfs_of(host: SimulatedTree, port: PciAddress) -> set[PciAddress]:
    return set(Scanner(SysfsTree(host.root)).vfs(port))


def set_vfs(port: PciAddress, count: int) -> Change:
    def make(host: SimulatedTree) -> set[PciAddress]:
        before = vfs_of(host, port)
        if SysfsTree(host.root).link(f"{PCI_DEVICES}/{port}/driver") != host.own_driver(port):
            return set()
        host.set_num_vfs(port, 0)
        host.set_num_vfs(port, count)
        return before | vfs_of(host, port)  # the kernel names the PF itself only when VFs are added

    return Change(f"{count} VFs of {port}", make)


def bind(address: PciAddress, driver: str | None) -> Change:
    def make(host: SimulatedTree) -> set[PciAddress]:
        before = vfs_of(host, address)
        if not (host.root / PCI_DEVICES / str(address)).exists():
            return set()
        host.bind(address, host.own_driver(address) if driver == "" else driver)
        return {address} | before

    return Change(f"{address} to {driver}", make)


def plug_or_unplug() -> Change:
    def make(host: SimulatedTree) -> set[PciAddress]:
        if (host.root / PCI_DEVICES / str(ACCELERATOR)).exists():
            host.unplug(ACCELERATOR)
        else:
            host.add_function(Path("devices/pci0000:00"), ACCELERATOR, MODEL)
        return {ACCELERATOR}

    return Change("plug or unplug", make)


def replace_by_a_bridge() -> Change:
    """Put a bridge into the slot between two scans."""

    def make(host: SimulatedTree) -> set[PciAddress]:
        host.unplug(ACCELERATOR)
        host.add_function(Path("devices/pci0000:00"), ACCELERATOR, Model("8086", "2030", "060400", ""))
        return {ACCELERATOR}

    return Change("a bridge instead", make)


def rename(port: PciAddress, name: str) -> Change:
    def make(host: SimulatedTree) -> set[PciAddress]:
        interfaces = list((host.root / PCI_DEVICES / str(port) / "net").glob("*"))
        if interfaces and not interfaces[0].with_name(name).exists():
            interfaces[0].rename(interfaces[0].with_name(name))
        return {port}

    return Change(f"{name} of {port}", make)


CHANGES = st.one_of(
    st.builds(set_vfs, st.sampled_from(PORTS), st.integers(0, 2)),
    st.builds(bind, st.sampled_from([*PORTS, VF]), st.sampled_from([None, "", VFIO])),
    st.builds(rename, st.sampled_from(PORTS), st.sampled_from(["a0", "b0"])),
    st.builds(plug_or_unplug),
    st.builds(replace_by_a_bridge),
)


class ReadTree(SysfsTree):
    """Records which devices are read. Makes changes before the reads with the given numbers."""

    def __init__(self, host: SimulatedTree) -> None:
        super().__init__(host.root)
        self._host = host
        self.read: set[str] = set()
        self.listed = 0
        self.changes: dict[int, Change] = {}
        self.named: set[PciAddress] = set()

    def names(self, path: str) -> list[str] | None:
        return super().names(self._about_to_read(path))

    def text(self, path: str) -> str | None:
        return super().text(self._about_to_read(path))

    def link(self, path: str) -> str | None:
        return super().link(self._about_to_read(path))

    def _about_to_read(self, path: str) -> str:
        self.listed += 1
        change = self.changes.pop(self.listed, None)
        if change is not None:
            self.named |= change.make(self._host)
        if path != PCI_DEVICES:
            self.read.add(path.removeprefix(f"{PCI_DEVICES}/").split("/")[0])
        return path


@contextmanager
def small_host() -> Iterator[SimulatedTree]:
    with tempfile.TemporaryDirectory() as directory:
        yield build_host(Path(directory) / "sys", HostShape(ports=2, vfs_per_port=2), "node-1")


def watched(tree: SysfsTree) -> CachedScanner:
    cached_scanner = CachedScanner(Scanner(tree))
    cached_scanner.is_watched = lambda: True
    cached_scanner.scan()
    return cached_scanner


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(CHANGES, max_size=3), max_size=5))
def test_reading_only_the_named_devices_gives_a_complete_scan(bursts: list[list[Change]]) -> None:
    with small_host() as host:
        cached_scanner = watched(SysfsTree(host.root))
        for burst in bursts:
            for change in burst:
                cached_scanner.invalidate(change.make(host))
            assert cached_scanner.scan() == Scanner(SysfsTree(host.root)).scan()


@settings(max_examples=80, deadline=None)
@given(CHANGES, st.dictionaries(st.integers(1, 60), CHANGES, max_size=3))
def test_changes_during_a_scan_are_seen_by_the_next_scan(first: Change, later: dict[int, Change]) -> None:
    with small_host() as host:
        tree = ReadTree(host)
        cached_scanner = watched(tree)
        cached_scanner.invalidate(first.make(host))
        tree.listed, tree.changes = 0, dict(later)
        cached_scanner.scan()
        tree.changes.clear()
        cached_scanner.invalidate(tree.named)
        assert cached_scanner.scan() == Scanner(SysfsTree(host.root)).scan()


@pytest.mark.parametrize(
    ("named", "read"),
    [
        ([], set()),
        ([ACCELERATOR], {ACCELERATOR}),
        ([VF], {VF, PORTS[0]}),
        ([PORTS[0]], {PORTS[0], VF, PciAddress.parse("0000:01:10.2")}),
        ([PciAddress.parse("0000:09:00.0")], set()),
    ],
)
def test_only_the_named_devices_and_their_pf_or_vfs_are_read(
    named: list[PciAddress], read: set[PciAddress]
) -> None:
    with small_host() as host:
        tree = ReadTree(host)
        cached_scanner = watched(tree)
        before = cached_scanner.scan()
        tree.read.clear()
        cached_scanner.invalidate(named)
        assert cached_scanner.scan() == before
        assert tree.read == {str(address) for address in read}


def changed_unseen(host: SimulatedTree) -> None:
    (host.root / PCI_DEVICES / str(VF) / "numa_node").write_text("5\n")


def node_of(cached_scanner: CachedScanner, address: PciAddress) -> int | None:
    return next(device.numa_node for device in cached_scanner.scan().devices if device.address == address)


class TestEverythingIsReadAgain:
    """A change without an event is seen too."""

    @pytest.fixture
    def cached_scanner(self, host: SimulatedTree) -> CachedScanner:
        cached_scanner = watched(SysfsTree(host.root))
        changed_unseen(host)
        assert node_of(cached_scanner, VF) != 5
        return cached_scanner

    def test_after_events_were_lost(self, cached_scanner: CachedScanner) -> None:
        cached_scanner.invalidate(None)
        assert node_of(cached_scanner, VF) == 5

    def test_when_an_audit_is_due(
        self, cached_scanner: CachedScanner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "portclaim.services.compute_agent.cached_scanner.time.monotonic", lambda: float("inf")
        )
        assert node_of(cached_scanner, VF) == 5

    def test_while_events_are_not_watched(self, cached_scanner: CachedScanner) -> None:
        cached_scanner.is_watched = lambda: False
        assert node_of(cached_scanner, VF) == 5

    def test_if_the_parts_do_not_fit_together(
        self, cached_scanner: CachedScanner, host: SimulatedTree
    ) -> None:
        stray = host.root / PCI_DEVICES / str(PORTS[1]) / "virtfn7"
        stray.symlink_to("../0000:01:10.0")
        cached_scanner.invalidate([PORTS[1]])
        assert node_of(cached_scanner, VF) == 5
