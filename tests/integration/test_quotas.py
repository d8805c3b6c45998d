"""Quotas of projects: kept in the transaction of each claim, however it is made."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portclaim.common.db import quotas
from portclaim.common.db.quotas import Limits
from portclaim.common.errors import ClaimRefused, InvalidRequest, QuotaExceeded
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once, meanwhile, wait_until_blocked
from tests.support.fleet import Fleet

Use = tuple[int, int, int]


def set_quota(fleet: Fleet, project: str = "web", alias: str | None = None, **limits: int) -> None:
    with fleet.engine.begin() as connection:
        quotas.set_quota(connection, project, alias, Limits(**limits))


def use(fleet: Fleet, project: str = "web", alias: str | None = None) -> Use:
    with fleet.engine.begin() as connection:
        [found] = [each for each in quotas.quotas(connection, project) if each.alias == alias]
    return found.pfs, found.vfs, found.waiting


def test_a_claim_beyond_the_quota_is_refused_and_says_why(fleet: Fleet) -> None:
    fleet.host("h1")
    set_quota(fleet, max_vfs=3)
    fleet.claim("nic-vf:2", project="web")
    before = fleet.contents()
    with pytest.raises(
        QuotaExceeded, match="project web is 3 VFs: it has 2, and the claim asks for 2"
    ) as refused:
        fleet.claim("nic-vf:2", project="web")
    facts = {"project": "web", "alias": None, "kind": "VFs", "quota": 3, "used": 2, "asked": 2}
    assert facts.items() <= refused.value.kwargs.items()
    assert fleet.contents() == before
    assert fleet.claim("nic-vf:1", project="web").status == "claimed"
    assert fleet.claim("nic-vf:1", project="other").status == "claimed"


def test_a_quota_may_be_for_one_alias(fleet: Fleet) -> None:
    fleet.host("h1", ports=3)
    set_quota(fleet, alias="nic-vf", max_vfs=1)
    set_quota(fleet, max_pfs=1)
    fleet.claim("nic-pf:1,nic-vf:1", project="web")
    assert (use(fleet), use(fleet, alias="nic-vf")) == ((1, 1, 0), (0, 1, 0))
    with pytest.raises(QuotaExceeded, match="of alias nic-vf"):
        fleet.claim("any-vf:1,nic-vf:1", project="web")
    fleet.claim("any-vf:1", project="web")
    with pytest.raises(QuotaExceeded, match="1 PFs"):
        fleet.claim("nic-pf:1", project="web")


def test_what_fails_or_is_released_gives_its_room_back_when_the_devices_are_free(fleet: Fleet) -> None:
    host = fleet.host("h1")
    set_quota(fleet, max_vfs=1)
    failed = fleet.claim("nic-vf:1", project="web")
    host.failed(failed, "no driver")
    assert use(fleet) == (0, 0, 0)
    released = fleet.attached(fleet.claim("nic-vf:1", project="web"))
    fleet.release(released)
    with pytest.raises(QuotaExceeded):
        fleet.claim("nic-vf:1", project="web")
    fleet.leave(fleet.show(released))
    assert fleet.claim("nic-vf:1", project="web").status == "claimed"
    fleet.falls_silent("h1")
    [(last,)] = fleet.sql("SELECT id FROM claims WHERE live")
    fleet.scheduler.force_release(last, "alice", "burnt")
    assert use(fleet) == (0, 0, 0)


def test_the_same_claim_again_is_answered_and_counted_once(fleet: Fleet) -> None:
    fleet.host("h1")
    set_quota(fleet, max_vfs=1)
    claim = fleet.claim("nic-vf:1", project="web")
    again = fleet.claim("nic-vf:1", claim.claim_id, claim.instance_id, project="web")
    assert again == claim
    assert use(fleet) == (0, 1, 0)


def test_a_batch_gets_what_the_quota_has_left(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=8)
    set_quota(fleet, max_vfs=5)
    results = fleet.claim_many(["nic-vf:1"] * 8, project="web")
    assert [type(each) for each in results] == [Claim] * 5 + [QuotaExceeded] * 3


def test_the_target_of_a_move_needs_room_too(fleet: Fleet) -> None:
    fleet.host("h1")
    set_quota(fleet, max_vfs=1)
    source = fleet.attached(fleet.claim("nic-vf:1", project="web"))
    fleet.host("h2")
    with pytest.raises(QuotaExceeded):
        fleet.move(source)
    set_quota(fleet, max_vfs=2)
    fleet.move(source)
    assert use(fleet) == (0, 2, 0)


def test_waiting_claims_have_a_limit_of_their_own(fleet: Fleet) -> None:
    fleet.host("h1", vfs=1)
    set_quota(fleet, max_waiting=1)
    fleet.claim("nic-pf:1", project="other")
    first = fleet.claim("nic-pf:1", project="web", wait=60)
    assert use(fleet) == (0, 0, 1)
    with pytest.raises(QuotaExceeded, match="1 waiting claims"):
        fleet.claim("nic-pf:1", project="web", wait=60)
    fleet.release(first)
    assert use(fleet) == (0, 0, 0)
    assert fleet.claim("nic-pf:1", project="web", wait=60).status == "waiting"


def test_a_waiting_claim_whose_turn_comes_without_quota_ends_and_the_next_one_is_served(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=1)
    set_quota(fleet, max_pfs=1)
    holder = fleet.attached(fleet.claim("nic-pf:1", project="other"))
    fleet.claim("nic-pf:1", project="web")
    beyond = fleet.claim("nic-pf:1", project="web", wait=600)
    behind = fleet.claim("nic-pf:1", project="other", wait=600)
    fleet.leave(holder)
    fleet.serve()  # the notification of the claim that ended wakes a scheduler again
    fleet.serve()
    ended = fleet.show(beyond)
    assert (ended.status, fleet.show(behind).status) == ("expired", "claimed")
    assert "the quota of project web is 1 PFs" in str(ended.reason)
    assert use(fleet) == (1, 0, 0)


def test_a_quota_counts_what_the_project_has_when_it_is_set(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=2)
    fleet.claim("nic-vf:2", project="web")
    fleet.claim("nic-pf:1", project="web")
    fleet.claim("nic-pf:2", project="web", wait=60)
    set_quota(fleet, max_vfs=0)
    set_quota(fleet, alias="nic-pf", max_pfs=9)
    assert (use(fleet), use(fleet, alias="nic-pf")) == ((1, 2, 1), (1, 0, 1))


def test_a_quota_that_is_set_waits_for_the_claims_in_hand_and_counts_them(fleet: Fleet) -> None:
    fleet.host("h1")
    with fleet.engine.begin() as connection:
        connection.exec_driver_sql("SELECT lock_quota_use('web')")
        setting = meanwhile(lambda: set_quota(fleet, max_vfs=2))
        wait_until_blocked(fleet.engine)
    setting.result(30)
    assert use(fleet) == (0, 0, 0)


def test_a_quota_is_unset(fleet: Fleet) -> None:
    fleet.host("h1")
    set_quota(fleet, max_vfs=0)
    with fleet.engine.begin() as connection:
        quotas.unset_quota(connection, "web", None)
    assert fleet.claim("nic-vf:1", project="web").status == "claimed"
    with fleet.engine.begin() as connection, pytest.raises(InvalidRequest, match="has no quota"):
        quotas.unset_quota(connection, "web", None)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(0, 6),
    asked=st.lists(st.tuples(st.sampled_from(["web", "other"]), st.integers(1, 3)), min_size=4, max_size=12),
)
def test_claims_at_once_get_all_of_the_quota_and_never_more(
    fleet: Fleet, most: int, asked: list[tuple[str, int]]
) -> None:
    """Single claims and a batch at once, on a fleet that has room for all of them."""
    if not fleet.sql("SELECT 1 FROM compute_nodes"):
        fleet.host("h1", ports=8, vfs=8)
    project = f"web-{uuid4()}"
    set_quota(fleet, project, max_vfs=most)

    def claim(of: str, count: int) -> Callable[[], list[object]]:
        return lambda: [fleet.claim(f"nic-vf:{count}", project=project if of == "web" else None)]

    calls = [claim(of, count) for of, count in asked]
    results = at_once([*calls, lambda: list(fleet.claim_many(["nic-vf:1"] * 3, project=project))])
    claims = [each for result in results if isinstance(result, list) for each in result]
    refused = [each for each in [*results, *claims] if isinstance(each, Exception)]
    assert all(isinstance(each, QuotaExceeded) for each in refused), refused
    assert use(fleet, project)[1] <= most
    [(held,)] = fleet.sql(
        "SELECT count(*) FROM pci_devices d JOIN claims c ON c.id = d.claim_id"
        " WHERE c.request ->> 'project' = :project",
        project=project,
    )
    assert held == use(fleet, project)[1]
    if refused:  # the smallest that was refused does not fit into what is left
        assert all(each.kwargs["used"] + each.kwargs["asked"] > most for each in refused)
    else:
        assert held == 3 + sum(count for of, count in asked if of == "web")
    for each in claims:
        if isinstance(each, Claim):
            fleet.leave(each)
    assert use(fleet, project) == (0, 0, 0)
    assert fleet.faults() == []


def test_a_refusal_for_lack_of_devices_uses_nothing(fleet: Fleet) -> None:
    fleet.host("h1")
    set_quota(fleet, max_vfs=99)
    with pytest.raises(ClaimRefused):
        fleet.claim("nic-vf:9", project="web")
    assert use(fleet) == (0, 0, 0)
