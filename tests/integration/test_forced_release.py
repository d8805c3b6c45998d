"""Operators release claims of a silent host by force; the host may come back later."""

from functools import partial

import pytest

from portclaim.common.errors import ClaimNotFound, ClaimRefused, HostIsAlive, InvalidMessage, StaleStep
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, Host, pf, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """One port with two VFs."""
    return fleet.host("h1", ports=1, vfs=2)


CAUSE = "released by force, by ann: h1 has burnt down"


@pytest.mark.parametrize("alias_spec", ["nic-pf:1", "nic-vf:1", "nic-vf:2"])
@pytest.mark.parametrize("status", ["claimed", "allocated", "releasing"])
def test_a_claim_of_a_silent_host_is_released_at_once(
    fleet: Fleet, host: Host, alias_spec: str, status: str
) -> None:
    claim = fleet.claim(alias_spec)
    if status != "claimed":
        host.done(claim)
    if status == "releasing":
        fleet.release(claim)
    fleet.falls_silent("h1")
    ended = fleet.force(claim)
    assert (ended.status, ended.reason) == ("released", CAUSE)
    assert fleet.sql("SELECT count(*) FROM outbox") == [(0,)]
    events = fleet.sql("SELECT from_status, to_status, cause FROM claim_events ORDER BY id")
    assert events[-1] == (status, "released", CAUSE)
    before = fleet.contents()
    assert fleet.force(claim) == ended
    assert fleet.release(claim) == ended
    assert fleet.contents() == before


def test_release_by_force_is_refused_while_the_agent_is_alive(fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    before = fleet.contents()
    with pytest.raises(HostIsAlive, match="host h1 is alive"):
        fleet.force(claim)
    assert fleet.contents() == before


def test_release_by_force_needs_a_known_claim_a_name_and_a_reason(fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    fleet.falls_silent("h1")
    before = fleet.contents()
    with pytest.raises(ClaimNotFound):
        fleet.force(claim.model_copy(update={"claim_id": claim.instance_id}))
    for who, reason in [("", "it burns"), ("ann", "")]:
        with pytest.raises((InvalidMessage, ValueError)):
            fleet.scheduler.force_release(claim.claim_id, who, reason)
    assert fleet.contents() == before


@pytest.mark.parametrize("alias_spec", ["nic-pf:1", "nic-vf:1"])
def test_the_devices_are_not_offered_before_the_host_reports_them_again(
    fleet: Fleet, host: Host, alias_spec: str
) -> None:
    claim = fleet.claim(alias_spec)
    host.done(claim)
    fleet.falls_silent("h1")
    fleet.force(claim)
    held = claim.devices[0].address
    assert fleet.status("h1")[held] == fleet.status("h1")[pf(0)] == "unavailable"

    assert host.sign_of_life().resend, "the conductor asks for the whole inventory"
    with pytest.raises(ClaimRefused):
        fleet.claim("nic-pf:1")
    assert host.ended(claim.claim_id) == [claim.claim_id]

    host.change(held, unusable_reason="in the guest of an ended claim")
    host.report()
    assert fleet.status("h1")[held] == "unavailable"
    host.change(held, unusable_reason=None)
    host.report()
    assert set(fleet.status("h1").values()) == {"available"}


def test_other_claims_on_the_port_do_not_change(fleet: Fleet, host: Host) -> None:
    gone, stays = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
    host.done(gone)
    host.done(stays)
    fleet.falls_silent("h1")
    fleet.force(gone)
    assert fleet.status("h1") == {pf(0): "unavailable", vf(0, 0): "unavailable", vf(0, 1): "allocated"}
    host.report()
    assert fleet.status("h1") == {pf(0): "unavailable", vf(0, 0): "available", vf(0, 1): "allocated"}
    host.done(fleet.release(stays))
    assert set(fleet.status("h1").values()) == {"available"}


def test_a_late_result_of_the_attach_is_refused_as_stale(fleet: Fleet, host: Host) -> None:
    claim = fleet.claim("nic-vf:1")
    fleet.falls_silent("h1")
    fleet.force(claim)
    with pytest.raises(StaleStep):
        host.done(claim, step=1)
    host.done(claim, step=2)  # the result of the detach of what the agent found
    assert fleet.show(claim).status == "released"


def test_concurrent_force_report_step_result_and_release_break_no_rule(fleet: Fleet, host: Host) -> None:
    for _ in range(5):
        claim = fleet.claim("nic-vf:1")
        fleet.falls_silent("h1")
        at_once(
            [
                partial(fleet.force, claim),
                host.report,
                partial(host.done, claim, 1),
                partial(fleet.release, claim),
            ]
        )
        assert fleet.faults() == []
        if fleet.show(claim).status == "releasing":
            host.done(claim)
        host.report()
        assert set(fleet.status("h1").values()) == {"available"}
