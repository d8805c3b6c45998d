"""Answers of an agent that are lost. Services as objects in one process, on the bus in memory."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from oslo_config import cfg

from portclaim.cli.http_client import HttpScheduler
from portclaim.common import config
from portclaim.common.db import tokens
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.api.service import Api
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.drivers.simulated_guests import SimulatedGuests
from portclaim.services.conductor import lifecycle
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.service import Scheduler
from tests.support.concurrency import wait_until
from tests.support.services import as_ini

ALIAS = '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}'


class Answers:
    """What the conductor hears. It loses the first ``times`` answers of each outcome that is in ``lost``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self.lost: dict[str, int] = {}
        self._record = lifecycle.step_done
        monkeypatch.setattr(lifecycle, "step_done", self._step_done)

    def _step_done(self, engine: object, result: StepResult, guest_within: float) -> None:
        self.heard.append(result.outcome)
        if self.lost.get(result.outcome, 0) > 0:
            self.lost[result.outcome] -= 1
            raise ServiceUnavailable("the database does not answer")
        self._record(engine, result, guest_within)  # type: ignore[arg-type]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


class Fleet:
    """A scheduler, a conductor that sends steps again after 0.3 s, and the agent of one host."""

    def __init__(self, scheduler: SchedulerClient | HttpScheduler, state: Path) -> None:
        self.scheduler = scheduler
        self.guests = SimulatedGuests(state)

    def claim(self) -> UUID:
        request = ClaimRequest(
            claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": "vf:1"}
        )
        return self.scheduler.claim(request).claim_id

    def wait_for(self, claim_id: UUID, status: str) -> None:
        wait_until(lambda: self.scheduler.show(claim_id).status == status, f"the claim is {status}")


def started(tmp_path: Path, database_url: str, guests: str, way: str, running: ExitStack) -> Fleet:
    def conf(name: str, **sections: dict[str, object]) -> cfg.ConfigOpts:
        file = tmp_path / f"{name}.conf"
        bus = {"transport_url": "fake://", "host": name, "state_path": tmp_path}
        file.write_text(as_ini({"DEFAULT": bus} | sections))
        return config.load(["--config-file", str(file)], name)

    database: dict[str, object] = {"connection": database_url}
    services = [
        Conductor(conf("conductor", database=database, conductor={"resend_after": 0.3})),
        Scheduler(conf("scheduler", database=database, pci={"alias": ALIAS})),
        ComputeAgent(
            conf(
                "node-1",
                pci={"device_spec": json.dumps({"vendor_id": "8086"})},
                compute_agent={"sysfs_root": tmp_path / "sys", "report_interval": 0.2},
                simulated={"ports": 1, "vfs_per_port": 2, "guests": guests},
            )
        ),
    ]
    for service in services:
        service.start()
        running.callback(service.stop)
    return Fleet(
        over_http(conf("api", database=database, api={"port": 0}), running)
        if way == "http"
        else over_rpc(conf("client"), running),
        tmp_path / "node-1",
    )


def over_rpc(conf: cfg.ConfigOpts, running: ExitStack) -> SchedulerClient:
    bus = transport(conf)
    running.callback(bus.cleanup)
    return SchedulerClient(bus, conf)


def over_http(conf: cfg.ConfigOpts, running: ExitStack) -> HttpScheduler:
    api = Api(conf)
    api.start()
    running.callback(api.stop)
    engine = sa.create_engine(conf.database.connection, poolclass=sa.NullPool)
    with engine.begin() as connection:
        token = tokens.create(connection, "ann", "claimer", "web")
    return HttpScheduler(api.address, token)


@pytest.fixture(params=["rpc", "http"])
def start(
    tmp_path: Path, database_url: str, answers: Answers, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Fleet]]:
    """Starts a fleet whose hypervisor has ``any`` guest, or only those that are ``defined``."""
    with ExitStack() as running:
        yield lambda guests: started(tmp_path, database_url, guests, request.param, running)


def test_an_answer_that_is_lost_comes_again_with_the_step(
    start: Callable[[str], Fleet], answers: Answers
) -> None:
    fleet = start("any")
    answers.lost = {"done": 2}
    claim_id = fleet.claim()
    fleet.wait_for(claim_id, "allocated")
    answers.lost = {"done": 2}
    fleet.scheduler.release(claim_id)
    fleet.wait_for(claim_id, "released")
    assert answers.heard.count("done") >= 6


def test_a_failure_whose_answer_is_lost_is_told_again(
    start: Callable[[str], Fleet], answers: Answers, tmp_path: Path
) -> None:
    fleet = start("any")
    (tmp_path / "node-1" / "faults.json").write_text(json.dumps([{"action": "attach", "error": "no slot"}]))
    answers.lost = {"failed": 2}
    claim_id = fleet.claim()
    fleet.wait_for(claim_id, "failed")
    assert fleet.scheduler.show(claim_id).reason == "no slot"


def test_an_agent_repeats_an_answer_that_no_step_will_ask_for(
    start: Callable[[str], Fleet], answers: Answers
) -> None:
    """The step is answered with prepared, so the conductor does not send it again. Then the guest comes."""
    fleet = start("defined")
    claim_id = fleet.claim()
    fleet.wait_for(claim_id, "prepared")
    answers.lost = {"done": 2}
    fleet.guests.define(fleet.scheduler.show(claim_id).instance_id)
    fleet.wait_for(claim_id, "allocated")
    assert answers.heard.count("done") == 3
