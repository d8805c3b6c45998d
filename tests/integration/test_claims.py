"""Claims of PFs and VFs: all or nothing, once per id, and refused only if no host can serve them."""

from uuid import uuid4

import pytest

from portclaim.common.errors import ClaimConflict, ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, Explanation
from tests.support.concurrency import at_once
from tests.support.fleet import CONNECTX5, T4, X710, Fleet, gpu, pf, port_devices, vf
from tests.support.looking import addresses


def explanation(refused: ClaimRefused) -> Explanation:
    return Explanation.model_validate(refused.kwargs["explanation"])


def left(explained: Explanation) -> dict[str, int]:
    """How many devices each filter left over."""
    return {result.filter: result.devices for result in explained.filters}


class TestWholePorts:
    def test_a_pf_is_claimed_with_all_of_its_vfs(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=3)
        claim = fleet.claim("nic-pf:1")
        assert (claim.host, claim.status, claim.step, claim.reason) == ("h1", "claimed", 1, None)
        [device] = claim.devices
        assert (device.address, device.dev_type, device.product_id) == (pf(0), "type-PF", X710.pf)
        assert (device.status, device.parent_address, device.request_index) == ("claimed", None, 0)
        assert fleet.status("h1") == {
            pf(0): "claimed",
            vf(0, 0): "unclaimable",
            vf(0, 1): "unclaimable",
            vf(0, 2): "unclaimable",
        }

    def test_the_vfs_of_a_claimed_pf_cannot_be_claimed(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=3)
        fleet.claim("nic-pf:1")
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1")

    def test_other_ports_do_not_change(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=2)
        taken = addresses(fleet.claim("nic-pf:1"))
        vfs = fleet.claim("nic-vf:2")
        assert {device.parent_address for device in vfs.devices} == {pf(0), pf(1)} - set(taken)

    def test_a_pf_without_vfs_can_be_claimed(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=0)
        assert addresses(fleet.claim("nic-pf:1")) == [pf(0)]


class TestVFs:
    def test_claiming_a_vf_blocks_its_pf_and_leaves_the_other_vfs_available(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=3)
        [held] = fleet.claim("nic-vf:1").devices
        assert (held.dev_type, held.product_id, held.parent_address) == ("type-VF", X710.vf, pf(0))
        free = {vf(0, 0), vf(0, 1), vf(0, 2)} - {held.address}
        assert fleet.status("h1") == {
            pf(0): "unclaimable",
            held.address: "claimed",
            **dict.fromkeys(free, "available"),
        }

    def test_the_pf_of_a_claimed_vf_cannot_be_claimed(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=3)
        fleet.claim("nic-vf:1")
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:1")

    def test_a_pf_is_available_again_only_after_its_last_vf_is_freed(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=3)
        first, second = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
        for claim in (first, second):
            host.done(claim)
        host.done(fleet.release(first))
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:1")
        host.done(fleet.release(second))
        assert addresses(fleet.claim("nic-pf:1")) == [pf(0)]

    def test_a_vf_claim_uses_a_port_with_held_vfs_before_an_untouched_one(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=3, vfs=4)
        for _ in range(4):
            fleet.claim("nic-vf:1")
        assert len(fleet.claim("nic-pf:2").devices) == 2

    def test_holding_all_vfs_of_a_port_does_not_give_its_pf(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        assert len(fleet.claim("nic-vf:2").devices) == 2
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:1")


class TestSeveralKinds:
    def test_one_claim_may_ask_for_several_kinds(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 4), *port_devices(1, 4, CONNECTX5), gpu(2), gpu(3)])
        claim = fleet.claim("nic-vf:2,roce-pf:1,gpu:2")
        assert [(d.request_index, d.vendor_id, d.product_id) for d in claim.devices] == [
            (0, X710.vendor, X710.vf),
            (0, X710.vendor, X710.vf),
            (1, CONNECTX5.vendor, CONNECTX5.pf),
            (2, *T4),
            (2, *T4),
        ]

    def test_a_pf_and_vfs_of_the_same_card_come_from_different_ports(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        claim = fleet.claim("nic-pf:1,nic-vf:4")
        [whole] = [d.address for d in claim.devices if d.dev_type == "type-PF"]
        assert {d.parent_address for d in claim.devices} == {None, pf(0), pf(1)} - {whole}

    def test_one_claim_cannot_have_a_pf_and_a_vf_of_the_same_port(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        before = fleet.contents()
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:1,nic-vf:1")
        assert fleet.contents() == before

    def test_an_alias_may_be_named_twice_in_one_claim(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=3)
        claim = fleet.claim("nic-vf:1,nic-vf:2")
        assert [device.request_index for device in claim.devices] == [0, 1, 1]
        assert len(set(addresses(claim))) == 3

    def test_a_claim_gets_all_of_its_devices_or_none(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 4), gpu(1)])
        before = fleet.contents()
        for too_much in ("nic-vf:1,gpu:2", "gpu:1,nic-vf:5", "nic-vf:1,roce-vf:1"):
            with pytest.raises(ClaimRefused):
                fleet.claim(too_much)
        assert fleet.contents() == before

    def test_all_devices_come_from_one_host(self, fleet: Fleet) -> None:
        fleet.host_of("h1", port_devices(0, 4))
        fleet.host_of("h2", [gpu(0), gpu(1)])
        for across in ("nic-vf:1,gpu:1", "nic-vf:5", "gpu:3"):
            with pytest.raises(ClaimRefused):
                fleet.claim(across)
        fleet.host_of("h3", [*port_devices(0, 1), gpu(1)])
        assert fleet.claim("nic-vf:1,gpu:1").host == "h3"


