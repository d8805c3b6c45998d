"""Which devices an entry of device_spec matches, and which entries are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import DeviceOutOfReach, InvalidDeviceSpec
from portclaim.common.pci.host import HostView
from portclaim.common.pci.network_settings import VfSettings, Vlan
from tests.unit.pci.support import PORT, at, card, pf, vf


def takes(entry: Any, device: PciDevice, host: HostView = PORT) -> bool:
    return DeviceSpecs.parse([json.dumps(entry)], host).match(device, host) is not None


def refused(*entries: Any, host: HostView = PORT) -> InvalidDeviceSpec:
    with pytest.raises(InvalidDeviceSpec) as caught:
        DeviceSpecs.parse([entry if isinstance(entry, str) else json.dumps(entry) for entry in entries], host)
    return caught.value


def test_one_entry_for_a_port_matches_its_pf_and_its_vfs() -> None:
    entry = {"address": "0000:81:00.0"}
    assert takes(entry, pf())
    assert takes(entry, vf())
    assert not takes(entry, vf(parent="0000:82:00.0"))


@pytest.mark.parametrize(
    "address", ["*:81:00.0", "81:00.0", "0000:81:00.*", {"bus": "81", "slot": "00", "function": "0"}]
)
def test_an_address_with_a_wildcard_or_pattern_does_not_match_the_vfs_of_a_port(address: object) -> None:
    assert takes({"address": address}, pf())
    assert not takes({"address": address}, vf("0000:81:01.2"))


def test_patterns_without_special_characters_match_the_vfs_of_a_port() -> None:
    entry = {"address": {"domain": "0000", "bus": "81", "slot": "00", "function": "0"}}
    assert takes(entry, vf("0000:81:01.2"))


@pytest.mark.parametrize(
    ("address", "taken", "left"),
    [
        ("0a", "0000:81:0a.0", "0000:0a:00.0"),
        ("0a:00", "1234:0a:00.7", "0000:0b:00.0"),
        ("0a:00.5", "1234:0a:00.5", "1234:0a:00.6"),
        (".5", "0000:81:0a.5", "0000:81:0a.4"),
        (":0a:", "1234:0a:1f.7", "0000:0b:00.0"),
        ("::1F.", "1234:0a:1f.7", "0000:1f:00.0"),
        (" 0 :  : * . 5", "0000:0a:1f.5", "0001:0a:1f.5"),
    ],
)
def test_partial_addresses_fill_from_the_right(address: str, taken: str, left: str) -> None:
    assert takes({"address": address}, card(taken))
    assert not takes({"address": address}, card(left))


@pytest.mark.parametrize("address", ["", " ", ":", "::", ".", "*", "*:*:*.*", "*.", None])
def test_a_blank_address_matches_any_device(address: str | None) -> None:
    assert takes({"address": address}, card())


def test_patterns_are_anchored_at_the_start_only_and_match_lower_case() -> None:
    device = card("0000:0a:00.5")
    assert takes({"address": {"bus": "0"}}, device)
    assert not takes({"address": {"bus": "a"}}, device)
    assert not takes({"address": {"bus": "0A"}}, device)
    assert takes({"address": {"bus": "(?i)0A", "function": "[4-7]"}}, device)


def test_devname_follows_a_renamed_interface() -> None:
    specs = DeviceSpecs.parse(['{"devname": "ens1f0"}'], PORT)
    assert specs.match(vf(), PORT)
    renamed = HostView.of([pf(netdev="uplink0"), pf("0000:82:00.0", netdev="ens1f0")])
    assert specs.match(vf(), renamed) is None
    assert specs.match(vf("0000:82:00.2", parent="0000:82:00.0"), renamed)


def test_the_interface_of_a_vf_matches_only_this_vf() -> None:
    host = HostView.of([pf(), vf(netdev="ens1f0v0")])
    assert takes({"devname": "ens1f0v0"}, vf(), host)
    assert not takes({"devname": "ens1f0v0"}, vf("0000:81:00.3"), host)


def test_a_port_that_is_plugged_in_later_is_matched_from_then_on() -> None:
    specs = DeviceSpecs.parse(['{"address": "0000:81:00.0"}'])
    assert specs.match(vf()) is None
    assert specs.seen_from(PORT).match(vf())


def test_the_first_matching_entry_gives_the_tags() -> None:
    entries = [
        '{"address": "0000:82:00.0", "physical_network": "other"}',
        '[{"product_id": "1017", "physical_network": "whole"}, {"vendor_id": "15B3", "trusted": "true"}]',
        "{}",
    ]
    specs = DeviceSpecs.parse(entries, PORT)
    found = [specs.match(device) for device in (pf(), vf(), card())]
    assert [match and (match.entry, dict(match.tags)) for match in found] == [
        (1, {"physical_network": "whole"}),
        (2, {"trusted": "true"}),
        (3, {}),
    ]
    assert [spec.source for spec in specs.specs] == [
        "device_spec 1",
        "device_spec 2, item 1",
        "device_spec 2, item 2",
        "device_spec 3",
    ]


def test_tags_become_text_and_null_is_not_a_tag() -> None:
    entry = {
        "trusted": True,
        "managed": "No",
        "live_migratable": 1,
        "speed": 25,
        "physical_network": None,
        "VENDOR_ID": "x",
    }
    match = DeviceSpecs.parse([json.dumps(entry)]).match(card())
    assert match is not None
    assert match.tags == {
        "trusted": "true",
        "managed": "false",
        "live_migratable": "true",
        "speed": "25",
        "VENDOR_ID": "x",
    }


def test_a_card_that_is_not_reconfigurable_offers_no_pf_that_has_vfs() -> None:
    spec = DeviceSpecs.parse(['{"reconfigurable": "no", "num_vfs": 4}']).specs[0]
    assert (spec.tags, spec.num_vfs) == ({}, 4)
    assert spec.offers(vf())
    assert spec.offers(pf(num_vfs=0))
    assert not spec.offers(pf(num_vfs=4))


def test_an_entry_says_with_which_network_settings_its_vfs_are_given_out() -> None:
    usual = VfSettings(vlan=Vlan(), min_tx_rate=0, max_tx_rate=0, trust=False, spoofchk=True)
    for defaults, wanted in (
        ("null", usual),
        ("{}", usual),
        ('{"trust": "on", "spoofchk": null}', replace(usual, trust=True, spoofchk=None)),
        ('{"vlan": 12, "max_tx_rate": 100}', replace(usual, vlan=Vlan(12), max_tx_rate=100)),
        (
            '{"vlan": {"id": 12, "qos": 5, "protocol": "802.1ad"}}',
            replace(usual, vlan=Vlan(12, 5, "802.1ad")),
        ),
    ):
        spec = DeviceSpecs.parse([f'{{"vf_defaults": {defaults}}}']).specs[0]
        assert (spec.tags, spec.vf_defaults) == ({}, wanted)


def test_remotely_managed_devices_need_a_serial_number() -> None:
    entry = {"product_id": "1018", "address": "0000:81:00.0", "remote_managed": "true"}
    assert takes(entry, vf(serial="MT2113X00001"))
    assert not takes(entry, vf(serial=""))


def test_the_serial_number_of_a_vf_may_stand_in_the_vpd_of_its_pf() -> None:
    entry = json.dumps({"product_id": "1018", "remote_managed": "true"})
    for serial, taken in ((None, False), ("MT2113X00000", True)):
        host = HostView.of([pf(serial=serial)])
        assert (DeviceSpecs.parse([entry], host).match(vf(), host) is not None) is taken


@pytest.mark.parametrize("entry", [{"product_id": "1017"}, {"product_id": "1572"}, {}])
def test_remote_managed_is_refused_for_a_pf(entry: dict[str, str]) -> None:
    for place in ({"address": "0000:81:00.0"}, {"devname": "ens1f0"}):
        assert refused(entry | place | {"remote_managed": "true"}).key == "remote_managed"


def test_a_device_with_a_domain_beyond_16_bits_is_an_error() -> None:
    specs = DeviceSpecs.parse(["{}"])
    with pytest.raises(DeviceOutOfReach, match=r"10000:00:00\.0"):
        specs.match(card("10000:00:00.0"))


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"vendor_id": "0x8086"}, "vendor_id"),
        ({"vendor_id": None}, "vendor_id"),
        ({"product_id": " 0435"}, "product_id"),
        ({"product_id": "80_86"}, "product_id"),
        ({"product_id": "10000"}, "product_id"),
        ({"address": []}, "address"),
        ({"address": {}}, "address"),
        ({"address": 0}, "address"),
        ({"address": {"Bus": "81"}}, "address"),
        ({"address": {"bus": 81}}, "address"),
        ({"address": {"bus": "("}}, "address"),
        ({"address": {"bus": "(|||||||||){20}"}}, "address"),
        ({"address": "0000:81:0*.0"}, "address"),
        ({"address": "0000:81:20.0"}, "address"),
        ({"address": "0000:81:00.8"}, "address"),
        ({"address": "0:0000:81:00.0"}, "address"),
        ({"address": "10000:81:00.0"}, "address"),
        ({"devname": 5}, "devname"),
        ({"devname": "ens1f0", "address": "*"}, "devname"),
        ({"managed": "perhaps"}, "managed"),
        ({"one_time_use": "yes"}, "one_time_use"),
        ({"reconfigurable": "never"}, "reconfigurable"),
        ({"num_vfs": -1}, "num_vfs"),
        ({"num_vfs": 65536}, "num_vfs"),
        ({"num_vfs": "0-65536"}, "num_vfs"),
        ({"num_vfs": "8-8"}, "num_vfs"),
        ({"num_vfs": "8-0"}, "num_vfs"),
        ({"num_vfs": "0-8-9"}, "num_vfs"),
        ({"num_vfs": "-8"}, "num_vfs"),
        ({"num_vfs": "0-8", "reconfigurable": "no"}, "num_vfs"),
        ({"vf_defaults": "on"}, "vf_defaults"),
        ({"vf_defaults": {"mac": "52:54:00:00:00:01"}}, "vf_defaults"),
        ({"vf_defaults": {"trust": "perhaps"}}, "vf_defaults"),
        ({"vf_defaults": {"vlan": 4095}}, "vf_defaults"),
        ({"vf_defaults": {"vlan": {"qos": 1}}}, "vf_defaults"),
        ({"vf_defaults": {"vlan": {"id": 1, "protocol": "802.1x"}}}, "vf_defaults"),
        ({"vf_defaults": {"link_state": True}}, "vf_defaults"),
        ({"vf_defaults": {"max_tx_rate": -1}}, "vf_defaults"),
        ({"vf_defaults": {"min_tx_rate": 20, "max_tx_rate": 10}}, "vf_defaults"),
        ({"network_settings": "true"}, "network_settings"),
        ({"physical_network": "a\0b"}, "'physical_network'"),
        ({"physical_network": "\ud800"}, "'physical_network'"),
    ],
)
def test_an_invalid_value_is_refused_with_its_entry_and_key(entry: dict[str, Any], key: str) -> None:
    error = refused("{}", [{}, entry])
    assert (error.entry, error.key) == ("device_spec 2, item 2", key)
    assert str(error).startswith(f"device_spec 2, item 2: {key}: ")


@pytest.mark.parametrize("text", ["", "{", "'x'", "5", '"x"', "null", "[[]]", "[" * 100_000, "[5]"])
def test_an_entry_that_is_not_an_object_is_refused(text: str) -> None:
    assert str(refused("{}", text)).startswith("device_spec 2")


def test_an_interface_with_a_domain_beyond_16_bits_is_refused_at_the_start() -> None:
    host = HostView(netdevs={"vmd0": at("10000:00:00.0")})
    assert refused({"devname": "vmd0"}, host=host).key == "devname"
