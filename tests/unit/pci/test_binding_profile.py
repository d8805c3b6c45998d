"""The binding profile of a device has the keys that Nova gives it."""

from dataclasses import replace

import pytest

from portclaim.common.pci.binding_profile import BoundDevice, binding_profile
from portclaim.common.pci.device import DeviceType

VF = BoundDevice(
    dev_type=DeviceType.VF,
    address="0000:81:00.3",
    vendor_id="15b3",
    product_id="1018",
    tags={"physical_network": "physnet1", "trusted": "true"},
    card_serial_number="MT2113X00001",
    pf_mac_address="02:00:00:00:00:01",
    vf_num=1,
)
EVERY_DEVICE = {
    "pci_slot": "0000:81:00.3",
    "pci_vendor_info": "15b3:1018",
    "physical_network": "physnet1",
}
EVERY_TYPE_BUT_VF = [DeviceType.PCI, DeviceType.PF, DeviceType.VDPA]


def test_a_vf_has_the_facts_of_its_card_and_its_pf() -> None:
    assert binding_profile(VF) == EVERY_DEVICE | {
        "card_serial_number": "MT2113X00001",
        "pf_mac_address": "02:00:00:00:00:01",
        "vf_num": 1,
    }


def test_the_first_vf_has_the_number_0() -> None:
    assert binding_profile(replace(VF, vf_num=0))["vf_num"] == 0


def test_a_whole_pf_has_its_mac_as_the_mac_of_the_device() -> None:
    pf = replace(VF, dev_type=DeviceType.PF, vf_num=None)
    assert binding_profile(pf) == EVERY_DEVICE | {"device_mac_address": "02:00:00:00:00:01"}


@pytest.mark.parametrize("dev_type", [DeviceType.PCI, DeviceType.VDPA])
def test_other_devices_have_only_what_every_device_has(dev_type: DeviceType) -> None:
    assert binding_profile(replace(VF, dev_type=dev_type)) == EVERY_DEVICE


@pytest.mark.parametrize("dev_type", list(DeviceType))
def test_the_network_of_a_device_without_that_tag_is_none(dev_type: DeviceType) -> None:
    assert binding_profile(replace(VF, dev_type=dev_type, tags={}))["physical_network"] is None


@pytest.mark.parametrize("unknown", [None, ""])
@pytest.mark.parametrize("fact", ["card_serial_number", "pf_mac_address"])
def test_an_unknown_fact_is_left_out(fact: str, unknown: str | None) -> None:
    assert fact not in binding_profile(replace(VF, **{fact: unknown}))


def test_the_number_of_a_vf_is_left_out_if_an_old_agent_does_not_report_it() -> None:
    profile = binding_profile(replace(VF, vf_num=None))
    assert set(profile) == {*EVERY_DEVICE, "card_serial_number", "pf_mac_address"}


def test_the_number_of_a_vf_is_left_out_without_the_mac_of_its_pf() -> None:
    assert set(binding_profile(replace(VF, pf_mac_address=None))) == {*EVERY_DEVICE, "card_serial_number"}


@pytest.mark.parametrize("dev_type", EVERY_TYPE_BUT_VF)
def test_only_a_vf_has_the_keys_of_a_vf(dev_type: DeviceType) -> None:
    profile = binding_profile(replace(VF, dev_type=dev_type))
    assert not {"card_serial_number", "pf_mac_address", "vf_num"} & set(profile)
