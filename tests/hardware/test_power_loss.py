"""A host lost its power with a live claim, and comes back.

The machine of these tests cannot start again in the middle of a test. So what a start leaves is made: no
program of before runs, libvirt's state of running domains is gone, and the VFs and the drivers are new.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import NUM_VFS, PORT, driver_of, run, vfs_of, write
from tests.hardware.guests import PATIENCE, Guest, alive
from tests.hardware.test_fleet import Fleet, fleet, host
from tests.hardware.test_fleet import conf as conf_of_fleet
from tests.hardware.test_lost_devices import shows, told
from tests.support.services import as_ini

libvirt = pytest.importorskip("libvirt")

__all__ = ["conf_of_fleet", "fleet", "host", "told"]  # fixtures
pytestmark = pytest.mark.parametrize("conf_of_fleet", ["libvirt"], indirect=True)


@pytest.fixture
def conf(conf_of_fleet: cfg.ConfigOpts, tmp_path: Path) -> cfg.ConfigOpts:
    """libvirt does not bind the devices: only the agent does."""
    file = tmp_path / "unmanaged.conf"
    file.write_text(as_ini({"libvirt": {"managed": "no"}}))
    return config.load(
        ["--config-file", str(tmp_path / "portclaim.conf"), "--config-file", str(file)], "test"
    )


@contextmanager
def agent_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An agent of its own, which can be killed. It is killed at the end."""
    files = [f"--config-file={tmp_path / name}" for name in ("portclaim.conf", "unmanaged.conf")]
    with (tmp_path / "agent.log").open("ab") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "portclaim.services.compute_agent", *files],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield agent
    finally:
        with suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGKILL)
        agent.wait()


def domain_process(guest: Guest) -> int:
    return int(Path(f"/run/libvirt/qemu/{guest.domain.name()}.pid").read_text())


def power_fails(guest: Guest) -> None:
    """All at once: the guest, libvirtd and its state in /run, and the VFs."""
    name = guest.domain.name()
    libvirtd = int(run("pidof", "libvirtd"))
    os.kill(libvirtd, signal.SIGKILL)
    os.kill(domain_process(guest), signal.SIGKILL)
    assert wait_until(lambda: not Path(f"/proc/{libvirtd}").exists(), PATIENCE)
    for file in Path("/run/libvirt/qemu").glob(f"{name}.*"):
        file.unlink()
    run("modprobe", "-r", "igb")
    assert vfs_of(PORT) == []


def host_starts() -> None:
    run("modprobe", "igb")
    assert wait_until(lambda: driver_of(PORT) == "igb", PATIENCE)


def vfs_are_made() -> None:
    """By the distribution's own means."""
    write(PORT, "sriov_numvfs", NUM_VFS[PORT])
    run("udevadm", "settle")


@pytest.fixture
def guest(make_guest: Callable[..., Guest], request: pytest.FixtureRequest) -> Guest:
    return make_guest(f"power-{len(request.node.name)}", running=False)


@pytest.fixture
def claim(fleet: Fleet, guest: Guest, tmp_path: Path, conf: cfg.ConfigOpts, connection: object) -> Claim:
    """A VF that the guest has when the power fails."""
    with agent_process(tmp_path):
        assert wait_until(lambda: is_listed(fleet), PATIENCE)
        claim = fleet.wait_for(fleet.claim("nic-vf", guest.uuid), "allocated")
        xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert "<hostdev mode='subsystem' type='pci' managed='no'>" in xml
    power_fails(guest)
    return claim


def is_listed(fleet: Fleet) -> bool:
    return bool(fleet.status(PORT))


def test_a_claimed_vf_leaves_the_host_before_its_network_starts(
    fleet: Fleet, claim: Claim, tmp_path: Path, told: Callable[[str, float], None]
) -> None:
    """Neither the agent nor libvirtd runs yet."""
    vf = claim.devices[0].address
    host_starts()
    vfs_are_made()
    assert driver_of(vf) == "igbvf"
    files = [f"--config-file={tmp_path / name}" for name in ("portclaim.conf", "unmanaged.conf")]
    since = time.monotonic()
    said = run(sys.executable, "-m", "portclaim.cli.main", *files, "host", "hand-over")
    told("`portclaim host hand-over` takes", since)
    assert (said, driver_of(vf)) == (f"{vf}: ready for its guest\n", "vfio-pci")
    run("lab-libvirtd")
    with agent_process(tmp_path):
        fleet.release(claim)
        fleet.wait_for(claim, "released")
    assert driver_of(vf) == "igbvf"


@pytest.mark.parametrize("vfs_come", ["before the agent", "after the agent"])
def test_a_claimed_vf_is_back_before_its_domain_starts(  # noqa: PLR0917 - fixtures
    fleet: Fleet,
    claim: Claim,
    guest: Guest,
    connection: Any,
    tmp_path: Path,
    vfs_come: str,
    told: Callable[[str, float], None],
) -> None:
    vf = claim.devices[0].address
    host_starts()
    if vfs_come == "before the agent":
        vfs_are_made()
        assert driver_of(vf) == "igbvf"
    run("lab-libvirtd")
    since = time.monotonic()
    with agent_process(tmp_path):
        if vfs_come == "after the agent":
            assert wait_until(lambda: shows(fleet, vf, "its host does not report it now"), PATIENCE)
            since = time.monotonic()
            vfs_are_made()
        assert wait_until(lambda: driver_of(vf) == "vfio-pci", PATIENCE)
        told(f"VFs made {vfs_come}: the claimed one is on vfio-pci after", since)
        assert [driver_of(other) for other in vfs_of(PORT) if other != vf] == ["igbvf"] * (NUM_VFS[PORT] - 1)
        assert wait_until(lambda: shows(fleet, vf, None), PATIENCE)
        domain = alive(connection).lookupByUUIDString(str(guest.uuid))
        assert not domain.isActive()
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        assert domain.XMLDesc().count("<hostdev") == 1
        assert fleet.wait_for(claim, "allocated").step == claim.step
        domain.destroy()
        assert driver_of(vf) == "vfio-pci"
        fleet.release(claim)
        fleet.wait_for(claim, "released")
        assert (driver_of(vf), domain.XMLDesc().count("<hostdev")) == ("igbvf", 0)
