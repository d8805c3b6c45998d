"""Refused claims are counted by reason: in memory, and every few seconds in the database."""

from collections.abc import Callable
from uuid import UUID

import pytest

from portclaim.common.db import quotas
from portclaim.common.errors import InvalidRequest, PortclaimError, ServiceUnavailable
from portclaim.common.pci.alias import Aliases
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.move_messages import MoveRequest
from portclaim.services.scheduler.refusal_counts import RefusalCounts
from tests.support.bus import Bus
from tests.support.concurrency import at_once, wait_until
from tests.support.fleet import ALIASES, Fleet
from tests.support.services import Services

CLAIM_ID = UUID("c0000000-0000-4000-8000-000000000001")
OTHER_ID = UUID("c0000000-0000-4000-8000-000000000002")


def refused(fleet: Fleet) -> dict[tuple[str, str | None], int]:
    """What the operators' view has, after the worker has recorded."""
    fleet.refusals.record()
    rows = fleet.sql("SELECT reason, alias, cast(sum(refused) AS integer) FROM refusals GROUP BY 1, 2")
    return {(reason, alias): number for reason, alias, number in rows}


def request(number: int, alias: str) -> ClaimRequest:
    return ClaimRequest(
        claim_id=UUID(int=number),
        instance_id=UUID(int=number),
        extra_specs={"pci_passthrough:alias": alias},
    )


def full(fleet: Fleet) -> None:
    fleet.host("h1", ports=1, vfs=2)
    fleet.claim("nic-vf:2")
    fleet.claim("nic-vf:1")


