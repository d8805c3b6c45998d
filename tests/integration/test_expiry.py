"""A claim that is not attached in time expires; its devices are free once its agent has detached them."""

from functools import partial

import pytest

from portclaim.common.errors import StaleStep
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, Host, pf, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """One port with two VFs."""
    return fleet.host("h1", ports=1, vfs=2)


def claimed_an_hour_ago(fleet: Fleet, alias_spec: str = "nic-vf:1") -> Claim:
    claim = fleet.claim(alias_spec)
    fleet.sql("UPDATE claims SET created_at = now() - interval '1 hour' WHERE id = :id", id=claim.claim_id)
    return claim


def events(fleet: Fleet, claim: Claim) -> list[tuple[str, str]]:
    return fleet.sql(
        "SELECT to_status, cause FROM claim_events WHERE claim_id = :id ORDER BY id", id=claim.claim_id
    )


def test_a_claim_that_was_never_attached_is_detached_and_then_expired(fleet: Fleet, host: Host) -> None:
    claim = claimed_an_hour_ago(fleet)
    assert fleet.expire(after=1800) == [claim.claim_id]
    fleet.relay().send_due()
    assert [(step.action, step.step) for _, step in fleet.sent] == [("attach", 1), ("detach", 2)]

    host.done(claim)
    expired = fleet.show(claim)
    assert (expired.status, expired.reason) == ("expired", "not prepared within 1800 s")
    assert set(fleet.status("h1").values()) == {"available"}
    assert events(fleet, claim) == [
        ("claimed", "claim"),
        ("releasing", "not prepared within 1800 s"),
        ("expired", "detach done"),
    ]


def test_no_device_is_free_before_the_agent_confirms_the_detach(fleet: Fleet, host: Host) -> None:
    claim = claimed_an_hour_ago(fleet, "nic-pf:1")
    fleet.expire()
    assert (fleet.show(claim).status, fleet.status("h1")[pf(0)]) == ("releasing", "claimed")
    host.failed(claim, "the guest does not let go")
    held = fleet.show(claim)
    assert (held.status, held.reason) == ("releasing", "the guest does not let go")
    assert fleet.status("h1")[pf(0)] == "claimed"
    host.done(claim)
    ended = fleet.show(claim)
    assert (ended.status, ended.reason) == ("expired", "not prepared within 1800 s")


def test_an_agent_that_was_down_learns_that_it_has_to_detach(fleet: Fleet, host: Host) -> None:
    claim = claimed_an_hour_ago(fleet)
    fleet.expire()
    assert [(h.claim_id, h.status, h.step) for h in host.holdings()] == [(claim.claim_id, "releasing", 2)]


def test_a_late_result_of_the_attach_is_refused_as_stale(fleet: Fleet, host: Host) -> None:
    claim = claimed_an_hour_ago(fleet)
    fleet.expire()
    with pytest.raises(StaleStep):
        host.done(claim, step=1)
    assert fleet.show(claim).status == "releasing"


def test_recent_attached_and_released_claims_do_not_expire(fleet: Fleet, host: Host) -> None:
    attached = claimed_an_hour_ago(fleet)
    host.done(attached)
    released = claimed_an_hour_ago(fleet)
    fleet.release(released)
    assert fleet.expire() == []
    host.done(released)
    young = fleet.claim("nic-vf:1")
    before = fleet.contents()
    assert fleet.expire() == []
    assert fleet.contents() == before
    assert [fleet.show(claim).status for claim in (attached, released, young)] == [
        "allocated",
        "released",
        "claimed",
    ]


def test_releasing_an_expiring_claim_changes_nothing(fleet: Fleet, host: Host) -> None:
    claim = claimed_an_hour_ago(fleet)
    fleet.expire()
    before = fleet.contents()
    assert fleet.release(claim).status == "releasing"
    assert fleet.expire() == []
    assert fleet.contents() == before
    host.done(claim)
    assert fleet.release(claim).status == "expired"


def test_the_devices_of_an_expired_claim_can_be_claimed_again(fleet: Fleet, host: Host) -> None:
    first = claimed_an_hour_ago(fleet, "nic-vf:2")
    fleet.expire()
    host.done(first)
    second = fleet.claim("nic-vf:2")
    assert [device.address for device in second.devices] == [vf(0, 0), vf(0, 1)]


def test_concurrent_expiry_step_result_and_release_break_no_rule(fleet: Fleet, host: Host) -> None:
    for _ in range(5):
        claim = claimed_an_hour_ago(fleet)
        at_once([fleet.expire, fleet.expire, partial(host.done, claim, 1), partial(fleet.release, claim)])
        assert fleet.show(claim).status == "releasing"
        assert fleet.faults() == []
        host.done(claim)
        assert set(fleet.status("h1").values()) == {"available"}


def test_concurrent_conductors_expire_each_claim_once(fleet: Fleet) -> None:
    fleet.host("h2", ports=4, vfs=8)
    claims = {claimed_an_hour_ago(fleet).claim_id for _ in range(20)}
    expired = [claim_id for batch in at_once([fleet.expire] * 4) for claim_id in batch]
    assert sorted(expired) == sorted(claims)
