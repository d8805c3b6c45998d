"""Aliases, and the requests that flavors make with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import InvalidAlias, InvalidRequest, UnknownAlias
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.common.pci.request import MAX_COUNT, GroupPolicy, NumaPolicy, PciRequest

NIC = {"name": "nic", "vendor_id": "15B3", "product_id": "1018", "device_type": "type-VF"}
QAT = {"name": "qat", "vendor_id": "8086", "product_id": "0435", "numa_policy": "required"}


def aliases(*entries: dict[str, Any]) -> Aliases:
    return Aliases.parse([json.dumps(entry) for entry in entries])


def test_an_extra_spec_asks_for_devices_by_alias() -> None:
    known = aliases(NIC, QAT)
    nic = ({"vendor_id": "15b3", "product_id": "1018", "dev_type": "type-VF"},)
    qat = ({"vendor_id": "8086", "product_id": "0435"},)
    assert known.requests(" nic : 2,qat:007") == (
        PciRequest(2, nic, "nic", NumaPolicy.LEGACY),
        PciRequest(7, qat, "qat", NumaPolicy.REQUIRED),
    )


def test_entries_with_one_name_are_alternatives() -> None:
    other = NIC | {"name": " nic ", "product_id": "101e", "numa_policy": "legacy", "live_migratable": "No"}
    (request,) = aliases(NIC, other).requests("nic:1")
    assert [alternative["product_id"] for alternative in request.spec] == ["1018", "101e"]
    assert request.spec[1]["live_migratable"] == "false"


@pytest.mark.parametrize(
    ("difference", "key"),
    [({"numa_policy": "socket"}, "numa_policy"), ({"device_type": "type-PF"}, "device_type")],
)
def test_entries_with_one_name_must_agree_on_type_and_policy(difference: dict[str, str], key: str) -> None:
    with pytest.raises(InvalidAlias, match=f"^alias 3: {key}: another entry named 'nic' has ") as caught:
        aliases(NIC, QAT, NIC | difference)
    assert (caught.value.entry, caught.value.key) == ("alias 3", key)


def test_the_flavors_numa_policy_overrides_the_aliases() -> None:
    extra_specs = {"pci_passthrough:alias": "qat:1", "hw:pci_numa_affinity_policy": "preferred"}
    asked = requests_from_extra_specs(extra_specs, aliases(QAT))
    assert [request.numa_policy for request in asked.requests] == [NumaPolicy.PREFERRED]


def test_other_extra_specs_are_ignored() -> None:
    asked = requests_from_extra_specs({"hw:cpu_policy": "dedicated", "group_policy": "isolate"}, aliases(QAT))
    assert (asked.requests, asked.group_policy) == ((), GroupPolicy.ISOLATE)
    assert requests_from_extra_specs({}, Aliases({})).group_policy is GroupPolicy.NONE


@pytest.mark.parametrize("key", ["hw:pci_numa_affinity_policy", "group_policy"])
def test_an_invalid_policy_is_refused_with_its_extra_spec(key: str) -> None:
    with pytest.raises(InvalidAlias, match=f"^{key}: 'Strict' is none of") as caught:
        requests_from_extra_specs({key: "Strict"}, aliases(QAT))
    assert caught.value.key == key


@pytest.mark.parametrize(
    "value",
    [
        "",
        "qat",
        "qat:",
        ":",
        "qat:1,",
        "qat:1:1",
        "qat:x",
        "qat:-1",
        "qat:+1",
        "qat:1_0",
        "qat:1.0",
        "qat:\u0661",
    ],
)
def test_an_alias_spec_without_a_valid_count_is_refused(value: str) -> None:
    with pytest.raises(InvalidAlias, match="write name:count"):
        aliases(QAT).requests(value)


@pytest.mark.parametrize("count", ["0", "000", str(MAX_COUNT + 1), "10000", "999999999"])
def test_counts_have_limits(count: str) -> None:
    with pytest.raises(InvalidAlias, match=f"from 1 to {MAX_COUNT} can be asked for"):
        aliases(QAT).requests(f"qat:{count}")
    assert aliases(QAT).requests(f"qat:{MAX_COUNT}")[0].count == MAX_COUNT


def test_an_unknown_alias_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UnknownAlias, match="'nice' is no alias; defined are nic, qat"):
        aliases(QAT, NIC).requests("nice:1")
    with pytest.raises(UnknownAlias, match="defined are none at all"):
        Aliases({}).requests("nic:1")


def test_the_old_key_capability_type_is_ignored() -> None:
    assert aliases(QAT | {"capability_type": "pci"}).requests("qat:1") == aliases(QAT).requests("qat:1")


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"vendor_id": "*"}, "vendor_id"),
        ({"vendor_id": "86"}, "vendor_id"),
        ({"product_id": "0435\n"}, "product_id"),
        ({"product_id": 435}, "product_id"),
        ({"device_type": "vdpa"}, "device_type"),
        ({"numa_policy": ""}, "numa_policy"),
        ({"live_migratable": True}, "live_migratable"),
        ({"live_migratable": "perhaps"}, "live_migratable"),
        ({"capability_type": "PCI"}, "capability_type"),
        ({"trusted": "true"}, "'trusted'"),
        ({"traits": "\0"}, "traits"),
    ],
)
def test_an_invalid_value_is_refused_with_its_entry_and_key(entry: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidAlias) as caught:
        aliases(NIC, QAT | entry)
    assert (caught.value.entry, caught.value.key) == ("alias 2", key)


@pytest.mark.parametrize("key", ["name", "vendor_id", "product_id"])
def test_name_and_ids_are_required(key: str) -> None:
    with pytest.raises(InvalidAlias, match=f"^alias 1: {key}: missing"):
        aliases({one: value for one, value in QAT.items() if one != key} | {"traits": "CUSTOM_QAT"})


def test_a_resource_class_replaces_the_ids() -> None:
    by_class = {"name": "a16", "resource_class": "gpu vf", "traits": "blue, big"}
    assert aliases(by_class).requests("a16:1")[0].spec == (
        {"resource_class": "gpu vf", "traits": "blue, big"},
    )
    with pytest.raises(InvalidAlias, match="an alias needs it, or a resource_class"):
        aliases(by_class | {"resource_class": " "})


def test_with_pci_in_placement_an_alias_asks_for_the_class_of_its_ids() -> None:
    entries = [json.dumps(entry) for entry in (QAT, {"name": "a16", "resource_class": "A16"})]
    known = Aliases.parse(entries, by_class=True)
    assert [request.spec[0]["resource_class"] for request in known.requests("qat:1,a16:1")] == [
        "CUSTOM_PCI_8086_0435",
        "A16",
    ]


@pytest.mark.parametrize("key", ["resource_class", "traits"])
def test_a_name_that_placement_would_not_take_is_refused(key: str) -> None:
    with pytest.raises(InvalidAlias, match=f"^alias 1: {key}: .* is longer than the 255 characters"):
        aliases(QAT | {key: "a" * 249})
    aliases(QAT | {key: "a" * 248})


@pytest.mark.parametrize("text", ["", "{", "true", "[]", "name=nic"])
def test_an_entry_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidAlias, match=r"^alias 1: not (a )?JSON"):
        Aliases.parse([text])


@pytest.mark.parametrize(("count", "spec"), [(0, ({},)), (MAX_COUNT + 1, ({},)), (1, ())])
def test_a_request_needs_a_count_and_alternatives(count: int, spec: tuple[dict[str, str], ...]) -> None:
    with pytest.raises(InvalidRequest):
        PciRequest(count, spec)
