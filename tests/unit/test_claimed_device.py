"""What an answer says of a claim's devices, and the XML that is made of it."""

import json
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import pytest

from portclaim.common.errors import InvalidRequest
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.claim_xml import hostdev_xml
from portclaim.common.rpc.claimed_device import ClaimedDevice

CLAIM = UUID("5a3c1d70-0a61-4f7e-9d0c-2f2f6a0c9b11")
FROM_AN_OLD_SERVICE: dict[str, Any] = {
    "address": "0000:81:02.0",
    "dev_type": "type-VF",
    "vendor_id": "8086",
    "product_id": "154c",
    "numa_node": 0,
    "parent_address": "0000:81:00.0",
    "status": "claimed",
    "request_index": 0,
}
FROM_THE_DATABASE = FROM_AN_OLD_SERVICE | {
    "tags": {"physical_network": "physnet1"},
    "trusted": None,
    "vf_num": 0,
    "pf_mac_address": "02:00:00:00:00:01",
    "pf_netdev": "ens1f0",
    "card_serial_number": "MT2113X00001",
}


def claim(status: str, *addresses: str) -> Claim:
    return Claim(
        claim_id=CLAIM,
        instance_id=UUID(int=1),
        host="compute-7",
        status=status,
        reason=None,
        step=1,
        created_at="2026-03-02T09:00:00+00:00",
        updated_at="2026-03-02T09:00:00+00:00",
        devices=[
            ClaimedDevice.model_validate(FROM_AN_OLD_SERVICE | {"address": address}) for address in addresses
        ],
    )


class TestBindingProfile:
    def test_it_is_made_of_the_facts_from_the_database(self) -> None:
        device = ClaimedDevice.model_validate_json(json.dumps(FROM_THE_DATABASE))
        assert device.binding_profile == {
            "pci_slot": "0000:81:02.0",
            "pci_vendor_info": "8086:154c",
            "physical_network": "physnet1",
            "card_serial_number": "MT2113X00001",
            "pf_mac_address": "02:00:00:00:00:01",
            "vf_num": 0,
        }

    def test_a_caller_reads_it_as_the_service_has_made_it(self) -> None:
        device = ClaimedDevice.model_validate_json(json.dumps(FROM_THE_DATABASE))
        sent = device.model_dump(mode="json")
        assert ClaimedDevice.model_validate(sent) == device
        later = sent | {"binding_profile": {"pci_slot": "elsewhere"}}
        assert ClaimedDevice.model_validate(later).binding_profile == {"pci_slot": "elsewhere"}

    def test_an_old_service_gives_no_profile_because_the_network_is_unknown(self) -> None:
        device = ClaimedDevice.model_validate(FROM_AN_OLD_SERVICE)
        assert device.binding_profile == {}
        assert (device.tags, device.trusted, device.vf_num) == ({}, None, None)
        assert (device.pf_mac_address, device.pf_netdev, device.card_serial_number) == (None, None, None)


class TestHostdevXml:
    @pytest.mark.parametrize("status", ["claimed", "prepared", "allocated"])
    def test_each_device_has_an_element_with_an_alias_that_names_the_claim(self, status: str) -> None:
        elements = hostdev_xml(claim(status, "0000:81:02.0", "0000:81:02.1"))
        assert [ET.fromstring(element).find("alias").get("name") for element in elements] == [  # type: ignore[union-attr]
            f"ua-portclaim-{CLAIM}-0000-81-02-0",
            f"ua-portclaim-{CLAIM}-0000-81-02-1",
        ]

    @pytest.mark.parametrize(("managed", "word"), [(True, "yes"), (False, "no")])
    def test_the_caller_says_whether_libvirt_binds_the_drivers(self, managed: bool, word: str) -> None:
        [element] = hostdev_xml(claim("prepared", "0000:81:02.0"), managed)
        assert ET.fromstring(element).get("managed") == word

    def test_a_claim_that_waits_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match=f"claim {CLAIM} is waiting: it has no devices to give"):
            hostdev_xml(claim("waiting"))

    @pytest.mark.parametrize("status", ["releasing", "released", "failed", "expired"])
    def test_a_claim_that_has_given_its_devices_up_is_refused(self, status: str) -> None:
        with pytest.raises(InvalidRequest, match=f"claim {CLAIM} is {status}"):
            hostdev_xml(claim(status, "0000:81:02.0"))
