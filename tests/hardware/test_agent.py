"""The whole agent on a real host: what it publishes follows what happens to the devices."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.rpc.agent_messages import (
    Holdings,
    HoldingsRequest,
    InventoryAnswer,
    InventoryReport,
    Step,
    StepResult,
)
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import FULL_REPORTS, ConductorClient
from portclaim.common.rpc.endpoint import Endpoint, Entrance, exposed, finish, server
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.agent import ComputeAgent
from tests.hardware.conftest import PORT, driver_of, vfs_of
from tests.hardware.guests import PATIENCE
from tests.support.services import as_ini

MakeStep = Callable[..., Step]


class Conductor(Endpoint):
    """Takes what an agent says for true, and keeps the last inventory."""

    def __init__(self) -> None:
        self.heard = threading.Condition()
        self.devices: set[str] = set()
        self.results: list[StepResult] = []
        self.devices_at_result: list[set[str]] = []

    @exposed(InventoryReport)
    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        with self.heard:
            if report.devices is not None:
                kept = set() if report.base_digest is None else self.devices - set(report.removed)
                self.devices = kept | {device.address for device in report.devices}
            self.heard.notify_all()
            return InventoryAnswer(resend=report.devices is None and not self.devices)

    @exposed(StepResult)
    def step_done(self, result: StepResult) -> None:
        with self.heard:
            self.results.append(result)
            self.devices_at_result.append(self.devices)
            self.heard.notify_all()

    @exposed(HoldingsRequest)
    def holdings(self, _request: HoldingsRequest) -> Holdings:
        return Holdings(holdings=[])

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.heard:
            assert self.heard.wait_for(condition, PATIENCE)


@pytest.fixture
def conf(tmp_path: Path) -> cfg.ConfigOpts:
    """Reports by the clock once an hour: what comes sooner comes of the kernel's events."""
    file = tmp_path / "portclaim.conf"
    options = {
        "DEFAULT": {"host": "lab", "state_path": tmp_path, "transport_url": "fake://"},
        "compute_agent": {"driver": "vfio", "report_interval": 3600},
        "pci": {"device_spec": json.dumps({"vendor_id": "8086"})},
    }
    file.write_text(as_ini(options))
    return config.load(["--config-file", str(file)], "test")


@pytest.fixture
def conductor(conf: cfg.ConfigOpts) -> Iterator[Conductor]:
    conductor = Conductor()
    bus = transport(conf)
    queues = (None, FULL_REPORTS)
    listening = [server(bus, ConductorClient.topic, "lab", conductor, Entrance(queue)) for queue in queues]
    for each in listening:
        each.start()
    yield conductor
    finish(*listening)
    bus.cleanup()


@pytest.fixture
def agent(
    conf: cfg.ConfigOpts, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ComputeAgent]:
    monkeypatch.setattr("portclaim.services.compute_agent.reporter.REPAIR_INTERVAL", 3600.0)
    agent = ComputeAgent(conf)
    agent.start()
    yield agent
    agent.stop()


def test_a_port_that_is_back_is_published_with_its_vfs_before_the_step_is_answered(
    agent: ComputeAgent, conductor: Conductor, conf: cfg.ConfigOpts, make_step: MakeStep
) -> None:
    vfs = set(vfs_of(PORT))
    step = make_step("attach", PORT)
    bus = transport(conf)
    client = ComputeAgentClient(bus, conf, server="lab")
    client.send(step)
    conductor.wait_for(lambda: len(conductor.results) == 1)
    assert (conductor.results[0].outcome, driver_of(PORT)) == ("done", "vfio-pci")
    assert conductor.devices_at_result[0].isdisjoint(vfs)
    client.send(step.model_copy(update={"action": "detach", "step": 2}))
    conductor.wait_for(lambda: len(conductor.results) == 2)
    assert (conductor.results[1].outcome, driver_of(PORT)) == ("done", "igb")
    assert vfs <= conductor.devices_at_result[1]
    bus.cleanup()
