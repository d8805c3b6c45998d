"""From claimed to released: step results of agents, steps sent again, and the history."""

from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest

from portclaim.common.errors import (
    ClaimNotFound,
    HostOwnedByAnotherAgent,
    InvalidRequest,
    StaleStep,
    UnknownHost,
)
from portclaim.common.rpc.agent_messages import StepDevice
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once
from tests.support.fleet import X710, Fleet, Host, pf, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """One port with two VFs."""
    return fleet.host("h1", ports=1, vfs=2)


def tree(pf_status: str, *vf_statuses: str) -> dict[str, str]:
    return {pf(0): pf_status} | {vf(0, number): status for number, status in enumerate(vf_statuses)}


def tree_of(ports: int, vfs: int) -> dict[str, str]:
    """All devices of these ports, available."""
    addresses = [pf(port) for port in range(ports)]
    addresses += [vf(port, number) for port in range(ports) for number in range(vfs)]
    return dict.fromkeys(sorted(addresses), "available")


def steps(fleet: Fleet) -> list[tuple[str, str, int]]:
    """The steps sent so far: host, action and number."""
    return [(host, step.action, step.step) for host, step in fleet.sent]


def outbox(fleet: Fleet) -> list[tuple[int, str]]:
    return fleet.sql("SELECT step, action FROM outbox ORDER BY step")


def time_passes(fleet: Fleet) -> None:
    """Make every step in the outbox due."""
    fleet.sql("UPDATE outbox SET send_after = now()")


