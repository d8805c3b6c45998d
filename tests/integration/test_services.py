"""Conductor and scheduler as processes over RabbitMQ: they start, share work, stop, die and are replaced."""

import json
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import ClaimConflict, ClaimNotFound, ClaimRefused
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.scheduler.queues import CHANNEL
from tests.support.bus import Bus
from tests.support.concurrency import (
    at_once,
    meanwhile,
    wait_until,
    wait_until_blocked,
    wait_until_listening,
)
from tests.support.fleet import ALIASES, Fleet, vf
from tests.support.services import ServiceProcess, Services

OPTIONS: dict[str, dict[str, dict[str, object]]] = {"conductor": {}, "scheduler": {"pci": {"alias": ALIASES}}}
SELDOM = OPTIONS["scheduler"] | {"scheduler": {"serve_interval": 3600}}
STOPPING = "graceful exiting of service"
ONE_AT_A_TIME = {"rpc": {"threads": 1}}


def request(alias: str) -> ClaimRequest:
    return ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": alias})


@contextmanager
def all_trees_locked(fleet: Fleet) -> Iterator[None]:
    """Locks all devices: every call that changes one has to wait until the block ends."""
    with fleet.engine.connect() as connection:
        connection.execute(sa.text("SELECT FROM pci_devices ORDER BY id FOR UPDATE"))
        yield
        connection.rollback()


def wait_for_consumers(bus: Bus, service: str, number: int) -> None:
    wait_until(lambda: bus.consumers(service) == number, f"{number} workers take messages for {service}")


@pytest.mark.parametrize("service", ["conductor", "scheduler"])
def test_the_configured_number_of_workers_runs_and_a_dead_one_is_replaced(
    service: str, service_process: Services, bus: Bus
) -> None:
    process = service_process(service, OPTIONS[service], "--workers", "2")
    client = getattr(bus, service)
    client.ping()
    wait_for_consumers(bus, service, 2)

    victim, survivor = process.workers
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in process.workers and len(process.workers) == 2, "it is replaced")
    # The consumers alone do not show it: the broker may still count those of the dead worker.
    wait_until(lambda: process.log.count(f"portclaim-{service} ready") == 3, "the new one is ready")
    wait_for_consumers(bus, service, 2)
    assert survivor in process.workers
    for _ in range(4):
        client.ping()

    process.stop()
    assert process.log.count(f"portclaim-{service} stopped") == 2


