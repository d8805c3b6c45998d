"""One trace follows a claim from the HTTP request through all services to the agent's answer."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from portclaim.common.db import tokens
from tests.support.concurrency import wait_until
from tests.support.fleet import ALIASES, Fleet
from tests.support.otlp import Collector, Span, collector
from tests.support.rabbitmq import free_ports
from tests.support.services import ServiceProcess, Services

ALIAS = {"pci_passthrough:alias": "nic-vf:1"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
REQUEST = "api: PUT /v1/claims/{claim_id}"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"


class Site:
    """All services, with traces to a collector and logs in JSON. The agent is started by the test."""

    def __init__(self, services: Services, collector: Collector, directory: Path, fleet: Fleet) -> None:
        self.collector = collector
        self._services = services
        self._directory = directory
        [port] = free_ports(1)
        self._conductor = {"conductor": {"resend_after": 0.5, "agent_down_after": 60}}
        self.conductor = self.start("conductor")
        self.scheduler = self.start("scheduler", pci={"alias": ALIASES})
        self.api = self.start("api", api={"port": port})
        with fleet.engine.begin() as connection:
            token = tokens.create(connection, "operator", "operator", None)
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def start(self, service: str, **options: dict[str, object]) -> ServiceProcess:
        more = {"tracing": {"endpoint": self.collector.url}, "DEFAULT": {"use_json": True}}
        return self._services(service, self._conductor | more | options)

    def start_agent(self) -> ServiceProcess:
        return self.start(
            "compute_agent",
            DEFAULT={"host": "node-1", "state_path": self._directory / "state", "use_json": True},
            pci={"device_spec": '{"vendor_id": "8086"}'},
            compute_agent={"sysfs_root": self._directory / "sys", "report_interval": 0.5},
            simulated={"ports": 1, "vfs_per_port": 4},
        )

    def claim(self, **headers: str) -> httpx.Response:
        body = {"instance_id": str(uuid4()), "extra_specs": ALIAS}
        answer = self.http.put(f"/v1/claims/{uuid4()}", json=body, headers=headers)
        return answer.raise_for_status()

    def wait_for(self, claim: httpx.Response, status: str) -> None:
        path = f"/v1/claims/{claim.json()['claim_id']}"
        answer = self.http.get(path, params={"wait_for": status, "timeout": 60}).raise_for_status()
        assert answer.json()["status"] == status

    def span(self, service: str, name: str) -> Span:
        """The last span of the caller's trace with this name, when it and all above it have arrived."""

        def found() -> list[Span]:
            return [
                each
                for each in self.collector.trace(TRACE)
                if each.service == service and re.fullmatch(name, each.name) and self.path(each)[0] == REQUEST
            ]

        wait_until(found, f"{service} has sent {name}")
        return found()[-1]

    def path(self, span: Span) -> list[str]:
        """From the request to this span."""
        return self.collector.path(span)


@pytest.fixture
def site(service_process: Services, fleet: Fleet, tmp_path: Path) -> Iterator[Site]:
    with collector() as collecting:
        site = Site(service_process, collecting, tmp_path, fleet)
        yield site
        site.http.close()
        service_process.end()  # they send their last spans
        service_process.processes.clear()


def test_one_trace_from_the_request_to_the_answer(site: Site) -> None:
    site.start_agent()
    claim = site.claim(traceparent=CALLER)
    site.wait_for(claim, "allocated")

    recorded = site.span("conductor", "step_done receive")

    assert site.path(recorded) == [
        REQUEST,
        "api: scheduler.claim",
        "scheduler: claim receive",
        "scheduler: compute_agent.attach",
        "compute-agent: attach receive",
        "compute-agent: attach",
        "compute-agent: conductor.step_done",
        "conductor: step_done receive",
    ]
    committed = site.span("scheduler", "claim_.*")
    assert site.path(committed)[:-1] == [REQUEST, "api: scheduler.claim", "scheduler: claim receive"]
    assert committed.attributes["db.system.name"] == "postgresql"
    attach = site.span("compute-agent", "attach")
    assert attach.attributes["portclaim.claim_id"] == claim.json()["claim_id"]
    sys.stdout.write(site.collector.as_text(TRACE))  # what docs/how-to/monitor.md shows
    first = [each for each in site.collector.trace(TRACE) if each.parent == CALLER.split("-")[2]]
    assert [each.name for each in first] == ["PUT /v1/claims/{claim_id}"]


def test_a_step_that_is_sent_again_belongs_to_the_same_trace(site: Site, fleet: Fleet) -> None:
    agent = site.start_agent()
    agent.kill()
    claim = site.claim(traceparent=CALLER)
    [(parent,)] = fleet.sql("SELECT traceparent FROM outbox")
    assert parent.split("-")[1] == TRACE

    site.start_agent()
    site.wait_for(claim, "allocated")

    sent_again = site.span("conductor", "compute_agent.attach")
    assert site.path(sent_again)[:-1] == [REQUEST, "api: scheduler.claim", "scheduler: claim receive"]
    assert site.path(site.span("compute-agent", "attach"))[0] == REQUEST


def test_claims_that_are_made_together_keep_their_own_traces(site: Site, fleet: Fleet) -> None:
    fleet.host("h1", ports=1, vfs=8)
    body = {"claims": [{"claim_id": str(uuid4()), "instance_id": str(uuid4()), "extra_specs": ALIAS}] * 1}
    body["claims"] = [dict(body["claims"][0], claim_id=str(uuid4())) for _ in range(3)]
    site.http.post("/v1/claims:batch", json=body, headers={"traceparent": CALLER}).raise_for_status()
    assert [parent.split("-")[1] for (parent,) in fleet.sql("SELECT traceparent FROM outbox")] == [TRACE] * 3


def test_lines_of_the_log_name_request_claim_host_and_trace(site: Site) -> None:
    agent = site.start_agent()
    claim = site.claim(traceparent=CALLER)
    site.wait_for(claim, "allocated")
    request, claim_id = claim.headers["x-request-id"], claim.json()["claim_id"]

    def contexts(process: ServiceProcess) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
        return [line["context"] for line in lines if line["context"].get("claim_id") == claim_id]

    wait_until(lambda: contexts(agent) and contexts(site.conductor), "all have logged the claim")
    [made] = contexts(site.scheduler)
    assert (made["request_id"], made["trace_id"]) == (request, TRACE)
    assert {each["trace_id"] for each in contexts(agent)} == {TRACE}
    assert {each["host"] for each in contexts(agent)} == {"node-1"}


def test_nothing_above_info_in_normal_life(site: Site) -> None:
    agent = site.start_agent()
    claim = site.claim()
    site.wait_for(claim, "allocated")
    site.http.delete(f"/v1/claims/{claim.json()['claim_id']}").raise_for_status()
    site.wait_for(claim, "released")
    for process in (agent, site.api, site.scheduler, site.conductor):
        process.stop()
        lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
        assert len(lines) > 1
        assert [line["message"] for line in lines if line["levelname"] not in {"INFO", "DEBUG"}] == []
