"""Properties of a scan while the tree changes, and of trees of any shape."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.scanner import ATTEMPTS, Scan, ScanError, Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import Model, SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PORTS = [PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:02:00.0")]
ACCELERATOR = PciAddress.parse("0000:03:00.0")
MODEL = Model("10de", "20b5", "030200", "")

Change = Callable[[SimulatedTree], object]


class MovingTree(SysfsTree):
    """Makes a change before each read with one of the given numbers."""

    def __init__(self, host: SimulatedTree, changes: dict[int, Change]) -> None:
        super().__init__(host.root)
        self._host = host
        self._changes = dict(changes)
        self._reads = 0
        self.states: list[object] = []

    def _before_a_read(self) -> None:
        self._reads += 1
        change = self._changes.pop(self._reads, None)
        if change is not None:
            change(self._host)
            self.states.append(shape_of(Scanner(SysfsTree(self._host.root)).scan()))

    def names(self, path: str) -> list[str] | None:
        self._before_a_read()
        return super().names(path)

    def link(self, path: str) -> str | None:
        self._before_a_read()
        return super().link(path)

    def text(self, path: str) -> str | None:
        self._before_a_read()
        return super().text(path)


def shape_of(scan: Scan) -> object:
    """The devices and their parents."""
    assert not scan.problems
    return [(str(each.address), each.dev_type, each.parent, each.num_vfs) for each in scan.devices]


@contextmanager
def small_host() -> Iterator[SimulatedTree]:
    with tempfile.TemporaryDirectory() as directory:
        yield build_host(Path(directory) / "sys", HostShape(ports=2, vfs_per_port=2), "node-1")


def set_vfs(port: PciAddress, count: int) -> Change:
    def change(host: SimulatedTree) -> None:
        host.set_num_vfs(port, 0)
        host.set_num_vfs(port, count)

    return change


def unplug(address: PciAddress) -> Change:
    return lambda host: host.unplug(address)


def plug(address: PciAddress) -> Change:
    return lambda host: host.add_function(Path("devices/pci0000:00"), address, MODEL)


CHANGES = st.one_of(
    st.builds(set_vfs, st.sampled_from(PORTS), st.integers(0, 2)),
    st.just(unplug(ACCELERATOR)),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 120), CHANGES, max_size=4))
def test_a_scan_shows_the_tree_at_one_moment(changes: dict[int, Change]) -> None:
    with small_host() as host:
        at_first = shape_of(Scanner(SysfsTree(host.root)).scan())
        tree = MovingTree(host, changes)
        assert shape_of(Scanner(tree).scan()) in [at_first, *tree.states]


GO_AND_COME_BACK = {
    "VFs": (set_vfs(PORTS[0], 0), set_vfs(PORTS[0], 2)),
    "accelerator": (unplug(ACCELERATOR), plug(ACCELERATOR)),
}


@pytest.mark.parametrize("what", GO_AND_COME_BACK)
def test_a_device_that_vanishes_and_returns_during_a_scan_is_included(what: str) -> None:
    """The list of devices is the same before and after, but the facts read in between do not fit together."""
    go, come_back = GO_AND_COME_BACK[what]
    with small_host() as host:
        at_first = shape_of(Scanner(SysfsTree(host.root)).scan())
        for gone in range(1, 90, 2):
            for away in (1, 4, 16):
                tree = MovingTree(host, {gone: go, gone + away: come_back})
                scan = shape_of(Scanner(tree).scan())
                is_back = len(tree.states) != 1
                assert scan == at_first or (not is_back and scan == tree.states[0])
                if not is_back:
                    come_back(host)


def test_a_scan_of_a_tree_that_changes_all_the_time_fails() -> None:
    with small_host() as host:
        restless = {read: set_vfs(PORTS[0], 2 - read // 5 % 3) for read in range(5, 5 + 200 * ATTEMPTS, 5)}
        with pytest.raises(ScanError, match="changed during each"):
            Scanner(MovingTree(host, restless)).scan()


IDS = st.integers(0, 0xFFFF).map(lambda number: f"{number:04x}")
CLASSES = st.integers(0, 0xFFFFFF).map(lambda number: f"{number:06x}")
FUNCTIONS = st.dictionaries(
    st.builds(PciAddress, st.just(0), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)),
    st.tuples(st.builds(Model, IDS, IDS, CLASSES, st.just("")), st.integers(-1, 7)),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(FUNCTIONS)
def test_a_scan_shows_what_is_in_the_tree(functions: dict[PciAddress, tuple[Model, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        host = SimulatedTree.create(Path(directory) / "sys", "node-1")
        for address, (model, node) in functions.items():
            host.add_function(Path("devices/pci0000:00"), address, model, node)
        seen = {
            each.address: (each.vendor_id, each.product_id, each.class_id, each.numa_node)
            for each in Scanner(SysfsTree(host.root)).scan().devices
        }
    assert seen == {
        address: (model.vendor_id, model.product_id, model.class_id, None if node < 0 else node)
        for address, (model, node) in functions.items()
        if not model.class_id.startswith("06")
    }
