"""Server groups: a claim on the host of other claims (near), or on none of their hosts (apart_from)."""

from uuid import uuid4

import pytest
from pydantic import ValidationError

from portclaim.common.errors import ClaimConflict, ClaimRefused, InvalidRequest
from portclaim.common.rpc import versions
from portclaim.common.rpc.candidate_messages import CandidatesRequest
from portclaim.common.rpc.claim_messages import Claim, ExplainRequest
from portclaim.common.rpc.operator_messages import WaitingFilter
from tests.support.fleet import Fleet


@pytest.fixture(autouse=True)
def _three_hosts(fleet: Fleet) -> None:
    """Three hosts with four VFs each."""
    for name in ("h1", "h2", "h3"):
        fleet.host(name)


def names(fleet: Fleet, **limits: list[Claim]) -> list[str]:
    return [each.host for each in fleet.candidates("nic-vf:1", **limits).candidates]


class TestNear:
    def test_a_claim_near_another_is_on_its_host(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1", hosts=["h2"])
        assert fleet.claim("nic-pf:1").host != "h2"
        assert fleet.claim("nic-vf:1", near=[first]).host == "h2"

    def test_a_claim_near_several_on_one_host(self, fleet: Fleet) -> None:
        group = [fleet.claim("nic-vf:1", hosts=["h2"]) for _ in range(2)]
        assert fleet.claim("nic-vf:1", near=group).host == "h2"

    def test_it_is_refused_if_that_host_is_full(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:4", hosts=["h2"])
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", near=[first])

    def test_it_is_refused_if_hosts_or_avoid_hosts_exclude_that_host(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1", hosts=["h2"])
        assert fleet.claim("nic-vf:1", hosts=["h1", "h2"], near=[first]).host == "h2"
        with pytest.raises(ClaimRefused, match="none of the requested hosts has such a device"):
            fleet.claim("nic-vf:1", hosts=["h1", "h3"], near=[first])
        with pytest.raises(ClaimRefused, match="excluded by avoid_hosts or apart_from"):
            fleet.claim("nic-vf:1", avoid_hosts=["h2"], near=[first])

    def test_claims_on_several_hosts_are_refused_by_name(self, fleet: Fleet) -> None:
        first, second = (fleet.claim("nic-vf:1", hosts=[host]) for host in ("h1", "h2"))
        with pytest.raises(InvalidRequest) as refused:
            fleet.claim("nic-vf:1", near=[first, second])
        assert refused.value.message == (
            "near names claims on several hosts, and a claim is on one host: "
            f"claim {first.claim_id} on h1, claim {second.claim_id} on h2"
        )


class TestApartFrom:
    def test_a_claim_apart_from_others_is_on_another_host(self, fleet: Fleet) -> None:
        group = [fleet.claim("nic-vf:1")]
        group.append(fleet.claim("nic-vf:1", apart_from=group))
        group.append(fleet.claim("nic-vf:1", apart_from=group))
        assert {claim.host for claim in group} == {"h1", "h2", "h3"}
        with pytest.raises(ClaimRefused, match="excluded by avoid_hosts or apart_from"):
            fleet.claim("nic-vf:1", apart_from=group)

    def test_near_some_and_apart_from_others(self, fleet: Fleet) -> None:
        first, second = (fleet.claim("nic-vf:1", hosts=[host]) for host in ("h1", "h2"))
        assert fleet.claim("nic-vf:1", near=[second], apart_from=[first]).host == "h2"
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", near=[first], apart_from=[first])


@pytest.mark.parametrize("field", ["near", "apart_from"])
class TestClaimsWithoutAHost:
    def test_an_unknown_claim_is_refused_by_name(self, fleet: Fleet, field: str) -> None:
        known = fleet.claim("nic-vf:1")
        unknown = known.model_copy(update={"claim_id": uuid4()})
        with pytest.raises(InvalidRequest) as refused:
            fleet.claim("nic-vf:1", **{field: [known, unknown]})
        assert refused.value.message == f"{field}: there is no claim {unknown.claim_id}"

    def test_a_claim_that_has_ended_is_refused_by_name(self, fleet: Fleet, field: str) -> None:
        ended = fleet.claim("nic-vf:1")
        fleet.leave(ended)
        with pytest.raises(InvalidRequest) as refused:
            fleet.claim("nic-vf:1", **{field: [ended]})
        assert refused.value.message == (
            f"{field}: claim {ended.claim_id} has ended and is released: leave it out of the request"
        )

    def test_a_claim_that_waits_is_refused_by_name(self, fleet: Fleet, field: str) -> None:
        waiting = fleet.claim("nic-vf:5", wait=300)
        with pytest.raises(InvalidRequest) as refused:
            fleet.claim("nic-vf:1", **{field: [waiting]})
        assert refused.value.message == (
            f"{field}: claim {waiting.claim_id} is waiting and has no host: name it after it has been served"
        )

    def test_a_claim_that_is_being_released_still_has_its_host(self, fleet: Fleet, field: str) -> None:
        leaving = fleet.release(fleet.claim("nic-vf:1", hosts=["h2"]))
        assert leaving.status == "releasing"
        assert (fleet.claim("nic-vf:1", **{field: [leaving]}).host == "h2") == (field == "near")

    def test_nothing_is_written_for_a_refused_request(self, fleet: Fleet, field: str) -> None:
        waiting = fleet.claim("nic-vf:5", wait=300)
        before = fleet.contents()
        for call in (fleet.claim, fleet.explain, fleet.candidates):
            with pytest.raises(InvalidRequest, match="has no host"):
                call("nic-vf:1", **{field: [waiting]})
        assert fleet.contents() == before


class TestQuestions:
    def test_explain_counts_them_as_a_claim_does(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:4", hosts=["h2"])
        assert not fleet.explain("nic-vf:1", near=[first]).served
        assert fleet.explain("nic-vf:1", apart_from=[first]).served
        assert not fleet.explain("nic-vf:1", ["h2"], apart_from=[first]).served

    def test_candidates_count_them_as_a_claim_does(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1", hosts=["h2"])
        assert names(fleet, near=[first]) == ["h2"]
        assert names(fleet, apart_from=[first]) == ["h1", "h3"]
        assert names(fleet, near=[first], apart_from=[first]) == []


class TestSameRequest:
    def test_the_same_call_gets_the_same_claim_although_the_other_has_ended(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1", hosts=["h2"])
        second = fleet.claim("nic-vf:1", near=[first])
        fleet.leave(first)
        again = fleet.claim("nic-vf:1", second.claim_id, second.instance_id, near=[first])
        assert again == second
        with pytest.raises(InvalidRequest, match="has ended"):
            fleet.claim("nic-vf:1", near=[first])

    def test_another_near_makes_it_another_request(self, fleet: Fleet) -> None:
        first, other = (fleet.claim("nic-vf:1", hosts=["h2"]) for _ in range(2))
        second = fleet.claim("nic-vf:1", near=[first])
        for near in ([other], [first, other], []):
            with pytest.raises(ClaimConflict):
                fleet.claim("nic-vf:1", second.claim_id, second.instance_id, near=near)

    def test_the_claim_keeps_what_was_asked(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1")
        second = fleet.claim("nic-vf:1", apart_from=[first])
        [(request,)] = fleet.sql("SELECT request FROM claims WHERE id = :id", id=second.claim_id)
        assert request["apart_from"] == [str(first.claim_id)]
        assert "near" not in request  # as releases before 1.1 wrote it
        assert request["avoid_hosts"] == []

    def test_only_a_request_that_names_claims_needs_a_newer_scheduler(self) -> None:
        plain = ExplainRequest(extra_specs={"pci_passthrough:alias": "nic-vf:1"})
        fields, needed = versions.to_send(plain)
        assert (needed, {"near", "apart_from"} & fields.keys()) == ("1.0", set())
        assert versions.to_send(plain.model_copy(update={"near": [uuid4()]}))[1] == "1.1"

    @pytest.mark.parametrize("field", ["near", "apart_from"])
    def test_a_request_with_too_many_names_or_with_no_ids_is_refused(self, field: str) -> None:
        for names in ([uuid4()] * 1001, ["h1"]):
            for kind in (ExplainRequest, CandidatesRequest):
                with pytest.raises(ValidationError, match=field):
                    kind.model_validate({field: names})


class TestWaiting:
    def test_claims_near_different_claims_wait_in_different_queues(self, fleet: Fleet) -> None:
        """The head of a queue must not keep out a claim that another host can serve."""
        first, second = (fleet.claim("nic-vf:4", hosts=[host]) for host in ("h1", "h2"))
        near_first = fleet.claim("nic-vf:1", near=[first], wait=300)
        near_second = fleet.claim("nic-vf:1", near=[second], wait=300)
        other = fleet.claim("nic-vf:1")
        assert [near_first.status, near_second.status, other.status] == ["waiting", "waiting", "claimed"]
        fleet.hosts["h2"].done(fleet.release(second))
        fleet.serve()
        assert fleet.show(near_first).status == "waiting"
        assert fleet.show(near_second).host == "h2"

    def test_a_claim_that_waits_keeps_the_host_of_a_claim_that_has_ended(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:4", hosts=["h2"])
        waiting = fleet.claim("nic-vf:1", near=[first], wait=300)
        fleet.serve()
        assert fleet.show(waiting).status == "waiting"  # although h1 and h3 have room
        fleet.leave(first)
        fleet.serve()
        assert fleet.show(waiting).host == "h2"

    def test_a_claim_that_has_ended_no_longer_keeps_away_a_claim_that_waits(self, fleet: Fleet) -> None:
        first = fleet.claim("nic-vf:1", hosts=["h2"])
        others = [fleet.claim("nic-vf:4", hosts=[host]) for host in ("h1", "h3")]
        waiting = fleet.claim("nic-vf:1", apart_from=[first], wait=300)
        fleet.serve()
        assert fleet.show(waiting).status == "waiting"  # although h2 has room
        fleet.leave(first)
        fleet.serve()
        assert fleet.show(waiting).host == "h2"
        assert [fleet.show(other).status for other in others] == ["claimed", "claimed"]

    def test_the_port_that_is_reserved_is_on_an_allowed_host(self, fleet: Fleet) -> None:
        first, _second, _third = (fleet.claim("nic-vf:4", hosts=[host]) for host in ("h1", "h2", "h3"))
        near = fleet.claim("nic-vf:1", wait=300, near=[first])
        apart = fleet.claim("nic-vf:1", wait=300, apart_from=[first])
        fleet.serve()
        reserved_host = {
            claim.claim_id: claim.reserved_host for claim in fleet.scheduler.waiting(WaitingFilter()).claims
        }
        assert reserved_host[near.claim_id] == "h1"
        assert reserved_host[apart.claim_id] in {"h2", "h3"}