class TestSigterm:
    """The service finishes its current work, leaves the rest in the bus, and exits with status 0."""

    def test_a_scheduler_finishes_its_claim(self, service_process: Services, bus: Bus, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        process = service_process("scheduler", OPTIONS["scheduler"])
        with all_trees_locked(fleet):
            claim = meanwhile(partial(bus.scheduler.claim, request("nic-vf:1")))
            wait_until_blocked(fleet.engine)
            stopping = meanwhile(process.stop)
            wait_until(lambda: STOPPING in process.log, "it begins to stop")
            late = meanwhile(partial(bus.scheduler.claim, request("nic-vf:1")))
            assert not stopping.done()
        assert claim.result().status == "claimed"
        stopping.result()
        service_process("scheduler", OPTIONS["scheduler"])
        assert late.result().status == "claimed"

    def test_a_conductor_finishes_its_report(self, service_process: Services, bus: Bus, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        host.lose(vf(0, 1))
        process = service_process("conductor")
        with all_trees_locked(fleet):
            report = meanwhile(partial(bus.conductor.report_inventory, host.inventory))
            wait_until_blocked(fleet.engine)
            stopping = meanwhile(process.stop)
            wait_until(lambda: STOPPING in process.log, "it begins to stop")
            assert not stopping.done()
        assert not report.result().resend
        stopping.result()
        assert fleet.status("h1")[vf(0, 1)] == "removed"

    @pytest.mark.parametrize("service", OPTIONS)
    def test_a_service_that_still_waits_for_a_broker_stops(
        self, service: str, service_process: Services
    ) -> None:
        nowhere = {"DEFAULT": {"transport_url": "rabbit://127.0.0.1:1/"}}
        process = service_process(service, OPTIONS[service] | nowhere, until="Connection refused")
        process.stop()


def test_two_schedulers_and_two_conductors_share_the_work(
    service_process: Services, bus: Bus, fleet: Fleet
) -> None:
    for service in ("conductor", "scheduler") * 2:
        service_process(service, OPTIONS[service] | ONE_AT_A_TIME)
    for service in ("conductor", "scheduler"):
        wait_for_consumers(bus, service, 2)
    bus.conductor.ping()
    bus.scheduler.ping()
    hosts = [fleet.host("h1", ports=1, vfs=4), fleet.host("h2", ports=1, vfs=4)]
    for host in hosts:
        host.lose(vf(0, 3))
    with all_trees_locked(fleet):
        # The broker deals out two calls to each service, and each service does one call at a time.
        claims = [meanwhile(partial(bus.scheduler.claim, request("nic-vf:1"))) for _ in range(4)]
        reports = [meanwhile(partial(bus.conductor.report_inventory, host.inventory)) for host in hosts * 2]
        wait_until_blocked(fleet.engine, 4)
    assert [claim.result().status for claim in claims] == ["claimed"] * 4
    assert not any(report.result().resend for report in reports)
    assert fleet.faults() == []


def test_a_claim_survives_the_death_of_the_scheduler_that_makes_it(
    service_process: Services, rabbit_url: str, tmp_path: Path, fleet: Fleet
) -> None:
    """The caller gets no answer and repeats the call with the same id. There is one claim in the end."""
    fleet.host("h1", ports=1, vfs=8)
    impatient = Bus(rabbit_url, tmp_path, timeout=2.0, attempts=20)
    first = service_process("scheduler", OPTIONS["scheduler"])
    claim_request = request("nic-vf:1")
    with all_trees_locked(fleet):
        claim = meanwhile(partial(impatient.scheduler.claim, claim_request))
        wait_until_blocked(fleet.engine)
        first.kill()
    service_process("scheduler", OPTIONS["scheduler"])
    assert claim.result().claim_id == claim_request.claim_id
    assert fleet.sql("SELECT count(*) FROM claims") == [(1,)]
    assert list(fleet.status("h1").values()).count("claimed") == 1
    assert fleet.faults() == []
    impatient.close()


class TestWaitingClaim:
    """The scheduler runs no periodic rounds here, so only a notification can make it serve."""

    @pytest.fixture
    def waits(self, service_process: Services, bus: Bus, fleet: Fleet) -> tuple[ServiceProcess, Claim, Claim]:
        """A scheduler, a claim that holds the only port, and a claim that waits for a VF of it."""
        fleet.host("h1", ports=1, vfs=2)
        service_process("conductor")
        scheduler = service_process("scheduler", SELDOM)
        wait_until_listening(fleet.engine, CHANNEL)
        holder = bus.scheduler.claim(request("nic-pf:1"))
        waits = bus.scheduler.claim(request("nic-vf:1").model_copy(update={"wait": 3600}))
        assert waits.status == "waiting"
        return scheduler, holder, waits

    def leave(self, bus: Bus, fleet: Fleet, holder: Claim) -> None:
        agent = fleet.hosts["h1"].agent_id
        released = bus.scheduler.release(holder.claim_id)
        bus.conductor.step_done(
            StepResult(
                host="h1",
                agent_id=agent,
                claim_id=holder.claim_id,
                step=released.step,
                outcome="done",
            )
        )

    def test_a_waiting_claim_is_served_as_soon_as_devices_are_free(
        self, bus: Bus, fleet: Fleet, waits: tuple[ServiceProcess, Claim, Claim]
    ) -> None:
        _, holder, claim = waits
        wait_until(
            lambda: fleet.sql("SELECT reserved_host FROM waiting") == [("h1",)], "a port is reserved for it"
        )
        self.leave(bus, fleet, holder)
        wait_until(lambda: bus.scheduler.show(claim.claim_id).status == "claimed", "it is served")
        assert fleet.sql("SELECT action FROM outbox WHERE claim_id = :id", id=claim.claim_id) == [("attach",)]

    def test_waiting_claims_stay_in_order_while_no_scheduler_runs(
        self, service_process: Services, bus: Bus, fleet: Fleet, waits: tuple[ServiceProcess, Claim, Claim]
    ) -> None:
        scheduler, holder, claim = waits
        behind = bus.scheduler.claim(request("nic-vf:1").model_copy(update={"wait": 3600}))
        bus.scheduler.release(holder.claim_id)
        scheduler.kill()
        fleet.hosts["h1"].done(holder)
        assert [fleet.show(each).status for each in (claim, behind)] == ["waiting"] * 2
        service_process("scheduler", SELDOM)
        wait_until(lambda: fleet.show(behind).status == "claimed", "both are served")
        assert fleet.sql("SELECT claim_id FROM claim_events WHERE cause = 'served' ORDER BY id") == [
            (claim.claim_id,),
            (behind.claim_id,),
        ]


@pytest.mark.usefixtures("scheduler")
class TestOneScheduler:
    @pytest.fixture
    def scheduler(self, service_process: Services, fleet: Fleet) -> ServiceProcess:
        fleet.host("h1", ports=2, vfs=4)
        # It tries to deliver an answer only as long as callers wait, even if there is no caller.
        return service_process("scheduler", OPTIONS["scheduler"] | {"rpc": {"timeout": 1}})

    def test_concurrent_calls_with_one_id_over_the_bus_get_one_claim(self, bus: Bus, fleet: Fleet) -> None:
        claim_request = request("nic-vf:2")
        answers = at_once([partial(bus.scheduler.claim, claim_request)] * 8)
        assert all(isinstance(answer, Claim) and answer == answers[0] for answer in answers), answers
        assert bus.scheduler.claim(claim_request) == bus.scheduler.show(claim_request.claim_id) == answers[0]
        assert fleet.sql("SELECT count(*) FROM claims") == [(1,)]

    def test_errors_arrive_with_their_type_and_data(self, bus: Bus) -> None:
        claim_request = request("nic-vf:2")
        bus.scheduler.claim(claim_request)
        with pytest.raises(ClaimConflict) as conflict:
            bus.scheduler.claim(claim_request.model_copy(update={"instance_id": uuid4()}))
        assert type(conflict.value) is ClaimConflict
        assert conflict.value.kwargs == {"claim_id": str(claim_request.claim_id)}
        with pytest.raises(ClaimRefused) as refused:
            bus.scheduler.claim(request("gpu:1"))
        assert refused.value.kwargs["explanation"]["served"] is False
        assert "Traceback" not in refused.value.message
        with pytest.raises(ClaimNotFound):
            bus.scheduler.release(uuid4())

    def test_no_message_stops_a_scheduler(self, scheduler: ServiceProcess, bus: Bus, fleet: Fleet) -> None:
        before, workers = fleet.contents(), scheduler.workers
        envelope = {"oslo.version": "2.0"}
        calls = [
            {},
            [],
            "claim",
            {"method": "claim"},
            {"method": "claim", "args": []},
            {"method": None, "args": {}},
            {"method": "ping", "args": {}, "version": "one"},
            {"method": "ping", "args": {}, "version": "1.0", "namespace": "elsewhere"},
            {"method": "ping", "args": {}, "version": "1.0", "_reply_q": "nowhere", "_msg_id": "1"},
        ]
        bodies = [b"", b"\xff\xfe", b"{", b"[]", b"null", b"7", b"{}", json.dumps(envelope).encode()]
        bodies += [json.dumps(envelope | {"oslo.message": call}).encode() for call in calls]
        bodies += [json.dumps(envelope | {"oslo.message": json.dumps(call)}).encode() for call in calls]
        for body in bodies:
            bus.publish("scheduler", body)
        bus.publish("scheduler", pickle.dumps({"method": "ping"}), "application/x-python-serialize")
        bus.publish("scheduler", b"ping", "text/plain")
        bus.publish("scheduler", b"ping", "no/such type")
        bus.scheduler.ping()
        assert (fleet.contents(), scheduler.workers) == (before, workers)
        assert bus.scheduler.claim(request("nic-vf:1")).status == "claimed"
