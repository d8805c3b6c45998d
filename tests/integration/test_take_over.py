"""A host with guests that Nova has started is taken over while they run, from the import to the release."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, DeviceFilter
from portclaim.common.rpc.operator_messages import ClaimFilter
from portclaim.services.compute_agent.drivers.simulated_guests import RECORD, SCHEMA
from tests.nova import cell
from tests.support.concurrency import wait_until
from tests.support.one_host import HOST, OneHost, one_host
from tests.support.services import ServiceProcess, Services, as_ini

DEVICE_SPEC = ['{"vendor_id": "8086", "physical_network": "physnet1"}', '{"vendor_id": "10de"}']
ACCELERATOR = "0000:03:00.0"
FREE_VF = "0000:01:10.0"
GUESTS = {
    "web": ["0000:01:10.4", "0000:01:10.6"],
    "port": ["0000:01:10.2"],
    "whole": ["0000:02:00.0"],
}
"""What the guests of this host have; ``starting``, which Nova has only claimed a device for, has none yet."""


class TakenOver:
    """A host of the cell that was imported. Its agent is not started."""

    def __init__(self, host: OneHost, services: Services) -> None:
        self.host = host
        self.scheduler = host.scheduler
        self._services = services

    def start_agent(self) -> ServiceProcess:
        options = self.host.options()
        options["pci"] = {"device_spec": DEVICE_SPEC}
        options["simulated"] |= {"ports": 2}
        return self._services("compute_agent", options)

    def claim(self, instance: str) -> Claim:
        asked = ClaimFilter(host=HOST, instance_id=cell.instance_id(instance))
        [found] = self.scheduler.claims(asked).claims
        return self.scheduler.show(found.claim_id)

    def holders(self) -> dict[str, str | None]:
        """The claim that the hypervisor names for each device of a guest."""
        with closing(sqlite3.connect(self.host.state / HOST / RECORD)) as record:
            return dict(record.execute("SELECT address, claim_id FROM attachments"))

    def has_recorded(self) -> bool:
        """Does every guest have its devices on behalf of its claim?"""
        return self.holders() == {
            address: str(self.claim(instance).claim_id)
            for instance, addresses in {**GUESTS, "starting": [ACCELERATOR]}.items()
            for address in addresses
        }

    def status(self, address: str) -> str:
        return self.host.statuses()[address]


@pytest.fixture
def host(
    service_process: Services, empty_database_url: str, database_url: str, tmp_path: Path
) -> Iterator[TakenOver]:
    """Nova's guests run, and the cell is imported."""
    cell.load(empty_database_url)
    with one_host(service_process, tmp_path) as host:
        state = host.state / HOST
        state.mkdir()
        with closing(sqlite3.connect(state / RECORD)) as record, record:
            record.executescript(SCHEMA)
            for instance, addresses in GUESTS.items():
                for address in addresses:
                    parent = None if instance == "whole" else "0000:01:00.0"
                    facts = address, parent, str(cell.instance_id(instance)), 0 if parent else 4
                    record.execute("INSERT INTO attachments VALUES (?, ?, NULL, ?, ?)", facts)
        file = tmp_path / "operator.conf"
        file.write_text(as_ini({"database": {"connection": database_url}}))
        command = ["--config-file", str(file), "import", "nova", "--database", empty_database_url]
        assert CliRunner().invoke(main, command).exit_code == 0
        yield TakenOver(host, service_process)


def test_guests_keep_their_devices_and_their_claims_work(host: TakenOver) -> None:
    agent = host.start_agent()
    wait_until(host.has_recorded, "the agent has recorded what the guests have")
    assert host.host.effects() == [("attach", ACCELERATOR)]  # of the instance that was being built
    assert {host.claim(name).status for name in (*GUESTS, "starting")} == {"allocated"}

    # What is free is given out, and nothing else.
    wait_until(lambda: host.status(FREE_VF) == "available", "the free VF is reported")
    new = host.host.claim("vf:1", hosts=[HOST])
    assert [device.address for device in new.devices] == [FREE_VF]
    host.host.wait_for(new.claim_id, "allocated")
    for alias in ("vf:1", "pf:1"):
        with pytest.raises(ClaimRefused):
            host.host.claim(alias, hosts=[HOST])

    # Neither a second start of the agent nor its repairs change anything.
    agent.stop()
    host.start_agent()
    host.host.wait_for_report()
    host.host.wait_for_report()
    assert host.host.effects() == [("attach", ACCELERATOR), ("attach", FREE_VF)]
    assert {host.claim(name).status for name in GUESTS} == {"allocated"}

    # A release takes the devices from the guest, and the next claim gets them.
    released = [host.scheduler.release(host.claim(name).claim_id) for name in ("web", "whole")]
    for claim in released:
        host.host.wait_for(claim.claim_id, "released")
    detached = {address for action, address in host.host.effects() if action == "detach"}
    assert detached == {*GUESTS["web"], *GUESTS["whole"]}
    wait_until(lambda: host.status("0000:02:00.0") == "available", "the whole port is free")
    wait_until(lambda: host.status("0000:01:10.4") == "available", "the VF is free")
    [vf] = [
        each
        for each in host.scheduler.devices(DeviceFilter(host=HOST)).devices
        if each.address == "0000:01:10.4"
    ]
    assert vf.tags == {"physical_network": "physnet1"}
    assert host.host.claim("pf:1", hosts=[HOST]).devices[0].address == "0000:02:00.0"
    assert host.claim("port").status == "allocated"


def test_a_claim_that_is_released_before_the_agent_starts(host: TakenOver) -> None:
    claim = host.scheduler.release(host.claim("port").claim_id)
    assert claim.status == "releasing"
    host.start_agent()
    host.host.wait_for(claim.claim_id, "released")
    assert set(GUESTS["port"]).isdisjoint(host.holders())
