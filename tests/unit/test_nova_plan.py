"""What an import makes of a Nova host: the rules, on what no healthy Nova has, or has no more."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from portclaim.cli.nova.cell import NovaDevice, NovaInstance
from portclaim.cli.nova.functions import UNKNOWN_PRODUCT
from portclaim.cli.nova.known import KnownDevice, KnownHost
from portclaim.cli.nova.plan import HostPlan, claim_id, plan_host

PF, VF, OTHER_VF, GPU = "0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:03:00.0"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
WEB = "6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10"
REQUEST = "11111111-1111-4111-8111-111111111111"
NIC_VF = {"vendor_id": "8086", "product_id": "154c", "dev_type": "type-VF"}


def device(address: str, **facts: Any) -> NovaDevice:
    """A free device as Nova has it; with ``instance_id``, one that is allocated."""
    dev_type, product, parent = {
        PF: ("type-PF", "1572", None),
        GPU: ("type-PCI", "20b5", None),
    }.get(address, ("type-VF", "154c", PF))
    about: dict[str, Any] = {
        "address": address,
        "dev_type": dev_type,
        "vendor_id": "10de" if address == GPU else "8086",
        "product_id": product,
        "numa_node": 0,
        "parent_address": parent,
        "status": "allocated" if facts.get("instance_id") else "available",
        "instance_id": None,
        "request_id": REQUEST if facts.get("instance_id") else None,
    }
    return NovaDevice(**about | facts)


def request(**facts: Any) -> dict[str, Any]:
    return {"count": 1, "spec": [NIC_VF], "request_id": REQUEST, "numa_policy": "legacy", **facts}


def instance(*requests: dict[str, Any], **facts: Any) -> NovaInstance:
    about = NovaInstance(WEB, "node-1", "active", None, requests or (request(),))
    return replace(about, **facts)


def known(*devices: NovaDevice, **facts: Any) -> KnownHost:
    """A host of Portclaim's whose agent shows these devices."""
    shown = {
        each.address: KnownDevice(
            each.dev_type, each.vendor_id, each.product_id, each.parent_address, True, False, None, None
        )
        for each in devices
    }
    return KnownHost(**{"has_agent": True, "devices": shown} | facts)


def plan(
    found: Sequence[NovaDevice], held_by: NovaInstance | None = None, host: KnownHost | None = None
) -> HostPlan:
    holder = held_by or instance()
    return plan_host("node-1", found, {holder.uuid: holder}, host or KnownHost(), NOW)


def differences(made: HostPlan) -> dict[str | None, str]:
    return {each.address: each.reason for each in made.findings if each.difference}


def test_a_vf_in_use_becomes_a_claim_of_its_instance() -> None:
    made = plan([device(PF, status="unavailable"), device(VF, instance_id=WEB), device(OTHER_VF)])
    [claim] = made.claims
    assert (str(claim.claim_id), claim.instance_id) == (str(claim_id("node-1", NOW, WEB)), WEB)
    assert claim.devices == {VF: 0}
    assert [row.address for row in made.devices] == [PF, VF, OTHER_VF]
    assert made.findings == []
    assert made.withheld == {}


def test_the_claim_asks_for_what_nova_was_asked_for() -> None:
    [claim] = plan([device(PF), device(VF, instance_id=WEB)]).claims
    [asked] = claim.request["requests"]
    assert asked == {"count": 1, "spec": [NIC_VF], "numa_policy": "legacy"}
    assert claim.request["instance_id"] == WEB


def test_ids_are_the_same_in_every_run_and_differ_between_hosts_and_take_overs() -> None:
    assert claim_id("node-1", NOW, WEB) == claim_id("node-1", NOW, WEB)
    assert claim_id("node-1", NOW, WEB) != claim_id("node-2", NOW, WEB)
    assert claim_id("node-1", NOW, WEB) != claim_id("node-1", NOW + timedelta(days=1), WEB)
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert claim_id("node-1", elsewhere, WEB) == claim_id("node-1", NOW, WEB)