def drained(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.scheduler.drain("h1", "new fan")
    fleet.claim("nic-vf:1")


def silent(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.falls_silent("h1")
    fleet.claim("nic-vf:1")


def two_halves(fleet: Fleet) -> None:
    fleet.host("h1", ports=1)
    fleet.host("h2", ports=1)
    fleet.claim("nic-pf:2")


def behind_others(fleet: Fleet) -> None:
    fleet.host("h1", ports=1)
    fleet.claim("nic-pf:1")
    fleet.claim("nic-pf:1", wait=60)
    fleet.claim("nic-pf:1")


def beyond_quota(fleet: Fleet) -> None:
    fleet.host("h1")
    with fleet.engine.begin() as connection:
        quotas.set_quota(connection, "web", None, quotas.Limits(max_vfs=1))
    fleet.claim("nic-vf:2", project="web")


def same_id(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.claim("nic-vf:1", CLAIM_ID)
    fleet.claim("nic-vf:2", CLAIM_ID)


def moved_too_early(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.host("h2")
    fleet.claim("nic-vf:1", CLAIM_ID, hosts=["h1"])
    fleet.scheduler.move(MoveRequest(claim_id=OTHER_ID, source_claim_id=CLAIM_ID))


@pytest.mark.parametrize(
    ("refuse", "reason", "alias"),
    [
        (lambda fleet: fleet.claim("nic-vf:1"), "ids", "nic-vf"),
        (lambda fleet: fleet.claim("nic-vf:1,gpu:1"), "ids", None),
        (lambda fleet: fleet.claim("no-such-alias:1"), "invalid", None),
        (full, "available", "nic-vf"),
        (drained, "enabled", "nic-vf"),
        (silent, "alive", "nic-vf"),
        (two_halves, "together", "nic-pf"),
        (behind_others, "queue", "nic-pf"),
        (beyond_quota, "quota", "nic-vf"),
        (same_id, "conflict", "nic-vf"),
        (moved_too_early, "conflict", "nic-vf"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_refusal_is_counted_by_its_reason_and_alias(
    fleet: Fleet, refuse: Callable[[Fleet], object], reason: str, alias: str | None
) -> None:
    with pytest.raises(PortclaimError):
        refuse(fleet)
    assert refused(fleet) == {(reason, alias): 1}


def test_the_explanation_has_the_same_word(fleet: Fleet) -> None:
    fleet.host("h1", ports=1)
    assert fleet.explain("nic-vf:1").reason is None
    assert fleet.explain("gpu:1").reason == "ids"
    fleet.claim("nic-pf:1")
    assert fleet.explain("nic-vf:1").reason == "available"


def test_a_claim_that_is_served_or_waits_counts_nothing(fleet: Fleet) -> None:
    fleet.host("h1", ports=1)
    fleet.claim("nic-pf:1")
    fleet.claim("nic-pf:1", wait=60)
    assert refused(fleet) == {}


def test_each_claim_of_a_batch_is_counted(fleet: Fleet) -> None:
    fleet.host("h1", ports=1, vfs=2)
    requests = [
        ClaimRequest(
            claim_id=UUID(int=number),
            instance_id=UUID(int=number),
            extra_specs={"pci_passthrough:alias": "nic-vf:1"},
        )
        for number in range(1, 6)
    ]
    fleet.scheduler.claim_many(requests)
    assert refused(fleet) == {("available", "nic-vf"): 3}


def test_workers_that_record_at_once_lose_nothing(fleet: Fleet) -> None:
    workers = [RefusalCounts(fleet.engine) for _ in range(8)]
    aliases = ["nic-vf", "nic-pf", "gpu"]
    for number, worker in enumerate(workers):
        for alias in aliases if number % 2 else reversed(aliases):
            worker.count(InvalidRequest("no"), request(number, f"{alias}:1"), Aliases.parse(ALIASES))
    assert at_once([worker.record for worker in workers]) == [False] * 8
    assert refused(fleet) == {("invalid", alias): 8 for alias in aliases}


def test_what_could_not_be_recorded_is_recorded_later(fleet: Fleet) -> None:
    with pytest.raises(PortclaimError):
        fleet.claim("nic-vf:1")
    fleet.sql("ALTER TABLE refused_claims RENAME TO away")
    with pytest.raises(ServiceUnavailable):
        fleet.refusals.record()
    fleet.sql("ALTER TABLE away RENAME TO refused_claims")
    assert refused(fleet) == {("ids", "nic-vf"): 1}


def test_old_minutes_are_removed(fleet: Fleet) -> None:
    fleet.sql(
        "INSERT INTO refused_claims SELECT date_trunc('minute', now() - age), 'ids', '', 1 "
        "FROM unnest(ARRAY[interval '1 hour', interval '8 days']) age"
    )
    fleet.sql("SELECT remove_old_refusals(interval '7 days')")
    assert refused(fleet) == {("ids", None): 1}


def test_the_summary_has_the_last_hour(fleet: Fleet) -> None:
    fleet.sql(
        "INSERT INTO refused_claims SELECT date_trunc('minute', now() - ago), reason, alias, refused "
        "FROM (VALUES (interval '2 hours', 'ids', 'gpu', 7), ('10 min', 'alive', 'gpu', 5), "
        "('10 min', 'alive', '', 1), ('9 min', 'alive', 'gpu', 3)) kept (ago, reason, alias, refused)"
    )
    shown = fleet.scheduler.summary()
    assert [tuple(kind.model_dump().values()) for kind in shown.refused] == [
        ("alive", "gpu", 8),
        ("alive", None, 1),
    ]
    assert [minute.refused for minute in shown.refused_by_minute] == [{"alive": 6}, {"alive": 3}]
    assert [minute.minute[-9:] for minute in shown.refused_by_minute] == [":00+00:00"] * 2


def test_a_scheduler_that_stops_records_what_it_has_refused(
    service_process: Services, bus: Bus, fleet: Fleet
) -> None:
    process = service_process("scheduler", {"pci": {"alias": ALIASES}})
    with pytest.raises(PortclaimError):
        bus.scheduler.claim(request(1, "nic-vf:1"))
    process.stop()
    assert refused(fleet) == {("ids", "nic-vf"): 1}


def test_a_conductor_removes_old_minutes(service_process: Services, fleet: Fleet) -> None:
    fleet.sql(
        "INSERT INTO refused_claims VALUES (date_trunc('minute', now()) - interval '8 days', 'ids', '', 1)"
    )
    service_process("conductor", {})
    wait_until(lambda: refused(fleet) == {}, "the old minute is removed")
