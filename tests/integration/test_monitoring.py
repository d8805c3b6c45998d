"""A real Prometheus over a fleet: each failure raises its alert and no other, and the dashboard answers."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from portclaim.cli.supervisor import SupervisedProcess
from portclaim.common.errors import ClaimRefused
from portclaim.common.metrics import catalogue, fleet_catalogue
from portclaim.common.metrics.kinds import METRICS
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from tests.support import rabbitmq
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.engines import run_owner, skip_without
from tests.support.one_host import ALIASES
from tests.support.prometheus import MONITORING, Prometheus, dashboard_queries, start_prometheus
from tests.support.services import ServiceProcess, Services


@dataclass
class Site:
    """Two hosts with a port of four VFs each, and all services, on a broker that can be killed."""

    services: Services
    directory: Path
    broker: rabbitmq.Broker
    environment: dict[str, str]
    ports: dict[str, int]
    bus: Bus
    node: SupervisedProcess
    processes: dict[str, ServiceProcess] = field(default_factory=dict)

    def start(self, name: str) -> None:
        self.processes[name] = self.services(re.sub(r"-\d+$", "", name), self.options(name))

    def options(self, name: str) -> dict[str, dict[str, object]]:
        service = re.sub(r"-\d+$", "", name)
        metrics = {"listen": "127.0.0.1", f"{service}_port": self.ports[name], "fleet_interval": 1}
        options: dict[str, dict[str, object]] = {"metrics": metrics}
        options["conductor"] = {"resend_after": 0.5, "max_sends": 3, "agent_down_after": 5}
        if service == "scheduler":
            options["pci"] = {"alias": ALIASES}
        if service == "compute_agent":
            host = f"node-{name.rpartition('-')[2]}"
            options["DEFAULT"] = {"host": host, "state_path": self.directory / "state"}
            options["compute_agent"] = {"sysfs_root": self.directory / host, "report_interval": 0.5}
            options["simulated"] = {"ports": 1, "vfs_per_port": 4, "accelerators": 1}
            options["pci"] = {"device_spec": '{"vendor_id": "8086"}'}
        return options

    def claim(self, alias: str, **more: Any) -> Claim:
        facts = {"claim_id": uuid4(), "instance_id": uuid4()} | more
        specs = {"pci_passthrough:alias": alias}
        return self.bus.scheduler.claim(ClaimRequest.model_validate(facts | {"extra_specs": specs}))

    def wait_for(self, claim: Claim, status: str) -> None:
        wait_until(lambda: self.bus.scheduler.show(claim.claim_id).status == status, f"it is {status}")

    def release(self, claim: Claim) -> None:
        self.bus.scheduler.release(claim.claim_id)
        self.wait_for(claim, "released")

    def trouble(self, host: str, **fault: object) -> None:
        """Make the host's hypervisor fail in this way; without arguments it works again."""
        file = self.directory / "state" / host / "faults.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([fault] if fault else []))
        partial.rename(file)


NAMES = ("conductor", "scheduler", "compute_agent-1", "compute_agent-2")


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    if rabbitmq.find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    directory = tmp_path / "broker"
    directory.mkdir()
    broker, environment = rabbitmq.prepare_node(directory)
    mapper = rabbitmq.start_port_mapper(directory, environment, run_owner())
    node = rabbitmq.start_node(directory / "log", environment, run_owner())
    url = broker.create_virtual_host()
    services = Services(tmp_path, url, database_url)
    ports = dict(zip(NAMES, rabbitmq.free_ports(len(NAMES)), strict=True))
    site = Site(services, tmp_path, broker, environment, ports, Bus(url, tmp_path), node)
    yield site
    services.end()
    site.bus.close()
    site.node.stop()
    mapper.stop()


@pytest.fixture
def prometheus(site: Site, tmp_path: Path) -> Iterator[Prometheus]:
    for name in NAMES:
        site.start(name)
    directory = tmp_path / "prometheus"
    directory.mkdir()
    server = start_prometheus(directory, {name: f"127.0.0.1:{site.ports[name]}" for name in NAMES})
    yield server
    server.stop()


