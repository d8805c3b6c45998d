"""A real host in a real fleet: conductor, scheduler, PostgreSQL and RabbitMQ are outside the emulator."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, DeviceFilter
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.cached_scanner import CachedScanner
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.drivers.libvirt import libvirt
from portclaim.services.compute_agent.inventory import Inventory
from tests.hardware.conftest import DEVICES, NUM_VFS, OTHER_PORT, PORT, driver_of, vfs_of
from tests.hardware.guests import PATIENCE, Guest
from tests.support.bus import Bus
from tests.support.engines import skip_without
from tests.support.services import as_ini


class Fleet:
    """What an API layer sees of it."""

    def __init__(self, bus: Bus, host: str) -> None:
        self._bus = bus
        self._host = host

    def claim(self, alias: str, instance_id: UUID | None = None, **request: Any) -> Claim:
        extra_specs = {"pci_passthrough:alias": f"{alias}:1"}
        return self._bus.scheduler.claim(
            ClaimRequest(
                claim_id=uuid4(),
                instance_id=instance_id or uuid4(),
                extra_specs=extra_specs,
                hosts=[self._host],
                **request,
            )
        )

    def attach(self, claim: Claim) -> None:
        self._bus.scheduler.attach(claim.claim_id)

    def release(self, claim: Claim) -> None:
        self._bus.scheduler.release(claim.claim_id)

    def wait_for(self, claim: Claim, status: str) -> Claim:
        """The claim once it has this status."""
        deadline = time.monotonic() + PATIENCE
        while (now := self._bus.scheduler.show(claim.claim_id)).status != status:
            assert time.monotonic() < deadline, now
            time.sleep(0.2)  # nobody tells an API layer
        return now

    def status(self, port: str) -> dict[str, str]:
        """The effective status of a port and its VFs, by address."""
        found = self._bus.scheduler.devices(DeviceFilter(host=self._host)).devices
        return {device.address: device.effective_status for device in found if device.port == port}

    def reason(self, address: str) -> str | None:
        """Why no claim can have the device."""
        found = self._bus.scheduler.devices(DeviceFilter(host=self._host)).devices
        return next((device.reason for device in found if device.address == address), None)


@pytest.fixture
def host() -> str:
    """Another for each test: nothing is left over from the one before."""
    return f"lab-{uuid4().hex[:8]}"


@pytest.fixture
def conf(tmp_path: Path, host: str, request: pytest.FixtureRequest) -> cfg.ConfigOpts:
    if not os.environ.get("PORTCLAIM_BUS"):
        skip_without("RabbitMQ", "beside the lab")
    file = tmp_path / "portclaim.conf"
    options = {
        "DEFAULT": {"host": host, "state_path": tmp_path, "transport_url": os.environ["PORTCLAIM_BUS"]},
        "compute_agent": {"driver": getattr(request, "param", "vfio"), "report_interval": 30},
        "libvirt": {"timeout": PATIENCE, "detach_timeout": PATIENCE},
        "pci": {"device_spec": json.dumps({"vendor_id": "8086", "product_id": "10c9"})},
    }
    vfs = json.dumps({"vendor_id": "8086", "product_id": "10ca"})
    file.write_text(as_ini(options) + f"device_spec = {vfs}\n")
    return config.load(["--config-file", str(file)], "test")


@pytest.fixture
def fleet(conf: cfg.ConfigOpts, host: str, tmp_path: Path) -> Iterator[Fleet]:
    bus = Bus(os.environ["PORTCLAIM_BUS"], tmp_path)
    yield Fleet(bus, host)
    bus.close()


@pytest.fixture
def agent(conf: cfg.ConfigOpts) -> Iterator[ComputeAgent]:
    agent = ComputeAgent(conf)
    agent.start()
    yield agent
    agent.stop()


class Chronicle:
    """When the agent did what, in seconds since :attr:`start`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start = time.monotonic()
        self.entries: list[tuple[float, str]] = []
        self.published = -1
        scan, invalidate, publish = CachedScanner.scan, CachedScanner.invalidate, ConductorLink.publish

        def scanned(cached_scanner: CachedScanner) -> Any:
            self.add("scan")
            found = scan(cached_scanner)
            self.add("scanned")
            return found

        def noted(cached_scanner: CachedScanner, changed: Any) -> None:
            self.add(f"told of {'all' if changed is None else len(list(changed))}")
            invalidate(cached_scanner, changed)

        def told(link: ConductorLink, inventory: Inventory, *, in_full: bool) -> bool:
            vfs = sum(device.parent_address == OTHER_PORT for device in inventory.devices)
            self.add(f"publish {vfs}")
            resend = publish(link, inventory, in_full=in_full)
            self.add(f"published {vfs}")
            if in_full:
                self.published = vfs
            return resend

        monkeypatch.setattr(CachedScanner, "scan", scanned)
        monkeypatch.setattr(CachedScanner, "invalidate", noted)
        monkeypatch.setattr(ConductorLink, "publish", told)

    def add(self, what: str) -> None:
        self.entries.append((time.monotonic() - self.start, what))

    def __str__(self) -> str:
        return ", ".join(f"{when:.2f} {what}" for when, what in self.entries)


