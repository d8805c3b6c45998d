"""`/metrics` of the services, while they work and when their workers are killed."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from portclaim.common.db import tokens
from portclaim.common.errors import ClaimRefused
from portclaim.common.metrics import catalogue, fleet_catalogue
from portclaim.common.metrics.kinds import METRICS, Reading
from portclaim.common.rpc.claim_messages import ClaimRequest
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import ALIASES, Fleet
from tests.support.metrics import LISTEN, address, families, samples
from tests.support.rabbitmq import free_ports
from tests.support.services import ServiceProcess, Services

SCHEDULER = {"metrics": LISTEN, "pci": {"alias": ALIASES}}


def request(alias: str, **more: object) -> ClaimRequest:
    facts = {"claim_id": uuid4(), "instance_id": uuid4()} | more
    return ClaimRequest.model_validate(facts | {"extra_specs": {"pci_passthrough:alias": alias}})


@pytest.fixture
def scheduler(service_process: Services, fleet: Fleet) -> ServiceProcess:
    fleet.host("h1", ports=2, vfs=4)
    return service_process("scheduler", SCHEDULER, "--workers", "2")


class TestClaims:
    def test_claims_are_counted_by_outcome_and_reason(self, scheduler: ServiceProcess, bus: Bus) -> None:
        bus.scheduler.claim(request("nic-vf:2"))
        bus.scheduler.claim(request("nic-pf:1"))
        for alias in ("gpu:1", "nic-vf:3", "nic-pf:1"):
            with pytest.raises(ClaimRefused):
                bus.scheduler.claim(request(alias))
        assert bus.scheduler.claim(request("nic-pf:1", wait=60)).status == "waiting"

        found = samples(scheduler)

        assert found["claims_total", "claimed", ""] == 2
        assert found["claims_total", "waiting", ""] == 1
        assert found["claims_total", "refused", "ids"] == 1
        assert found["claims_total", "refused", "together"] == 1
        assert found["claims_total", "refused", "available"] == 1
        assert found["claim_phase_seconds_count", "queue"] == 6
        assert found["claim_phase_seconds_count", "commit"] >= 2

    def test_what_killed_workers_have_counted_stays(self, scheduler: ServiceProcess, bus: Bus) -> None:
        for _ in range(4):
            bus.scheduler.claim(request("nic-vf:1"))
        wait_until(lambda: samples(scheduler).get(("workers",)) == 2, "both workers count")

        for process in scheduler.workers:
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: scheduler.log.count("metrics at") == 2, "a new exporter answers")
        wait_until(
            lambda: samples(scheduler).get(("workers",)) == 2, "new workers have the places of the dead"
        )

        assert samples(scheduler)["claims_total", "claimed", ""] == 4

    def test_a_service_leaves_no_files(self, scheduler: ServiceProcess, service_process: Services) -> None:
        def directories() -> set[Path]:
            return set(Path("/dev/shm").glob("portclaim-metrics-*"))

        def of(process: ServiceProcess) -> set[Path]:
            wait_until(lambda: samples(process).get(("workers",)), "its workers count")
            return {
                each for each in directories() if any(each.glob(f"*_{pid}.db") for pid in process.workers)
            }

        [of_stopped] = of(scheduler)
        scheduler.stop()
        assert of_stopped not in directories()

        killed = service_process("scheduler", SCHEDULER)
        [of_killed] = of(killed)
        killed.kill()
        assert of_killed in directories()
        service_process("scheduler", SCHEDULER)
        assert of_killed not in directories()


def test_a_port_in_use_ends_the_start(scheduler: ServiceProcess, service_process: Services) -> None:
    port = int(address(scheduler).rpartition(":")[2].partition("/")[0])
    taken = SCHEDULER | {"metrics": LISTEN | {"scheduler_port": port}}
    refused = service_process("scheduler", taken, until=r"\[metrics\] listen: cannot listen on")
    refused.running = False


class TestFleet:
    """What one scheduler reads for all."""

    def numbers(self, name: str, process: ServiceProcess) -> dict[tuple[str, ...], float]:
        return {key[1:]: value for key, value in samples(process).items() if key[0] == name}

    def test_one_of_two_schedulers_reads_and_the_other_takes_over(
        self, scheduler: ServiceProcess, service_process: Services
    ) -> None:
        other = service_process("scheduler", SCHEDULER)
        both = [scheduler, other]
        wait_until(lambda: sum(samples(each)["fleet_reader",] for each in both) == 1, "one reads")
        [reader] = [each for each in both if samples(each)["fleet_reader",]]
        [idle] = [each for each in both if each is not reader]
        assert self.numbers("fleet_hosts", idle) == {}

        reader.kill()

        wait_until(lambda: samples(idle)["fleet_reader",] == 1, "the other one reads")
        assert self.numbers("fleet_hosts", idle) == {("up",): 1, ("silent",): 0, ("drained",): 0}

    def test_devices_agree_with_the_operators_view(
        self, scheduler: ServiceProcess, bus: Bus, fleet: Fleet
    ) -> None:
        fleet.host("h2", ports=3, vfs=4)
        allocated = bus.scheduler.claim(request("nic-pf:1"))
        fleet.hosts[str(allocated.host)].done(allocated)
        for alias in ("nic-pf:1", "nic-vf:3", "nic-vf:1"):
            bus.scheduler.claim(request(alias))
        bus.scheduler.claim(request("nic-pf:4", wait=600))

        def agree() -> bool:
            told = self.numbers("fleet_devices", scheduler)
            return all(
                told.get((alias, status)) == number
                for alias, kind in (("nic-pf", "type-PF"), ("nic-vf", "type-VF"))
                for status, number in self.seen(fleet, kind).items()
            )

        wait_until(agree, "the numbers agree with pool_totals")
        found = samples(scheduler)
        assert found["fleet_whole_ports", "nic-pf"] == found["fleet_whole_ports", "nic-vf"] == 2
        assert found["fleet_waiting_claims", "nic-pf"] == 1
        assert found["fleet_claims", "claimed"] == 3
        assert found["fleet_steps", "awaited"] == 3
        fleet.count_hosts()
        summary = {pool.dev_type: pool.free for pool in bus.scheduler.summary().pools}
        assert summary["type-VF"] == found["fleet_devices", "nic-vf", "available"]

    def test_what_the_page_shows_agrees_with_the_metrics(
        self, service_process: Services, bus: Bus, fleet: Fleet
    ) -> None:
        """Hosts up, silent and drained; ports whole, begun and held; claims in each state; a parked step."""
        # However slow the machine is, only the host that is meant is silent.
        scheduler = service_process("scheduler", SCHEDULER | {"conductor": {"agent_down_after": 1800}})
        for host in ("h1", "h2", "h3", "h4"):
            fleet.host(host, ports=2, vfs=4)
        attached = bus.scheduler.claim(request("nic-pf:1"))
        fleet.hosts[str(attached.host)].done(attached)
        ended = bus.scheduler.claim(request("nic-vf:2"))
        bus.scheduler.release(ended.claim_id)
        for alias in ("nic-vf:3", "nic-pf:1", "nic-vf:1"):
            parked = bus.scheduler.claim(request(alias))
        fleet.sql("UPDATE outbox SET send_after = 'infinity' WHERE claim_id = :id", id=parked.claim_id)
        for number in range(2):
            assert bus.scheduler.claim(request("nic-pf:1", wait=600, hosts=[f"h{9 + number}"])).status
        fleet.scheduler.drain("h3", "new fan")
        fleet.falls_silent("h4")
        fleet.count_hosts()
        page = self.page_of(service_process, fleet)

        def of_page() -> dict[str, Any]:
            shown = page.get("/v1/summary").raise_for_status().json()
            pools = {pool["dev_type"]: pool for pool in shown["pools"] if pool["vendor_id"] == "8086"}
            kinds = {"nic-pf": pools["type-PF"], "nic-vf": pools["type-VF"]}
            return {
                "hosts": (shown["hosts"], shown["hosts_silent"], shown["hosts_drained"]),
                "claims": shown["in_progress"],
                "waiting": shown["in_progress"]["waiting"],
                "steps": (shown["steps"], shown["steps_parked"]),
                "free": {alias: pool["free"] for alias, pool in kinds.items()},
                "devices": {alias: pool["devices"] for alias, pool in kinds.items()},
                "whole": pools["type-PF"]["free"],
            }

        def of_metrics() -> dict[str, Any]:
            found = samples(scheduler)

            def by_label(name: str) -> dict[str, float]:
                return {key[1]: number for key, number in found.items() if key[0] == name}

            hosts, steps = by_label("fleet_hosts"), by_label("fleet_steps")
            devices = {
                alias: {
                    key[2]: number for key, number in found.items() if key[:2] == ("fleet_devices", alias)
                }
                for alias in ("nic-pf", "nic-vf")
            }
            return {
                "hosts": (sum(hosts.values()), hosts["silent"], hosts["drained"]),
                "claims": by_label("fleet_claims"),
                "waiting": sum(by_label("fleet_waiting_claims").values()),
                "steps": (steps["awaited"] + steps["parked"], steps["parked"]),
                "free": {alias: of_alias["available"] for alias, of_alias in devices.items()},
                "devices": {alias: sum(of_alias.values()) for alias, of_alias in devices.items()},
                "whole": found["fleet_whole_ports", "nic-pf"],
            }

        wait_until(lambda: samples(scheduler)["fleet_hosts", "drained"] == 1, "the numbers are new")
        both = of_page(), of_metrics()
        assert both[0] == both[1]
        assert both[0]["hosts"] == (4, 1, 1)
        assert both[0]["claims"] == {"waiting": 2, "claimed": 3, "prepared": 0, "releasing": 1}
        aliases = page.get("/v1/aliases").raise_for_status().json()["aliases"]
        counted = {each["name"]: each["devices"] for each in aliases}
        assert {alias: counted[alias] for alias in both[1]["devices"]} == both[1]["devices"]

    def page_of(self, service_process: Services, fleet: Fleet) -> httpx.Client:
        """What the page asks."""
        [port] = free_ports(1)
        service_process("api", {"api": {"port": port}})
        with fleet.engine.begin() as connection:
            token = tokens.create(connection, "operator", "operator", None)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def seen(self, fleet: Fleet, kind: str) -> Counter[str]:
        query = """
            SELECT sum(available), sum(claimed) + sum(allocated), sum(unclaimable), sum(unavailable)
              FROM pool_totals WHERE dev_type = :kind AND vendor_id = '8086'
        """
        [row] = fleet.sql(query, kind=kind)
        return Counter(
            dict(zip(("available", "held", "unclaimable", "unavailable"), map(int, row), strict=True))
        )


class TestEveryService:
    """A claim over HTTP, attached by an agent."""

    @pytest.fixture
    def services(self, service_process: Services, fleet: Fleet, tmp_path: Path) -> dict[str, ServiceProcess]:
        [port] = free_ports(1)
        agent = {
            "DEFAULT": {"host": "node-1"},
            "pci": {"device_spec": '{"vendor_id": "8086"}'},
            "compute_agent": {"sysfs_root": tmp_path / "sys", "report_interval": 0.5},
            "simulated": {"ports": 1, "vfs_per_port": 4},
        }
        started = {
            "conductor": service_process("conductor", {"metrics": LISTEN}),
            "scheduler": service_process("scheduler", SCHEDULER),
            "api": service_process("api", {"api": {"port": port, "workers": 2}, "metrics": LISTEN}),
            "compute_agent": service_process("compute_agent", agent | {"metrics": LISTEN}),
        }
        with fleet.engine.begin() as connection:
            token = tokens.create(connection, "operator", "operator", None)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            body = {"instance_id": str(uuid4()), "extra_specs": {"pci_passthrough:alias": "nic-vf:1"}}
            path = f"/v1/claims/{uuid4()}"
            client.put(path, json=body).raise_for_status()
            client.get(path, params={"wait_for": "allocated", "timeout": 60}).raise_for_status()
            client.get("/v1/nothing")
        return started

    def test_all_names_types_and_labels_are_the_documented_ones(
        self, services: dict[str, ServiceProcess]
    ) -> None:
        for service, process in services.items():
            declared = {metric.name: metric for metric in METRICS if service in metric.services}
            for family in families(process):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                metric = declared[name]
                assert (family.type, family.documentation) == (metric.kind, metric.text)
                for sample in family.samples:
                    assert sample.labels.keys() - {"le"} == metric.labels.keys()

    def test_each_service_has_counted_the_claim(self, services: dict[str, ServiceProcess]) -> None:
        def count(service: str, *key: str) -> Callable[[], bool]:
            return lambda: samples(services[service]).get(key, 0) >= 1

        route = "/v1/claims/{claim_id}"
        for wanted in (
            count("api", "http_requests_total", "PUT", route, "200"),
            count("api", "http_requests_total", "GET", "none", "404"),
            count("api", "http_request_seconds_count", "GET", route),
            count("scheduler", "claims_total", "claimed", ""),
            count("scheduler", "rpc_seconds_count", "claim"),
            count("scheduler", "claim_phase_seconds_count", "cast"),
            count("scheduler", "bus_connected"),
            count("scheduler", "database_pool_size"),
            count("compute_agent", "step_seconds_count", "attach", "done"),
            count("compute_agent", "claim_phase_seconds_count", "attach"),
            count("compute_agent", "agent_takes_steps"),
            count("conductor", "step_answers_total", "done"),
            count("conductor", "events_published_total"),
            count("conductor", "signs_of_life_total"),
            count("conductor", "task_seconds_count", "relay"),
            count("conductor", "bus_connected"),
        ):
            wait_until(wanted, "it is counted")

    def test_both_text_formats_are_valid(self, services: dict[str, ServiceProcess]) -> None:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        for process in services.values():
            answer = httpx.get(address(process), headers=accept)
            assert answer.headers["content-type"].startswith("application/openmetrics-text")
            assert {family.name for family in openmetrics(answer.text)} == {
                family.name for family in families(process)
            }
            assert httpx.get(address(process).replace("/metrics", "/")).status_code == 404


def test_names_are_in_the_manner_of_prometheus() -> None:
    assert catalogue.CLAIMS in METRICS
    assert fleet_catalogue.HOSTS in METRICS
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.services
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
        assert isinstance(metric, Reading) == metric.name.startswith("portclaim_fleet_")
        assert not metric.labels.keys() & {"claim_id", "instance_id", "host", "job", "instance"}
