"""In normal life no service logs anything that somebody should read: nothing above INFO."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from portclaim.common.db import tokens
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.move_messages import MoveRequest
from portclaim.common.rpc.operator_messages import HostFilter
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import ALIASES, Fleet
from tests.support.rabbitmq import free_ports
from tests.support.services import ServiceProcess, Services

JSON_LINES = {"use_json": True}


class Life:
    """All services, with agents of two hosts that have a port of four VFs each."""

    def __init__(self, services: Services, bus: Bus, fleet: Fleet, directory: Path) -> None:
        self._services = services
        self._directory = directory
        self.scheduler = bus.scheduler
        [port] = free_ports(1)
        self._services("conductor", {"DEFAULT": JSON_LINES})
        self._services("scheduler", {"DEFAULT": JSON_LINES, "pci": {"alias": ALIASES}})
        self._services("api", {"DEFAULT": JSON_LINES, "api": {"port": port}})
        self.agents = {host: self.start_agent(host) for host in ("node-1", "node-2")}
        with fleet.engine.begin() as connection:
            token = tokens.create(connection, "operator", "operator", None)
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def start_agent(self, host: str) -> ServiceProcess:
        options = {
            "DEFAULT": {**JSON_LINES, "host": host, "state_path": self._directory / f"state-{host}"},
            "pci": {"device_spec": '{"vendor_id": "8086"}'},
            "compute_agent": {"sysfs_root": self._directory / host, "report_interval": 0.5},
            "simulated": {"ports": 1, "vfs_per_port": 4},
        }
        return self._services("compute_agent", options)

    def claim(self, alias: str, **more: object) -> Claim:
        facts = {"claim_id": uuid4(), "instance_id": uuid4()} | more
        specs = {"pci_passthrough:alias": alias}
        return self.scheduler.claim(ClaimRequest.model_validate(facts | {"extra_specs": specs}))

    def wait_for(self, claim: Claim, status: str) -> Claim:
        wait_until(lambda: self.scheduler.show(claim.claim_id).status == status, f"it is {status}", 60)
        return self.scheduler.show(claim.claim_id)

    def release(self, claim: Claim) -> None:
        self.scheduler.release(claim.claim_id)
        self.wait_for(claim, "released")

    def loud_lines(self) -> list[tuple[str, str]]:
        """The lines of all services, which have ended, that are above INFO: who logged them, and what."""
        found = []
        for process in self._services.processes:
            lines = process.log.splitlines()
            assert len(lines) > 1, f"{process.name} has logged nothing"
            for line in lines:
                said = json.loads(line) if line.startswith("{") else {"levelname": "no JSON", "message": line}
                if said["levelname"] not in {"INFO", "DEBUG"}:
                    found.append((process.name, said["message"]))
        return found


@pytest.fixture
def life(service_process: Services, bus: Bus, fleet: Fleet, tmp_path: Path) -> Iterator[Life]:
    life = Life(service_process, bus, fleet, tmp_path)
    yield life
    life.http.close()


def test_nothing_above_info_in_normal_life(life: Life, service_process: Services) -> None:
    # a claim over HTTP, and one that is refused
    wait_until(lambda: len(life.scheduler.hosts(HostFilter()).hosts) == 2, "both hosts have reported")
    body = {"instance_id": str(uuid4()), "extra_specs": {"pci_passthrough:alias": "nic-vf:1"}}
    made = life.http.put(f"/v1/claims/{uuid4()}", json=body).raise_for_status().json()
    claim = life.wait_for(life.scheduler.show(made["claim_id"]), "allocated")
    refused = body | {"extra_specs": {"pci_passthrough:alias": "nic-pf:3"}}
    assert life.http.put(f"/v1/claims/{uuid4()}", json=refused).status_code == httpx.codes.CONFLICT
    life.http.get("/v1/summary").raise_for_status()

    # a cold move to the other host
    move = life.scheduler.move(MoveRequest(claim_id=uuid4(), source_claim_id=claim.claim_id))
    life.wait_for(move.target, "allocated")
    life.scheduler.complete_move(move.target.claim_id)
    life.wait_for(claim, "released")

    # a claim that waits until others go
    whole = life.wait_for(life.claim("nic-pf:1", hosts=[str(claim.host)]), "allocated")
    waiting = life.claim("nic-pf:1", wait=600)
    assert waiting.status == "waiting"
    life.release(whole)
    served = life.wait_for(waiting, "allocated")

    # a drain, and its end
    host = str(served.host)
    life.scheduler.drain(host, "new fan")
    life.release(served)
    life.scheduler.undrain(host)

    # an agent that is started again while its host holds a claim, and what it missed
    held = str(move.target.host)
    life.agents[held].stop()
    life.agents[held] = life.start_agent(held)
    missed = life.claim("nic-vf:2", hosts=[held])
    life.wait_for(missed, "allocated")
    for each in (missed, move.target):
        life.release(each)

    service_process.end()
    assert life.loud_lines() == []
