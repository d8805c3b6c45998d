"""Several claims and releases in one call: each has its own outcome."""

from collections import Counter
from uuid import uuid4

import pytest

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    InvalidMessage,
    InvalidRequest,
    PortclaimError,
)
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once
from tests.support.counting import hosts_are_counted
from tests.support.effort import short_or_long
from tests.support.fleet import Fleet, request_for
from tests.support.invariants import violations

ROUNDS = short_or_long(6, 60)


def claims_of(results: list[Claim | PortclaimError]) -> list[Claim]:
    """The claims among the results."""
    return [result for result in results if isinstance(result, Claim)]


def broken_rules(fleet: Fleet) -> list[tuple[str, str]]:
    with fleet.engine.connect() as connection:
        return violations(connection)


class TestClaimMany:
    @pytest.mark.parametrize(
        ("alias", "number"), [("nic-vf:1", 24), ("nic-vf:3", 6), ("nic-vf:5", 4), ("nic-pf:1", 6)]
    )
    def test_claims_that_ask_for_the_same_are_served_until_nothing_is_left(
        self, fleet: Fleet, alias: str, number: int
    ) -> None:
        for host in ("h1", "h2", "h3"):
            fleet.host(host, ports=2, vfs=4)
        results = fleet.claim_many([alias] * (number + 2))
        served = claims_of(results)
        most = {"nic-vf:1": 24, "nic-vf:3": 6, "nic-vf:5": 3, "nic-pf:1": 6}[alias]
        assert len(served) == most
        assert results[:most] == served, "the first claims of the batch are the ones that are served"
        assert {type(result) for result in results[most:]} == {ClaimRefused}
        devices = Counter((claim.host, device.address) for claim in served for device in claim.devices)
        assert set(devices.values()) == {1}
        assert broken_rules(fleet) == []

    def test_different_claims_are_served_in_their_order(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        pf_first = fleet.claim_many(["nic-pf:1", "nic-vf:1"])
        assert [type(result) for result in pf_first] == [Claim, ClaimRefused]
        fleet.host("h2", ports=1, vfs=2)
        vf_first = fleet.claim_many(["nic-vf:1", "nic-vf:1", "nic-pf:1", "nic-vf:1"])
        assert [type(result) for result in vf_first] == [Claim, Claim, ClaimRefused, ClaimRefused]

    def test_each_claim_is_sent_to_its_agent(self, fleet: Fleet) -> None:
        for host in ("h1", "h2"):
            fleet.host(host, ports=1, vfs=2)
        served = claims_of(fleet.claim_many(["nic-vf:1"] * 4))
        assert sorted((host, step.claim_id, step.action) for host, step in fleet.sent) == sorted(
            (claim.host, claim.claim_id, "attach") for claim in served
        )

    def test_the_steps_for_one_host_are_sent_in_one_message(self, fleet: Fleet) -> None:
        for host in ("h1", "h2"):
            fleet.host(host, ports=1, vfs=2)
        claims = claims_of(fleet.claim_many(["nic-vf:1"] * 4))
        assert [len(steps) for _, steps in fleet.casts] == [2, 2]
        fleet.casts.clear()
        fleet.scheduler.release_many([claim.claim_id for claim in claims])
        assert [len(steps) for _, steps in fleet.casts] == [2, 2]

    def test_the_same_call_again_answers_the_same_claims(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        requests = [request_for("nic-vf:1") for _ in range(4)]
        first = fleet.scheduler.claim_many(requests)
        before = fleet.contents()
        assert fleet.scheduler.claim_many(requests) == first
        assert fleet.contents() == before

    def test_an_id_that_is_used_already_spoils_no_other_claim(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        old = fleet.claim("nic-vf:2")
        requests = [request_for("nic-vf:1") for _ in range(4)]
        requests[1] = requests[1].model_copy(update={"claim_id": old.claim_id})
        requests[3] = requests[3].model_copy(update={"claim_id": requests[0].claim_id})
        results = fleet.scheduler.claim_many(requests)
        assert [type(result) for result in results] == [Claim, ClaimConflict, Claim, ClaimConflict]
        assert broken_rules(fleet) == []

    def test_a_request_that_means_nothing_spoils_no_other_claim(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        results = fleet.claim_many(["nic-vf:1", "unknown:1", "nic-vf:0", "nic-vf:1"])
        assert [type(result) for result in results] == [Claim, InvalidRequest, InvalidRequest, Claim]
        assert isinstance(results[1], InvalidRequest)
        assert "unknown" in results[1].message

    def test_a_refused_claim_says_why(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        [refused] = fleet.claim_many(["nic-vf:5"])
        assert isinstance(refused, ClaimRefused)
        assert "5 needed, h1 has 4" in refused.message
        assert refused.kwargs["explanation"]["served"] is False

    def test_no_claim_overtakes_a_queue(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        holding = fleet.claim("nic-vf:2")
        waiting = fleet.claim("nic-vf:1", wait=300)
        fleet.host("h2", ports=1, vfs=4)
        results = fleet.claim_many(["nic-vf:1"] * 3)
        assert [type(result) for result in results] == [ClaimRefused] * 3
        fleet.serve()
        assert fleet.show(waiting).status == "claimed"
        assert fleet.show(holding).status == "claimed"

    def test_claims_may_wait_in_the_queue(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        results = claims_of(fleet.claim_many(["nic-vf:1"] * 4, wait=300))
        assert [claim.status for claim in results] == ["claimed", "claimed", "waiting", "waiting"]
        assert broken_rules(fleet) == []

    def test_claims_of_named_hosts_get_these_hosts(self, fleet: Fleet) -> None:
        for host in ("h1", "h2"):
            fleet.host(host, ports=1, vfs=2)
        results = fleet.claim_many(["nic-vf:1"] * 3, hosts=["h2"])
        assert [getattr(result, "host", None) for result in results] == ["h2", "h2", None]

    def test_on_call_claims_are_prepared_only(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        fleet.claim_many(["nic-vf:1"] * 2, attach="on-call")
        assert [step.action for _, step in fleet.sent] == ["prepare", "prepare"]
        assert broken_rules(fleet) == []

    @pytest.mark.parametrize("number", [0, 257])
    def test_a_batch_has_1_to_256_claims(self, fleet: Fleet, number: int) -> None:
        with pytest.raises((InvalidMessage, ValueError)):
            fleet.claim_many(["nic-vf:1"] * number)

    @pytest.mark.parametrize("packing", ["pack", "spread"])
    def test_the_policy_says_how_a_batch_is_spread_over_ports(self, database_url: str, packing: str) -> None:
        fleet = Fleet(database_url, packing)
        try:
            for host in ("h1", "h2"):
                fleet.host(host, ports=2, vfs=4)
            fleet.claim_many(["nic-vf:1"] * 4)
            held = fleet.sql("SELECT held FROM port_pools ORDER BY held")
            assert held == [(0,), (0,), (0,), (4,)] if packing == "pack" else [(1,)] * 4
        finally:
            fleet.close()


class TestReleaseMany:
    def test_each_claim_is_released(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=4)
        claims = claims_of(fleet.claim_many(["nic-vf:1"] * 3))
        fleet.sent.clear()
        results = fleet.scheduler.release_many([claim.claim_id for claim in claims])
        assert [result.status for result in claims_of(results)] == ["releasing"] * 3
        assert [step.action for _, step in fleet.sent] == ["detach"] * 3
        for claim in claims:
            host.done(claim, step=2)
        assert set(fleet.status("h1").values()) == {"available"}
        assert broken_rules(fleet) == []

    def test_an_unknown_claim_spoils_no_other_release(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        claim = fleet.claim("nic-vf:1")
        results = fleet.scheduler.release_many([uuid4(), claim.claim_id, claim.claim_id])
        assert [type(result) for result in results] == [ClaimNotFound, Claim, Claim]
        assert [claim.status for claim in claims_of(results)] == ["releasing"] * 2
        assert broken_rules(fleet) == []


def test_batches_and_single_claims_at_once_book_no_device_twice(fleet: Fleet) -> None:
    """There is always enough for the callers that claim and release: none of their claims is refused."""
    hosts = {name: fleet.host(name, ports=4, vfs=8) for name in ("h1", "h2")}

    def batches(alias: str, number: int) -> None:
        for _ in range(ROUNDS):
            results = fleet.claim_many([alias] * number)
            served = claims_of(results)
            assert len(served) == number, results
            fleet.scheduler.release_many([claim.claim_id for claim in reversed(served)])
            for claim in served:
                hosts[claim.host].done(claim, step=2)

    calls = [lambda: batches("nic-vf:1", 4)] * 4 + [lambda: batches("nic-vf:2", 3)] * 2
    calls += [lambda: batches("nic-vf:1", 1)] * 4
    with hosts_are_counted(fleet):
        assert at_once(calls) == [None] * len(calls)
    assert broken_rules(fleet) == []
    assert {status for name in hosts for status in fleet.status(name).values()} == {"available"}