def test_a_host_with_nothing_is_made_all_the_same() -> None:
    made = plan([])
    assert (made.devices, made.claims, made.is_done) == ([], [], False)
    assert plan([], host=known(imported_at=NOW, has_agent=False)).is_done


class TestForms:
    """Devices that Portclaim cannot have."""

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"dev_type": "vdpa"}, "of type vdpa, which Portclaim does not hand out"),
            ({"parent_address": None}, "Nova does not say of which PF"),
            ({"parent_address": GPU}, f"its parent {GPU} is no PF"),
            ({"address": "0000:01:30.0"}, "is no PCI address"),
            ({"dev_type": "type-PCI"}, "it is a type-PCI, and has a parent"),
        ],
    )
    def test_in_use_they_are_differences_and_free_they_are_nothing(
        self, facts: dict[str, Any], reason: str
    ) -> None:
        odd = replace(device(VF, instance_id=WEB), **facts)
        made = plan([device(PF), device(GPU), odd])
        assert list(differences(made)) == [odd.address]
        assert reason in differences(made)[odd.address]
        assert made.claims == []
        assert odd.address not in [row.address for row in made.devices]
        free = replace(odd, status="available", instance_id=None, request_id=None)
        assert plan([device(PF), device(GPU), free]).findings == []

    def test_the_port_of_such_a_device_is_drained(self) -> None:
        made = plan([device(PF), device(VF, instance_id=WEB, dev_type="vdpa")])
        assert list(made.withheld) == [PF]

    def test_two_compute_nodes_of_a_host_with_the_same_device(self) -> None:
        made = plan([device(GPU, instance_id=WEB), device(GPU)])
        assert differences(made)[GPU].startswith("several compute nodes of the host have it")

    def test_addresses_and_ids_in_another_form_are_the_same(self) -> None:
        made = plan([device("0000:01:0A.0", vendor_id="15B3", product_id="101E")])
        assert [(row.address, row.vendor_id, row.product_id) for row in made.devices if row.offered] == [
            ("0000:01:0a.0", "15b3", "101e")
        ]

    def test_a_pf_that_nova_does_not_know_is_made_for_its_vfs(self) -> None:
        [pf, *_] = plan([device(VF), device(OTHER_VF)]).devices
        assert (pf.address, pf.dev_type, pf.product_id, pf.offered) == (PF, "type-PF", UNKNOWN_PRODUCT, False)


class TestUse:
    """What may be wrong with a device's use in Nova."""

    def test_a_pf_and_vfs_of_it_in_use(self) -> None:
        found = [device(PF, instance_id=WEB), device(VF, instance_id=WEB), device(OTHER_VF, instance_id=WEB)]
        made = plan(found)
        assert differences(made)[PF] == f"Nova has it in use, and VFs of it too: {VF}, {OTHER_VF}"
        assert differences(made)[VF] == f"Nova has it in use, and its PF too: {PF}"
        assert made.claims == []
        assert list(made.withheld) == [PF]
        assert all(row.unusable_reason.startswith("import from Nova: ") for row in made.devices)

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"request_id": str(uuid4())}, "unknown request"),
            ({"request_id": None}, None),
            ({"instance_id": str(uuid4())}, "its instance is not in Nova any more"),
            ({"instance_id": None}, "Nova has it in use and names no instance"),
            ({"status": "available"}, "Nova names an instance for it, but it is available"),
        ],
    )
    def test_of_a_vf(self, facts: dict[str, Any], reason: str | None) -> None:
        made = plan(
            [device(PF), replace(device(VF, instance_id=WEB), **facts)], instance(request(request_id=None))
        )
        if reason is None:
            assert [claim.devices for claim in made.claims] == [{VF: 0}]
        else:
            assert differences(made)[VF].startswith(reason)

    def test_the_other_devices_of_the_instance_are_claimed(self) -> None:
        strange = device(OTHER_VF, instance_id=WEB, request_id=str(uuid4()))
        made = plan([device(PF), device(VF, instance_id=WEB), strange])
        assert list(differences(made)) == [OTHER_VF]
        assert [claim.devices for claim in made.claims] == [{VF: 0}]

    @pytest.mark.parametrize(
        "wrong",
        [{"spec": []}, {"spec": None}, {"count": 0}, {"spec": [{"tag": 1}]}, {"numa_policy": "none"}],
        ids=str,
    )
    def test_a_request_that_no_claim_can_make_is_unknown(self, wrong: dict[str, Any]) -> None:
        made = plan([device(PF), device(VF, instance_id=WEB)], instance(request(**wrong)))
        assert differences(made)[VF].startswith("unknown request")


