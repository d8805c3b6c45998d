"""Resource classes and traits get the names that Nova would give them in Placement."""

from __future__ import annotations

import pytest

from portclaim.common.pci.placement_names import (
    class_name,
    default_class,
    normalised,
    trait_names,
)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("PGPU", "PGPU"),
        ("pgpu", "PGPU"),
        ("GPU_VF", "CUSTOM_GPU_VF"),
        ("CUSTOM_NVME256G", "CUSTOM_NVME256G"),
        ("custom_a16", "CUSTOM_A16"),
        ("vgpu thing / 2", "CUSTOM_VGPU_THING_2"),
        ("CUSTOM_a b", "CUSTOM_A_B"),
        ("a__b", "CUSTOM_A_B"),
        (" ", ""),
    ],
)
def test_a_resource_class(written: str, named: str) -> None:
    assert class_name(written) == named


def test_the_default_class_has_the_ids_in_upper_case() -> None:
    assert default_class("8086", "154c") == "CUSTOM_PCI_8086_154C"


def test_traits_are_a_set_of_names_and_blanks_are_left_out() -> None:
    assert trait_names("HW_NIC_SRIOV, blue,, my-awesome-gpu ,blue") == {
        "HW_NIC_SRIOV",
        "CUSTOM_BLUE",
        "CUSTOM_MY_AWESOME_GPU",
    }
    assert trait_names("hw_nic_sriov,HW_A") == {"CUSTOM_HW_NIC_SRIOV", "CUSTOM_HW_A"}


def test_tags_that_mean_the_same_become_the_same() -> None:
    one = normalised({"resource_class": "gpu", "traits": "b,a", "own": "x"})
    assert one == {"resource_class": "CUSTOM_GPU", "traits": "CUSTOM_A,CUSTOM_B", "own": "x"}
    assert normalised({"traits": "A, B", "resource_class": "CUSTOM_GPU", "own": "x"}) == one
    assert normalised({"resource_class": "", "traits": " , "}) == {}
