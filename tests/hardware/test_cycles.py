"""Many cycles leave nothing behind: no file, no memory, no row, no driver_override, no missing VF."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import load_driver
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from tests.hardware.conftest import DEVICES, OTHER_PORT, driver_of, run, vfs_of, write
from tests.hardware.guests import Guest

MakeStep = Callable[..., Step]
CYCLES = int(os.environ.get("PORTCLAIM_CYCLES", "2"))
GROWTH = 3.0  # MB


@pytest.fixture(params=["vfio", "libvirt"])
def driver(conf: cfg.ConfigOpts, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RealHostDriver]:
    if request.param == "libvirt":
        request.getfixturevalue("connection")
    write(OTHER_PORT, "sriov_numvfs", 7)
    run("udevadm", "settle")
    driver = load_driver(request.param, conf, tmp_path)
    assert isinstance(driver, RealHostDriver)
    driver.start()
    yield driver
    driver.stop()
    write(OTHER_PORT, "sriov_numvfs", 0)


@pytest.fixture
def instance_id(driver: RealHostDriver, request: pytest.FixtureRequest) -> UUID:
    """With libvirt, a domain that is shut off: it gets and loses the devices in its configuration."""
    if isinstance(driver, VfioDriver):
        return uuid4()
    make_guest = request.getfixturevalue("make_guest")
    guest: Guest = make_guest(f"cycles-{uuid4().hex[:4]}", running=False, started=False)
    return guest.uuid


class Times:
    """How long the parts of a cycle took, in seconds, and how often each was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._spent: dict[str, list[float]] = {}
        for owner, name in (
            (Kernel, "_write"),
            (Restorer, "happens"),
            (Restorer, "_entry_of"),
            (Scanner, "look"),
            (Scanner, "vfs"),
        ):
            monkeypatch.setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, do: Callable[..., object]) -> Callable[..., object]:
        def timed(*arguments: object) -> object:
            since = time.monotonic()
            try:
                return do(*arguments)
            finally:
                what = f"{str(arguments[2]).rpartition('/')[2]}" if name == "_write" else name
                self._spent.setdefault(what, []).append(time.monotonic() - since)

        return timed

    def __str__(self) -> str:
        return ", ".join(f"{name} {len(each)} times {sum(each):.2f} s" for name, each in self._spent.items())


def what_is_there() -> dict[str, object]:
    addresses = [OTHER_PORT, *vfs_of(OTHER_PORT)]
    return {
        "VFs": vfs_of(OTHER_PORT),
        "drivers": [driver_of(address) for address in addresses],
        "overrides": [(DEVICES / address / "driver_override").read_text() for address in addresses],
    }


def files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def memory() -> float:
    """MB that are this process's alone."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024


@pytest.mark.parametrize("what", ["the whole port", "7 VFs"])
def test_many_cycles_leave_nothing_behind(  # noqa: PLR0917 - fixtures
    driver: RealHostDriver,
    instance_id: UUID,
    make_step: MakeStep,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    devices = [OTHER_PORT] if what == "the whole port" else vfs_of(OTHER_PORT)
    own = "igb" if what == "the whole port" else "igbvf"
    figures = []

    def cycle() -> None:
        step = make_step("attach", *devices, instance_id=instance_id)
        times, since = Times(monkeypatch), time.monotonic()
        for device in step.devices:
            driver.prepare(step, device)
            driver.attach(step, device)
        attached, parts = time.monotonic() - since, str(times)
        assert [driver_of(address) for address in devices] == ["vfio-pci"] * len(devices)
        monkeypatch.undo()
        times, since = Times(monkeypatch), time.monotonic()
        for device in step.devices:
            driver.detach(step, device)
        restored = time.monotonic() - since
        figures.append(
            f"{what}: prepared in {attached:.1f} s ({parts}), restored in {restored:.1f} s ({times})"
        )
        monkeypatch.undo()
        run("udevadm", "settle")
        assert [driver_of(address) for address in devices] == [own] * len(devices)

    cycle()  # what is made once is made now
    before, files_before, memory_before = what_is_there(), files(), memory()
    for _ in range(CYCLES):
        cycle()
    assert what_is_there() == before
    assert files() <= files_before  # fewer, if one of the first cycle was still open
    assert (driver.handed_over(), driver.problems()) == ([], {})
    grown = memory() - memory_before
    with capsys.disabled():
        print(f"\n{figures[0]}\n{figures[-1]}\n{CYCLES} cycles: {grown:+.2f} MB")  # noqa: T201 - the figures
    assert grown < GROWTH