class TestRequests:
    def test_without_ids_the_kind_of_the_device_decides(self) -> None:
        gpu = {"vendor_id": "10DE", "product_id": "20B5"}
        asked = instance(request(request_id=None, spec=[gpu]), request(request_id=None))
        devices = [device(each, instance_id=WEB, request_id=None) for each in (VF, GPU)]
        [claim] = plan([device(PF), *devices], asked).claims
        assert claim.devices == {VF: 1, GPU: 0}

    def test_what_a_request_asked_for_beside_ids_are_tags_of_its_device(self) -> None:
        spec = {"physical_network": "physnet2", "remote_managed": "False", "trusted": "true", "nothing": None}
        made = plan([device(PF), device(VF, instance_id=WEB)], instance(request(spec=[spec])))
        tags = {row.address: dict(row.tags) for row in made.devices}
        assert tags == {PF: {}, VF: {"physical_network": "physnet2", "trusted": "true"}}

    def test_what_placement_noted_in_a_request_is_left_out(self) -> None:
        [claim] = plan(
            [device(PF), device(VF, instance_id=WEB)], instance(request(spec=[NIC_VF | {"rp_uuids": "x"}]))
        ).claims
        assert claim.request["requests"][0]["spec"] == [NIC_VF]


class TestKnownHosts:
    def test_once_its_agent_reports_a_taken_over_host_is_not_changed(self) -> None:
        host = known(device(PF), device(VF), imported_at=NOW)
        made = plan([device(PF), device(VF, instance_id=WEB), device(GPU)], host=host)
        assert made.is_done
        assert differences(made)[VF].endswith("not taken over")

    def test_a_claim_that_has_ended_here_is_no_difference(self) -> None:
        host = known(
            device(PF), device(VF), imported_at=NOW, claims={claim_id("node-1", NOW, WEB): "released"}
        )
        made = plan([device(PF), device(VF, instance_id=WEB)], host=host)
        assert made.is_done
        assert made.findings == []
        assert made.claims_here == 1

    def test_free_devices_are_left_to_an_agent_that_reports(self) -> None:
        assert plan([device(PF), device(VF), device(GPU)], host=known(device(PF), device(VF))).devices == []

    def test_a_vf_whose_pf_portclaim_has_given_away(self) -> None:
        holder = uuid4()
        host = known(device(PF), device(VF))
        host.devices[PF] = replace(host.devices[PF], claim_id=holder)  # type: ignore[index]
        made = plan([device(PF), device(VF, instance_id=WEB)], host=host)
        assert differences(made) == {VF: f"claim {holder} holds {PF}"}
        assert list(made.withheld) == [PF]

    def test_a_port_that_is_drained_is_not_drained_again(self) -> None:
        host = known(device(PF), device(VF))
        host.devices[PF] = replace(host.devices[PF], drained_reason="new cable")  # type: ignore[index]
        made = plan([device(PF), device(VF, instance_id=WEB, request_id=None)], host=host)
        assert list(differences(made)) == [VF]
        assert made.withheld == {}
