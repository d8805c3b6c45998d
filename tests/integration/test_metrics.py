"""`/metrics` of the services, read with the parser of Prometheus' own client library."""

import os
import re
import signal
from uuid import uuid4

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import ClaimRequest
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import ALIASES, Fleet
from tests.support.services import ServiceProcess, Services

METRICS = {"metrics": {"listen": "127.0.0.1", "scheduler_port": 0, "conductor_port": 0}}
SCHEDULER = METRICS | {"pci": {"alias": ALIASES}}


def address(process: ServiceProcess) -> str:
    found = re.search(r"metrics at (\S+)", process.log)
    assert found, process.log
    return found[1]


def read(process: ServiceProcess) -> dict[tuple[str, ...], float]:
    """The samples: by their names, and the values of their labels in the order of the labels' names."""
    answer = httpx.get(address(process)).raise_for_status()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in plain(answer.text)
        for sample in family.samples
    }


def request(alias: str, **more: object) -> ClaimRequest:
    return ClaimRequest(
        claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": alias}, **more
    )


class TestClaims:
    @pytest.fixture
    def scheduler(self, service_process: Services, fleet: Fleet) -> ServiceProcess:
        fleet.host("h1", ports=1, vfs=4)
        process = service_process("scheduler", SCHEDULER, "--workers", "2")
        wait_until(lambda: "metrics at" in process.log, "the metrics are there")
        return process

    def test_claims_are_counted_by_outcome_and_reason(self, scheduler: ServiceProcess, bus: Bus) -> None:
        bus.scheduler.claim(request("nic-vf:2"))
        for alias in ("gpu:1", "nic-vf:3", "nic-pf:1"):
            with pytest.raises(ClaimRefused):
                bus.scheduler.claim(request(alias))
        assert bus.scheduler.claim(request("nic-pf:1", wait=60)).status == "waiting"

        found = read(scheduler)

        assert found["portclaim_claims_total", "claimed", ""] == 1
        assert found["portclaim_claims_total", "waiting", ""] == 1
        assert found["portclaim_claims_total", "refused", "ids"] == 1
        assert found["portclaim_claims_total", "refused", "together"] == 1
        assert found["portclaim_claims_total", "refused", "available"] == 1

    def test_what_a_killed_worker_has_counted_stays(self, scheduler: ServiceProcess, bus: Bus) -> None:
        for _ in range(4):
            bus.scheduler.claim(request("nic-vf:1"))
        assert read(scheduler)["portclaim_claims_total", "claimed", ""] == 4

        for worker in scheduler.workers:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: scheduler.log.count("metrics at") == 2, "a new exporter answers")
        bus.scheduler.ping()

        assert read(scheduler)["portclaim_claims_total", "claimed", ""] == 4

    def test_both_text_formats_are_valid(self, scheduler: ServiceProcess, bus: Bus) -> None:
        bus.scheduler.claim(request("nic-vf:1"))
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        answer = httpx.get(address(scheduler), headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert {family.name for family in openmetrics(answer.text)} == {
            family.name for family in plain(httpx.get(address(scheduler)).text)
        }
        assert httpx.get(address(scheduler).replace("/metrics", "/")).status_code == 404
