"""Which VFs a port can be given, and where they will be."""

import json
from dataclasses import replace
from typing import Any

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.config_check import check_device_spec
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.vfs_by_demand import with_vfs_by_demand

PORT = PciDevice(
    PciAddress.parse("0000:81:00.1"),
    DeviceType.PF,
    "8086",
    "10c9",
    total_vfs=7,
    vf_product_id="10ca",
    vf_offset=128,
    vf_stride=2,
)


def vfs(port: PciDevice, **entry: object) -> list[str]:
    specs = DeviceSpecs.parse([json.dumps(entry)])
    return [str(device.address) for device in with_vfs_by_demand([port], specs) if not device.exists]


def test_they_are_where_the_capability_says() -> None:
    assert vfs(PORT, num_vfs="0-3") == ["0000:81:10.1", "0000:81:10.3", "0000:81:10.5"]


def test_they_may_be_on_a_later_bus() -> None:
    far = replace(PORT, vf_offset=384, vf_stride=1)
    assert vfs(far, num_vfs="0-2") == ["0000:82:10.1", "0000:82:10.2"]


def test_a_port_gets_no_more_than_it_can_have() -> None:
    assert len(vfs(PORT, num_vfs="0-64")) == 7


@pytest.mark.parametrize("entry", [{}, {"num_vfs": 7}, {"vendor_id": "15b3", "num_vfs": "0-7"}])
def test_without_a_range_for_the_port_only_those_that_exist_are_offered(entry: dict[str, object]) -> None:
    assert vfs(PORT, **entry) == []


@pytest.mark.parametrize("unknown", [{"vf_offset": 0}, {"vf_product_id": None}])
def test_where_the_kernel_does_not_show_where_they_will_be_none_is_offered(
    unknown: dict[str, Any],
) -> None:
    port = replace(PORT, **unknown)
    assert vfs(port, num_vfs="0-7") == []
    [finding] = check_device_spec(['{"num_vfs": "0-7"}'], [port])
    assert "does not show where they will be" in "; ".join(finding.warnings)


def test_a_vf_is_what_it_will_be() -> None:
    [_, vf, *_] = with_vfs_by_demand([PORT], DeviceSpecs.parse(['{"num_vfs": "0-7"}']))
    assert (vf.dev_type, vf.vendor_id, vf.product_id, vf.parent, vf.vf_num, vf.exists) == (
        DeviceType.VF,
        "8086",
        "10ca",
        PORT.address,
        0,
        False,
    )


def test_config_check_knows_them_and_a_number_that_the_card_cannot_have() -> None:
    taken, unknown = check_device_spec(['{"product_id": "10ca"}', '{"num_vfs": "0-64"}'], [PORT])
    assert len(taken.takes) == 7
    assert "0000:81:00.1 can have 7 VFs, and num_vfs says 64: it gets as many" in unknown.warnings
