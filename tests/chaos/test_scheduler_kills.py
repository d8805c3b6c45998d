"""Schedulers are killed in the middle of claims and moves, while callers call again with the same ids.

At the end no device is lost or booked twice, every caller has one answer, and every claim was attached once.
"""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.claim_messages import ClaimRequest
from tests.chaos.callers import Caller
from tests.chaos.cloud import PORTS, VFS, Cloud
from tests.support.bus import Bus
from tests.support.concurrency import meanwhile, wait_until, wait_until_blocked
from tests.support.effort import short_or_long
from tests.support.services import Services

KILLS = short_or_long(20, 100)
CALLERS = 6


@pytest.fixture
def impatient(rabbit_url: str, tmp_path: Path) -> Iterator[Bus]:
    """A bus whose callers wait only briefly."""
    bus = Bus(rabbit_url, tmp_path, timeout=1.0)
    yield bus
    bus.close()


def test_a_claim_survives_the_death_of_all_scheduler_workers(
    service_process: Services, tmp_path: Path, impatient: Bus, bus: Bus
) -> None:
    """The database finishes the statement although its scheduler is dead. The attach was not sent yet."""
    cloud = Cloud(service_process, tmp_path, hosts=1, schedulers=1, workers=2)
    request = ClaimRequest(
        claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": "pf:1,vf:2"}
    )
    with cloud.engine.begin() as other:
        other.execute(sa.text("SELECT FROM pci_devices WHERE dev_type = 'type-PF' FOR UPDATE"))
        first = meanwhile(lambda: impatient.scheduler.claim(request))
        wait_until_blocked(cloud.engine)
        for pid in cloud.workers():
            kill(pid)
        assert isinstance(first.exception(), ServiceUnavailable)
        second = meanwhile(lambda: bus.scheduler.claim(request))
        wait_until_blocked(cloud.engine, 2)
    claim = second.result()
    wait_until(lambda: bus.scheduler.show(claim.claim_id).status == "allocated", "the claim is attached")
    assert cloud.broken_rules() == []
    assert held(cloud) == {claim.claim_id: frozenset(f"node-0 {each.address}" for each in claim.devices)}
    assert_attached_once(cloud, {claim.claim_id})


@pytest.mark.timeout(short_or_long(290, 3000))
def test_claims_survive_the_death_of_schedulers_at_any_moment(
    service_process: Services, tmp_path: Path, impatient: Bus
) -> None:
    cloud = Cloud(service_process, tmp_path, hosts=2, schedulers=2, workers=4)
    begun: list[UUID] = []
    enough = threading.Event()
    callers = [Caller(impatient.scheduler, Random(f"caller {n}"), begun) for n in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as threads:
        lives = [threads.submit(caller.live, enough) for caller in callers]
        try:
            kill_at_random(cloud, begun, Random("killer"))
        finally:
            enough.set()
    not_released = {life.result() for life in lives}
    wait_until(lambda: cloud.sql("SELECT FROM outbox") == [], "every step is done")

    assert cloud.broken_rules() == []
    free = "SELECT FROM pci_devices WHERE status = 'available' AND dev_type = 'type-VF'"
    assert len(cloud.sql(free)) == len(cloud.hosts) * PORTS * VFS - len(not_released)
    told = {claim_id: answers for caller in callers for claim_id, answers in caller.answers.items()}
    assert {claim_id: {devices} for claim_id, devices in held(cloud).items()} == told
    assert_attached_once(cloud, not_released)
    events = sum((caller.events for caller in callers), Counter[str]())
    assert events["unanswered"] > 0  # otherwise no worker was killed during a call
    assert events["moves completed"] > 0
    assert events["moves reverted"] > 0
    assert events["claims made together"] > 0
    sys.stdout.write(f"{KILLS} kills in {len(begun)} calls for {len(told)} claims: {dict(events)}\n")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_at_random(cloud: Cloud, begun: Sequence[UUID], random: Random) -> None:
    """Kill workers while claims are being made, and every tenth time a whole service."""

    def let_them_call(times: int) -> None:
        due = len(begun) + times
        wait_until(lambda: len(begun) >= due, "callers go on")

    killed: set[int] = set()
    for number in range(1, KILLS + 1):
        let_them_call(random.randint(10, 30))
        time.sleep(random.uniform(0.0, 0.02))  # so that the kill can hit a claim at any moment
        if number % 10 == 0:
            random.choice([scheduler for scheduler in cloud.schedulers if scheduler.running]).kill()
            cloud.schedulers.append(cloud.start_scheduler())
        else:
            wait_until(lambda: cloud.workers() - killed, "a worker is there")
            victim = random.choice(sorted(cloud.workers() - killed))
            kill(victim)
            killed.add(victim)


def held(cloud: Cloud) -> dict[UUID, frozenset[str]]:
    """The devices that each claim has or had."""
    rows = cloud.sql("""
        SELECT cd.claim_id, array_agg(n.host || ' ' || d.address)
          FROM claim_devices cd
          JOIN pci_devices d ON d.id = cd.device_id
          JOIN compute_nodes n ON n.id = d.compute_node_id
         GROUP BY cd.claim_id
    """)
    return {claim_id: frozenset(devices) for claim_id, devices in rows}


def assert_attached_once(cloud: Cloud, not_released: set[UUID]) -> None:
    """Each device of a claim that was ever allocated was attached once; any other at most once."""
    counted = Counter(cloud.effects())
    assert set(counted.values()) == {1}
    allocated = {
        claim_id
        for (claim_id,) in cloud.sql("SELECT claim_id FROM claim_events WHERE to_status = 'allocated'")
    }
    devices = held(cloud)
    attached = {(claim_id, device) for claim_id, action, device in counted if action == "attach"}
    detached = {(claim_id, device) for claim_id, action, device in counted if action == "detach"}
    assert {(claim_id, device) for claim_id in allocated for device in devices[claim_id]} <= attached
    assert all(device in devices[claim_id] for claim_id, device in attached)
    assert (
        attached - detached
        == cloud.attached()
        == {(c, device) for c in not_released for device in devices[c]}
    )
