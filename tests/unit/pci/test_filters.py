"""Which devices suit a request: the rules of Nova one by one."""

from __future__ import annotations

import pytest

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import FILTERS, Affinity, Kind, has_ids, satisfies
from portclaim.common.pci.request import NumaPolicy, PciRequest


def kind(dev_type: str = "type-VF", **tags: str) -> Kind:
    return Kind(DeviceType(dev_type), "15b3", "1018", tags)


def request(*spec: dict[str, str | None]) -> PciRequest:
    return PciRequest(1, spec)


def test_one_alternative_is_enough() -> None:
    either = request({"product_id": "101E"}, {"vendor_id": "15B3", "product_id": "1018"})
    assert satisfies(either, kind())
    assert not satisfies(request({"product_id": "101e"}), kind())


@pytest.mark.parametrize(
    ("dev_type", "does"), [("type-PCI", True), ("type-VF", True), ("type-PF", False), ("vdpa", False)]
)
def test_without_a_type_neither_ports_nor_vdpa_devices_are_given(dev_type: str, does: bool) -> None:
    assert satisfies(request({}), kind(dev_type)) == does
    assert satisfies(request({"dev_type": dev_type}), kind(dev_type))


def test_only_the_keys_of_the_request_are_compared_and_case_is_ignored() -> None:
    tagged = kind(physical_network="PhysNet0", trusted="True")
    assert satisfies(request({"physical_network": "physnet0"}), tagged)
    assert satisfies(request({}), tagged)
    assert not satisfies(request({"physical_network": "physnet1"}), tagged)
    assert not satisfies(request({"speed": "fast"}), tagged)


def test_null_asks_for_devices_without_the_tag() -> None:
    assert satisfies(request({"physical_network": None}), kind())
    assert not satisfies(request({"physical_network": None}), kind(physical_network="physnet0"))


def test_a_resource_class_is_compared_as_placement_names_it() -> None:
    gpu = kind(resource_class="gpu vf")
    assert satisfies(request({"resource_class": "CUSTOM_GPU_VF"}), gpu)
    assert satisfies(request({"resource_class": "GPU-VF"}), gpu)
    assert not satisfies(request({"resource_class": "CUSTOM_GPU"}), gpu)
    assert satisfies(request({"resource_class": " pgpu "}), kind(resource_class="PGPU"))
    assert satisfies(request({"resource_class": ""}), gpu)


def test_a_device_without_a_resource_class_is_of_the_class_of_its_ids() -> None:
    plain = kind()
    of_ids = f"CUSTOM_PCI_{plain.vendor_id}_{plain.product_id}".upper()
    assert plain.resource_class == of_ids
    assert satisfies(request({"resource_class": of_ids}), plain)
    assert satisfies(request({"resource_class": None}), plain)
    assert not satisfies(request({"resource_class": of_ids}), kind(resource_class="other"))
    assert not satisfies(request({"resource_class": None}), kind(resource_class="other"))


def test_a_device_needs_all_traits_of_a_request() -> None:
    big = kind(traits="blue,CUSTOM_BIG, HW_GPU_API_VULKAN")
    assert satisfies(request({"traits": "HW_GPU_API_VULKAN , big"}), big)
    assert satisfies(request({"traits": ""}), big)
    assert satisfies(request({}), big)
    assert not satisfies(request({"traits": "big,red"}), big)
    assert not satisfies(request({"traits": "hw_gpu_api_vulkan"}), big)  # Nova's custom trait of that name
    assert not satisfies(request({"traits": "big"}), kind())


def test_the_traits_that_nova_adds_can_be_asked_for() -> None:
    assert satisfies(request({"traits": "HW_PCI_LIVE_MIGRATABLE"}), kind(live_migratable="true"))
    assert not satisfies(request({"traits": "HW_PCI_LIVE_MIGRATABLE"}), kind(live_migratable="false"))
    assert satisfies(request({"traits": "COMPUTE_MANAGED_PCI_DEVICE"}), kind())


def test_a_class_that_no_device_has_is_told_from_tags_that_none_has() -> None:
    gpu = kind(resource_class="gpu", traits="blue")
    assert has_ids(request({"resource_class": "gpu", "traits": "red"}), gpu)
    assert not has_ids(request({"resource_class": "nic"}), gpu)


def test_remotely_managed_devices_are_given_only_to_requests_for_them() -> None:
    remote = kind(remote_managed="True")
    assert satisfies(request({"remote_managed": "true"}), remote)
    assert not satisfies(request({}), remote)
    assert not satisfies(request({"remote_managed": "true"}), kind())


def test_sriov_devices_are_not_remotely_managed_by_default() -> None:
    assert satisfies(request({"remote_managed": "false"}), kind("type-VF"))
    assert not satisfies(request({"remote_managed": "false"}), kind("type-PCI"))


def test_only_devices_with_the_tag_are_live_migratable() -> None:
    assert satisfies(request({"live_migratable": "false"}), kind(live_migratable="false"))
    assert not satisfies(request({"live_migratable": "false"}), kind())
    assert satisfies(request({}), kind(live_migratable="true"))


def test_a_device_must_pass_all_filters() -> None:
    wanted = request({"physical_network": "physnet0"})
    for one in (kind(), kind(physical_network="physnet0"), kind("type-PF", physical_network="physnet0")):
        assert satisfies(wanted, one) == all(does(wanted, one) for does in FILTERS.values())


@pytest.mark.parametrize(
    ("policy", "distances"),
    [
        (NumaPolicy.REQUIRED, (0, None, None, None)),
        (NumaPolicy.SOCKET, (0, 1, None, None)),
        (NumaPolicy.LEGACY, (0, None, None, 1)),
        (NumaPolicy.PREFERRED, (0, 2, 2, 1)),
    ],
)
def test_each_numa_policy_limits_the_distance_of_a_device(
    policy: NumaPolicy, distances: tuple[int | None, ...]
) -> None:
    """In the cell; in another cell of its socket; in another socket; unknown."""
    at_0 = Affinity(frozenset({0}), {0: 0, 1: 0, 2: 1})
    assert tuple(at_0.distance(policy, node) for node in (0, 1, 2, None)) == distances


def test_an_instance_without_cells_takes_devices_from_anywhere() -> None:
    assert {Affinity().distance(policy, node) for policy in NumaPolicy for node in (0, 9, None)} == {0}


def test_sockets_count_only_if_all_are_known() -> None:
    at_0 = Affinity(frozenset({0}), {0: 0, 1: 0, 2: None})
    assert at_0.distance(NumaPolicy.SOCKET, 1) is None