class TestAttach:
    def test_a_claim_sends_its_step_to_its_host(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        [(to, step)] = fleet.sent
        assert (to, step.action, step.step) == ("h1", "attach", 1)
        assert (step.claim_id, step.instance_id) == (claim.claim_id, claim.instance_id)
        [held] = claim.devices
        assert step.devices == [
            StepDevice(
                address=held.address,
                dev_type="type-VF",
                parent_address=pf(0),
                vendor_id=X710.vendor,
                product_id=X710.vf,
            )
        ]

    def test_a_pf_that_is_attached_makes_its_vfs_unavailable(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-pf:1")
        assert fleet.status("h1") == tree("claimed", "unclaimable", "unclaimable")
        host.done(claim)
        assert fleet.status("h1") == tree("allocated", "unavailable", "unavailable")
        assert fleet.show(claim).status == "allocated"

    def test_a_vf_that_is_attached_makes_its_pf_unavailable(self, fleet: Fleet, host: Host) -> None:
        claims = [fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")]
        assert fleet.status("h1") == tree("unclaimable", "claimed", "claimed")
        host.done(claims[0])
        host.done(claims[1])
        assert fleet.status("h1") == tree("unavailable", "allocated", "allocated")

    def test_the_pf_stays_unavailable_until_all_vfs_are_free(self, fleet: Fleet, host: Host) -> None:
        attached, claimed = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
        host.done(attached)
        host.done(fleet.release(attached))
        assert fleet.status("h1")[pf(0)] == "unavailable"
        host.done(fleet.release(claimed))
        assert fleet.status("h1") == tree("available", "available", "available")

    def test_a_failed_attach_frees_the_devices_and_gives_the_reason(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-pf:1")
        host.failed(claim, "no such instance here")
        failed = fleet.show(claim)
        assert (failed.status, failed.reason) == ("failed", "no such instance here")
        assert [device.address for device in failed.devices] == [pf(0)]
        assert fleet.status("h1") == tree("available", "available", "available")
        assert outbox(fleet) == []

    def test_a_claim_whose_instance_is_gone_frees_its_devices_and_says_so(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        host.failed(claim, "the instance is not on this host")
        lost = fleet.show(claim)
        assert (lost.status, lost.reason) == ("failed", "the instance is not on this host")
        assert fleet.status("h1") == tree("available", "available", "available")
        assert events(fleet, claim)[-1] == ("allocated", "failed")
        before = fleet.contents()
        host.done(claim)
        host.failed(claim, "said again")
        assert fleet.contents() == before

    def test_all_devices_of_a_claim_change_status_together(self, fleet: Fleet) -> None:
        host = fleet.host("h2", ports=2, vfs=2)
        claim = fleet.claim("nic-vf:4")
        host.done(claim)
        assert {device.status for device in fleet.show(claim).devices} == {"allocated"}
        assert list(fleet.status("h2").values()).count("unavailable") == 2


class TestDetach:
    def test_a_release_sends_a_detach_and_waits_for_its_result(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        fleet.release(claim)
        assert steps(fleet)[-1] == ("h1", "detach", 2)
        assert fleet.status("h1") == tree("allocated", "unavailable", "unavailable")
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert fleet.status("h1") == tree("available", "available", "available")

    def test_a_failed_detach_leaves_the_devices_held_and_is_sent_again(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        fleet.release(claim)
        host.failed(claim, "the guest does not let go")
        held = fleet.show(claim)
        assert (held.status, held.reason) == ("releasing", "the guest does not let go")
        assert fleet.status("h1")[pf(0)] == "allocated"
        time_passes(fleet)
        fleet.relay().send_due()
        assert steps(fleet)[-2:] == [("h1", "detach", 2)] * 2
        host.done(claim)
        released = fleet.show(claim)
        assert (released.status, released.reason) == ("released", None)

    def test_a_release_replaces_an_unfinished_attach(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.release(claim)
        assert outbox(fleet) == [(2, "detach")]
        with pytest.raises(StaleStep):
            host.done(claim, step=1)
        assert fleet.show(claim).status == "releasing"
        host.done(claim, step=2)
        assert fleet.show(claim).status == "released"


class TestAnswers:
    def test_repeating_a_step_result_changes_nothing(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(claim)
        before = fleet.contents()
        host.done(claim)
        assert fleet.contents() == before

    def test_concurrent_equal_step_results_count_once(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        assert at_once([lambda: host.done(claim, step=1)] * 8) == [None] * 8
        assert events(fleet, claim) == [(None, "claimed"), ("claimed", "allocated")]

    def test_of_two_concurrent_step_results_the_failure_wins(self, fleet: Fleet) -> None:
        host = fleet.host("h2", ports=1, vfs=8)
        for _ in range(8):
            claim = fleet.claim("nic-vf:1", hosts=["h2"])
            at_once([partial(host.done, claim, 1), partial(host.failed, claim, "no", 1)])
            assert events(fleet, claim) in (
                [(None, "claimed"), ("claimed", "failed")],
                [(None, "claimed"), ("claimed", "allocated"), ("allocated", "failed")],
            )

    def test_concurrent_step_result_and_release_break_no_rule(self, fleet: Fleet, host: Host) -> None:
        for _ in range(5):
            claim = fleet.claim("nic-vf:1")
            at_once([partial(host.done, claim, 1), partial(fleet.release, claim)])
            assert fleet.show(claim).status == "releasing"
            host.done(claim)
            assert fleet.status("h1") == tree("available", "available", "available")

    def test_a_result_of_a_step_that_was_not_sent_is_refused(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        before = fleet.contents()
        with pytest.raises(InvalidRequest, match="no step 2"):
            host.done(claim, step=2)
        assert fleet.contents() == before

    def test_only_the_agent_of_the_host_may_report_a_step_result(self, fleet: Fleet) -> None:
        other = fleet.host("h2", ports=1, vfs=1)
        claim = fleet.claim("nic-vf:1", hosts=["h1"])
        before = fleet.contents()
        with pytest.raises(ClaimNotFound):
            other.done(claim)
        with pytest.raises(HostOwnedByAnotherAgent):
            Host(fleet, "h1", {}).done(claim)
        with pytest.raises(UnknownHost):
            Host(fleet, "h9", {}).done(claim)
        assert fleet.contents() == before

    def test_a_step_result_for_an_unknown_claim_is_refused(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1").model_copy(update={"claim_id": uuid4()})
        with pytest.raises(ClaimNotFound, match=str(claim.claim_id)):
            host.done(claim, step=1)


class TestSeveralAnswers:
    @pytest.fixture
    def host(self, fleet: Fleet) -> Host:
        """Two ports with four VFs each."""
        return fleet.host("h1", ports=2, vfs=4)

    def test_leave_what_single_answers_leave(self, fleet: Fleet, host: Host) -> None:
        singly = fleet.host("h2", ports=2, vfs=4)
        aliases = ["nic-vf:1", "nic-vf:2", "nic-pf:1"]
        one, other = ([fleet.claim(alias, hosts=[name]) for alias in aliases] for name in ("h1", "h2"))
        assert host.ends(*one) == []
        for claim in other:
            singly.done(claim)
        assert fleet.status("h1") == fleet.status("h2")
        assert [fleet.show(claim).status for claim in one] == ["allocated"] * 3
        for claim in one + other:
            fleet.release(claim)
        assert host.ends(*one) == []
        for claim in other:
            singly.done(claim)
        assert fleet.status("h1") == fleet.status("h2") == tree_of(ports=2, vfs=4)
        assert [events(fleet, claim) for claim in one] == [events(fleet, claim) for claim in other]

    @pytest.mark.parametrize("outcome", ["done", "failed", "prepared"])
    def test_that_are_repeated_change_nothing(self, fleet: Fleet, host: Host, outcome: str) -> None:
        claims = [fleet.claim("nic-vf:1") for _ in range(3)]
        host.ends(*claims, outcome=outcome)
        before = fleet.contents()
        assert host.ends(*claims, outcome=outcome) == []
        assert fleet.contents() == before

    def test_one_that_is_refused_spoils_no_other(self, fleet: Fleet, host: Host) -> None:
        fleet.host("h2", ports=1, vfs=2)
        good, stale = fleet.claim("nic-vf:1", hosts=["h1"]), fleet.claim("nic-vf:1", hosts=["h1"])
        elsewhere = fleet.claim("nic-vf:1", hosts=["h2"])
        unknown = good.model_copy(update={"claim_id": uuid4()})
        fleet.release(stale)
        assert set(host.ends(stale, elsewhere, unknown, good, step=1)) == {
            stale.claim_id,
            elsewhere.claim_id,
            unknown.claim_id,
        }
        assert [fleet.show(claim).status for claim in (good, stale, elsewhere)] == [
            "allocated",
            "releasing",
            "claimed",
        ]

    def test_only_the_agent_of_the_host_may_send_them(self, fleet: Fleet) -> None:
        claims = [fleet.claim("nic-vf:1") for _ in range(2)]
        before = fleet.contents()
        with pytest.raises(HostOwnedByAnotherAgent):
            Host(fleet, "h1", {}).ends(*claims)
        with pytest.raises(UnknownHost):
            Host(fleet, "h9", {}).ends(*claims)
        assert fleet.contents() == before

    def test_a_missing_device_of_one_of_them_is_asked_for_again(self, fleet: Fleet, host: Host) -> None:
        claims = [fleet.claim("nic-vf:1") for _ in range(2)]
        held = claims[0].devices[0].address
        host.lose(held)
        host.report()
        for claim in claims:
            fleet.release(claim)
        assert host.ends(*claims) == []
        assert fleet.sql("SELECT inventory_digest FROM compute_nodes WHERE host = 'h1'") == [(None,)]
        host.report()
        assert fleet.status("h1")[held] == "removed"

    def test_at_the_same_time_as_others_and_releases_they_break_no_rule(
        self, fleet: Fleet, host: Host
    ) -> None:
        for _ in range(5):
            claims = [fleet.claim("nic-vf:1") for _ in range(6)]
            failed = at_once(
                [
                    partial(host.ends, *claims, step=1),
                    partial(host.ends, *reversed(claims), step=1),
                    *(partial(host.done, claim, 1) for claim in claims[:3]),
                    *(partial(fleet.release, claim) for claim in claims[3:]),
                ]
            )
            assert {type(each) for each in failed} <= {list, type(None), Claim, StaleStep}
            assert [fleet.show(claim).status for claim in claims] == ["allocated"] * 3 + ["releasing"] * 3
            fleet.scheduler.release_many([claim.claim_id for claim in claims])
            host.ends(*claims)
            assert fleet.status("h1") == tree_of(ports=2, vfs=4)


class TestHoldings:
    def test_an_agent_learns_which_claims_it_should_hold(self, fleet: Fleet, host: Host) -> None:
        attached, claimed = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
        host.done(attached)
        assert [(h.claim_id, h.status, h.step) for h in host.holdings()] == [
            (attached.claim_id, "allocated", 1),
            (claimed.claim_id, "claimed", 1),
        ]
        [device] = host.holdings()[0].devices
        assert (device.address, device.parent_address) == (attached.devices[0].address, pf(0))

    def test_a_releasing_claim_is_still_held(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-pf:1")
        fleet.release(claim)
        assert [(h.status, h.step) for h in host.holdings()] == [("releasing", 2)]
        host.done(claim)
        assert host.holdings() == []

    def test_an_agent_learns_which_found_claims_have_ended_but_nothing_about_unknown_ones(
        self, fleet: Fleet, host: Host
    ) -> None:
        live, released = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
        host.done(fleet.release(released))
        failed = fleet.claim("nic-vf:1")
        host.failed(failed, "no such instance here")
        found = [live.claim_id, released.claim_id, failed.claim_id, uuid4()]
        assert host.ended(*found) == sorted([released.claim_id, failed.claim_id])

    def test_an_agent_learns_only_about_its_own_host(self, fleet: Fleet, host: Host) -> None:
        fleet.host("h2", ports=1, vfs=1)
        fleet.claim("nic-vf:1", hosts=["h2"])
        assert host.holdings() == []


class TestOutbox:
    """A step is sent until it is answered, even if the service that sent it first dies."""

    def test_a_claim_stands_even_if_its_step_cannot_be_sent(self, fleet: Fleet) -> None:
        fleet.bus_is_down = True
        claim = fleet.claim("nic-vf:1")
        assert (claim.status, fleet.sent) == ("claimed", [])
        fleet.bus_is_down = False
        time_passes(fleet)
        assert fleet.relay().send_due() == 1
        [(to, step)] = fleet.sent
        assert (to, step.claim_id, step.action, step.step) == ("h1", claim.claim_id, "attach", 1)

    def test_the_relay_sends_the_same_step_as_the_claim(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:2")
        time_passes(fleet)
        fleet.relay().send_due()
        assert fleet.sent[0] == fleet.sent[1]

    def test_a_step_with_a_result_is_not_sent_again(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(claim)
        assert outbox(fleet) == []
        assert fleet.relay().send_due() == 0

    def test_a_step_that_is_not_due_is_not_sent_again(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        assert fleet.relay().send_due() == 0

    def test_the_pause_doubles_each_time_a_step_is_sent(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        waits = []
        for _ in range(8):
            fleet.sql("UPDATE outbox SET send_after = now()")
            fleet.relay(resend_after=5.0).send_due()
            # now() is constant within a transaction, so the pause can be computed exactly.
            [(wait,)] = fleet.sql("SELECT date_trunc('second', send_after - now() + '0.5 s') FROM outbox")
            waits.append(wait)
        assert waits == [timedelta(seconds=5 * factor) for factor in (2, 4, 8, 16, 32, 64, 64, 64)]

    def test_concurrent_relays_send_each_step_once(self, fleet: Fleet) -> None:
        fleet.host("h2", ports=4, vfs=8)
        for _ in range(32):
            fleet.claim("nic-vf:1")
        fleet.sent.clear()
        time_passes(fleet)
        assert sum(at_once([fleet.relay().send_due for _ in range(4)])) == 32
        assert len({step.claim_id for _, step in fleet.sent}) == len(fleet.sent) == 32

    def test_a_step_that_could_not_be_sent_is_sent_later(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        fleet.sent.clear()
        time_passes(fleet)
        fleet.bus_is_down = True
        with pytest.raises(Exception, match="the bus is down"):
            fleet.relay().send_due()
        fleet.bus_is_down = False
        time_passes(fleet)
        fleet.relay().send_due()
        assert steps(fleet) == [("h1", "attach", 1)]


def events(fleet: Fleet, claim: Claim) -> list[tuple[str | None, str]]:
    return fleet.sql(
        "SELECT from_status, to_status FROM claim_events WHERE claim_id = :id ORDER BY id", id=claim.claim_id
    )


class TestRecord:
    def test_every_change_of_a_claim_is_recorded_with_its_cause(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(claim)
        fleet.release(claim)
        host.done(claim)
        assert events(fleet, claim) == [
            (None, "claimed"),
            ("claimed", "allocated"),
            ("allocated", "releasing"),
            ("releasing", "released"),
        ]
        assert fleet.sql("SELECT cause FROM claim_events WHERE cause = ''") == []

    def test_the_history_shows_who_held_a_device_and_when(self, fleet: Fleet, host: Host) -> None:
        first = fleet.claim("nic-pf:1")
        host.failed(first, "no such instance")
        second = fleet.claim("nic-pf:1")
        host.done(second)
        host.done(fleet.release(second))
        third = fleet.claim("nic-pf:1")
        assert fleet.sql(
            "SELECT claim_id, held_until IS NULL, held_until >= held_from FROM claim_devices"
            " ORDER BY held_from"
        ) == [(first.claim_id, False, True), (second.claim_id, False, True), (third.claim_id, True, None)]

    def test_an_ended_claim_still_shows_what_it_held(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:2")
        host.done(fleet.release(claim))
        assert [d.address for d in fleet.show(claim).devices] == [d.address for d in claim.devices]