class TestHosts:
    @pytest.fixture(autouse=True)
    def _three_hosts(self, fleet: Fleet) -> None:
        for name in ("h1", "h2", "h3"):
            fleet.host(name, ports=1, vfs=2)

    def test_hosts_limits_a_claim_to_these_hosts(self, fleet: Fleet) -> None:
        assert fleet.claim("nic-vf:2", hosts=["h2"]).host == "h2"
        assert fleet.claim("nic-vf:2", hosts=["h2", "h3"]).host == "h3"
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", hosts=["h2", "h3"])

    def test_avoid_hosts_excludes_these_hosts(self, fleet: Fleet) -> None:
        assert fleet.claim("nic-vf:1", avoid_hosts=["h1", "h3"]).host == "h2"
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", avoid_hosts=["h1", "h2", "h3"])

    def test_avoid_hosts_outweighs_hosts(self, fleet: Fleet) -> None:
        assert fleet.claim("nic-vf:1", hosts=["h1", "h3"], avoid_hosts=["h1"]).host == "h3"
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", hosts=["h1"], avoid_hosts=["h1"])

    def test_an_unknown_host_serves_no_claim(self, fleet: Fleet) -> None:
        with pytest.raises(ClaimRefused) as refused:
            fleet.claim("nic-vf:1", hosts=["h9"])
        assert left(explanation(refused.value))["hosts"] == 0

    def test_a_disabled_host_serves_no_claim(self, fleet: Fleet) -> None:
        fleet.sql("UPDATE compute_nodes SET disabled_reason = 'new fans' WHERE host <> 'h2'")
        assert fleet.claim("nic-vf:1").host == "h2"
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", hosts=["h1"])