def test_vfs_that_come_and_go_are_in_the_conductors_inventory_soon(
    agent: ComputeAgent,
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """How soon is said, and judged by who reads it: an emulator's clock is no goal."""
    figures = []
    for count in (7, 0, 1, 0):
        chronicle = Chronicle(monkeypatch)
        (DEVICES / OTHER_PORT / "sriov_numvfs").write_text(str(count))
        chronicle.add("written")
        written = time.monotonic()
        while chronicle.published != count:
            assert time.monotonic() < written + PATIENCE
            time.sleep(0.02)  # the agent tells nobody but the conductor
        took = time.monotonic() - written
        figures.append(f"{count} VFs: in the inventory {took:.2f} s after the kernel's answer ({chronicle})")
        assert len(fleet.status(OTHER_PORT)) == 1 + count
        monkeypatch.undo()
    with capsys.disabled():
        print("", *figures, sep="\n")  # noqa: T201 - the figures that the test is for


@pytest.mark.usefixtures("agent")
def test_a_port_and_a_vf_go_to_instances_and_are_restored(fleet: Fleet) -> None:
    before = vfs_of(PORT)
    whole = fleet.wait_for(fleet.claim("nic-pf"), "allocated")
    port = whole.devices[0].address
    assert driver_of(port) == "vfio-pci"
    assert set(fleet.status(port).values()) <= {"allocated", "unavailable"}
    fleet.release(whole)
    fleet.wait_for(whole, "released")
    assert driver_of(port) == "igb"
    part = fleet.wait_for(fleet.claim("nic-vf"), "allocated")
    assert fleet.status(PORT)[PORT] == "unavailable"
    fleet.release(part)
    fleet.wait_for(part, "released")
    assert vfs_of(PORT) == before
    assert fleet.status(PORT) == dict.fromkeys([PORT, *before], "available")


@pytest.mark.skipif(libvirt is None, reason="no libvirt")
@pytest.mark.parametrize("conf", ["libvirt"], indirect=True)
def test_a_guest_that_is_gone_ends_its_claim_and_its_port_is_restored(
    connection: object,
    conf: cfg.ConfigOpts,
    fleet: Fleet,
    make_guest: Callable[..., Guest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("portclaim.services.compute_agent.reporter.REPAIR_INTERVAL", 5.0)
    monkeypatch.setattr("portclaim.services.compute_agent.steps.GONE_AFTER", 10.0)
    conf.set_override("report_interval", 2.0, "compute_agent")
    agent = ComputeAgent(conf)
    agent.start()
    guest = make_guest("leaver", running=False)
    claim = fleet.wait_for(fleet.claim("nic-pf", guest.uuid), "allocated")
    port = claim.devices[0].address
    guest.domain.destroy()
    guest.domain.undefine()
    lost = fleet.wait_for(claim, "failed")
    assert lost.reason == f"instance {guest.uuid} is not on this host"
    assert (driver_of(port), len(vfs_of(port))) == ("igb", NUM_VFS[port])
    assert set(fleet.status(port).values()) == {"available"}
    agent.stop()
    conf.clear_override("report_interval", "compute_agent")