class TestAlerts:
    """Each failure raises its alert, and no other one, and the alert ends with the failure."""

    @pytest.fixture(autouse=True)
    def all_is_quiet(self, prometheus: Prometheus) -> None:
        wait_until(
            lambda: prometheus.value('max(portclaim_fleet_devices{alias="vf",status="available"})') == 8,
            "both hosts are seen",
        )
        prometheus.wait_for()

    def raises(self, prometheus: Prometheus, alert: str) -> None:
        prometheus.wait_for(alert)
        assert prometheus.fired_since(10) == {alert}

    def test_a_full_fleet(self, site: Site, prometheus: Prometheus) -> None:
        claims = [site.claim("vf:4"), site.claim("vf:4")]
        for claim in claims:
            site.wait_for(claim, "allocated")
        self.raises(prometheus, "PortclaimFull")
        for claim in claims:
            site.release(claim)
        prometheus.wait_for()

    def test_a_step_that_is_stuck(self, site: Site, prometheus: Prometheus) -> None:
        claim = site.claim("vf:1")
        site.wait_for(claim, "allocated")
        site.trouble(str(claim.host), action="detach", error="the device is busy")
        site.bus.scheduler.release(claim.claim_id)
        self.raises(prometheus, "PortclaimStepStuck")
        site.trouble(str(claim.host))
        site.bus.scheduler.retry([claim.claim_id])
        site.wait_for(claim, "released")
        prometheus.wait_for()

    def test_a_silent_agent(self, site: Site, prometheus: Prometheus) -> None:
        site.processes["compute_agent-2"].kill()
        self.raises(prometheus, "PortclaimAgentsSilent")
        site.start("compute_agent-2")
        prometheus.wait_for()

    def test_a_killed_scheduler(self, site: Site, prometheus: Prometheus) -> None:
        site.processes["scheduler"].kill()
        self.raises(prometheus, "PortclaimServiceDown")
        site.start("scheduler")
        prometheus.wait_for()

    def test_a_dead_broker(self, site: Site, prometheus: Prometheus) -> None:
        site.node.stop()
        self.raises(prometheus, "PortclaimBusDown")
        site.node = rabbitmq.start_node(site.directory / "broker/log", site.environment, run_owner())
        prometheus.wait_for()
        assert prometheus.value("sum(portclaim_bus_reconnects_total)")


def test_every_query_of_the_dashboard_answers(site: Site, prometheus: Prometheus) -> None:
    site.wait_for(site.claim("vf:1"), "allocated")
    with pytest.raises(ClaimRefused):
        site.claim("pf:5")
    assert site.claim("pf:5", wait=600).status == "waiting"
    wait_until(lambda: prometheus.value("max(portclaim_fleet_waiting_claims)") == 1, "the claim waits")
    queries = dashboard_queries()
    assert len(queries) > 20

    def empty() -> list[str]:
        return [query for panel in queries.values() for query in panel if not prometheus.query(query)]

    wait_until(lambda: not empty(), "all panels have data")


def test_the_rules_and_the_example_are_valid() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        skip_without("Prometheus", "as root: apt-get install prometheus")
    for what in (["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        subprocess.run([promtool, "check", *what], cwd=MONITORING, check=True, capture_output=True)


def test_alerts_and_dashboard_use_only_metrics_that_there_are() -> None:
    assert {catalogue.CLAIMS, fleet_catalogue.HOSTS} <= set(METRICS)
    names = {metric.name for metric in METRICS}
    names |= {f"{metric.name}_{part}" for metric in METRICS for part in ("bucket", "count", "sum")}
    text = (MONITORING / "alerts.yml").read_text() + str(dashboard_queries())
    assert set(re.findall(r"portclaim_\w+", text)) <= names