class TestRefusal:
    def test_a_refusal_shows_how_many_devices_each_filter_left(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        fleet.host("h2", ports=1, vfs=4)
        fleet.claim("nic-vf:3", hosts=["h2"])
        with pytest.raises(ClaimRefused) as refused:
            fleet.claim("nic-vf:2", hosts=["h2"])
        why = explanation(refused.value)
        assert not why.served
        assert (left(why)["ids"], left(why)["hosts"], left(why)["available"]) == (12, 4, 1)
        assert why.filters[-1].devices == 0
        assert why.nearest_miss
        assert why.nearest_miss in refused.value.message

    def test_a_kind_that_no_host_has_is_refused(self, fleet: Fleet) -> None:
        fleet.host("h1")
        with pytest.raises(ClaimRefused) as refused:
            fleet.claim("gpu:1")
        assert set(left(explanation(refused.value)).values()) == {0}

    def test_an_empty_fleet_refuses_every_claim(self, fleet: Fleet) -> None:
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1")

    def test_a_refusal_writes_nothing_and_its_id_can_be_used_later(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=1)
        holder, claim_id = fleet.claim("nic-vf:1"), uuid4()
        before = fleet.contents()
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:1", claim_id)
        assert fleet.contents() == before
        host.failed(holder, "no such instance")
        assert fleet.claim("nic-vf:1", claim_id).claim_id == claim_id

    def test_explain_gives_the_same_explanation_and_writes_nothing(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        before = fleet.contents()
        assert fleet.explain("nic-vf:2").served
        for alias in ("nic-vf:3", "gpu:1", "nic-pf:1,nic-vf:1"):
            explained = fleet.explain(alias)
            with pytest.raises(ClaimRefused) as refused:
                fleet.claim(alias)
            assert explanation(refused.value) == explained
        assert fleet.contents() == before


class TestOncePerId:
    def test_repeating_a_claim_returns_the_same_answer(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        claim_id, instance_id = uuid4(), uuid4()
        first = fleet.claim("nic-vf:2", claim_id, instance_id)
        before = fleet.contents()
        assert fleet.claim("nic-vf:2", claim_id, instance_id) == first
        assert fleet.contents() == before

    def test_repeating_a_claim_later_returns_its_current_state(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=1)
        claim_id, instance_id = uuid4(), uuid4()
        claim = fleet.claim("nic-vf:1", claim_id, instance_id)
        host.done(claim)
        assert fleet.claim("nic-vf:1", claim_id, instance_id).status == "allocated"
        host.done(fleet.release(claim))
        again = fleet.claim("nic-vf:1", claim_id, instance_id)
        assert (again.status, addresses(again)) == ("released", addresses(claim))
        assert fleet.status("h1") == {pf(0): "available", vf(0, 0): "available"}

    def test_another_request_with_the_same_id_is_an_error(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        claim_id, instance_id = uuid4(), uuid4()
        fleet.claim("nic-vf:1", claim_id, instance_id)
        before = fleet.contents()
        for alias, instance, hosts in [
            ("nic-vf:2", instance_id, None),
            ("nic-vf:1", uuid4(), None),
            ("nic-vf:1", instance_id, ["h1"]),
            ("nic-pf:99", instance_id, None),  # an error even if it could not be served
        ]:
            with pytest.raises(ClaimConflict, match=str(claim_id)):
                fleet.claim(alias, claim_id, instance, hosts)
        assert fleet.contents() == before

    def test_many_callers_with_one_id_get_one_claim(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=4, vfs=8)
        claim_id, instance_id = uuid4(), uuid4()
        answers = at_once([lambda: fleet.claim("nic-vf:1", claim_id, instance_id)] * 16)
        assert all(isinstance(answer, Claim) and answer == answers[0] for answer in answers), answers
        assert fleet.sql("SELECT count(*) FROM claims") == [(1,)]
        assert list(fleet.status("h1").values()).count("claimed") == 1

    def test_many_callers_with_one_id_get_one_claim_of_the_last_device(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=1)
        claim_id, instance_id = uuid4(), uuid4()
        answers = at_once([lambda: fleet.claim("nic-pf:1", claim_id, instance_id)] * 16)
        assert all(isinstance(answer, Claim) and answer == answers[0] for answer in answers), answers

    def test_of_two_concurrent_requests_with_one_id_only_one_is_served(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=4, vfs=8)
        claim_id, instance_id = uuid4(), uuid4()
        answers = at_once(
            [
                lambda: fleet.claim("nic-vf:1", claim_id, instance_id),
                lambda: fleet.claim("nic-vf:2", claim_id, instance_id),
            ]
            * 4
        )
        served = [answer for answer in answers if isinstance(answer, Claim)]
        assert len(served) == 4, answers
        assert all(answer == served[0] for answer in served)
        assert sum(isinstance(answer, ClaimConflict) for answer in answers) == 4, answers


class TestAtOnce:
    @pytest.mark.parametrize(
        ("alias", "ports", "vfs"),
        [
            ("nic-vf:1", 2, 8),
            ("nic-vf:1", 16, 1),
            ("nic-vf:4", 8, 8),
            ("nic-pf:1", 16, 2),
            ("nic-pf:2", 32, 0),
        ],
    )
    def test_sixteen_callers_get_sixteen_vfs_of_one_host(
        self, fleet: Fleet, alias: str, ports: int, vfs: int
    ) -> None:
        fleet.host("h1", ports, vfs)
        answers = at_once([lambda: fleet.claim(alias)] * 16)
        assert all(isinstance(answer, Claim) for answer in answers), answers
        held = [address for answer in answers for address in addresses(answer)]
        assert len(held) == len(set(held)) == 16 * int(alias[-1])

    def test_sixteen_callers_get_sixteen_vfs_of_several_hosts(self, fleet: Fleet) -> None:
        for number in range(4):
            fleet.host_of(f"h{number}", [*port_devices(0, 4), *(gpu(port) for port in range(1, 5))])
        answers = at_once([lambda: fleet.claim("nic-vf:1,gpu:1")] * 16)
        assert all(isinstance(answer, Claim) for answer in answers), answers

    def test_one_of_sixteen_callers_gets_the_only_port(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=8)
        answers = at_once([lambda: fleet.claim("nic-pf:1")] * 16)
        assert sum(isinstance(answer, Claim) for answer in answers) == 1, answers
        assert sum(isinstance(answer, ClaimRefused) for answer in answers) == 15, answers

    def test_a_port_claimed_as_pf_and_as_vfs_at_once_is_served_in_one_way(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=8)
        answers = at_once([lambda: fleet.claim("nic-pf:1"), lambda: fleet.claim("nic-vf:1")] * 8)
        served = [answer for answer in answers if isinstance(answer, Claim)]
        kinds = [claim.devices[0].dev_type for claim in served]
        assert kinds in (["type-PF"], ["type-VF"] * 8), answers
        assert all(isinstance(answer, Claim | ClaimRefused) for answer in answers), answers
