"""The statuses of a PF and its VFs, in scenarios."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.errors import InvalidTransition, WrongOwner
from portclaim.common.pci.status import HELD, DeviceStatus, DeviceTree, TreeDevice

LETTERS = {
    "available": ".",
    "claimed": "C",
    "allocated": "A",
    "unclaimable": "u",
    "unavailable": "x",
    "removed": "R",
}
PORT = {"pf": TreeDevice(DeviceType.PF), **{f"vf{n}": TreeDevice(DeviceType.VF, "pf") for n in (1, 2, 3)}}
KEYS = tuple(PORT)


def port() -> DeviceTree[str]:
    return DeviceTree(PORT)


def shown(tree: DeviceTree[str]) -> str:
    """One letter for the status of the PF and of each of its three VFs."""
    return "".join(LETTERS[tree.status(key)] for key in KEYS)


def test_a_pf_is_claimed_allocated_and_freed() -> None:
    tree = port()
    tree.claim("pf", "me")
    assert shown(tree) == "Cuuu"
    tree.allocate("pf", "me")
    assert shown(tree) == "Axxx"
    assert tree.free("pf", "me") == set(KEYS)
    assert shown(tree) == "...."


def test_a_pf_is_available_again_when_its_last_vf_is_freed() -> None:
    tree = port()
    tree.claim("vf1", "me")
    tree.claim("vf2", "you")
    tree.allocate("vf1", "me")
    assert shown(tree) == "xAC."
    assert tree.free("vf1") == {"vf1"}
    assert shown(tree) == "x.C."
    assert tree.free("vf2") == {"vf2", "pf"}
    assert shown(tree) == "...."


@pytest.mark.parametrize("key", ["pf", "vf1", "vf2"])
def test_a_held_vf_and_its_pf_cannot_be_claimed_but_other_vfs_can(key: str) -> None:
    tree = port()
    tree.claim("vf1", "me")
    before = shown(tree)
    if key == "vf2":
        tree.claim(key, "you")
        return
    with pytest.raises(InvalidTransition, match=f"^{key} is "):
        tree.claim(key, "you")
    assert shown(tree) == before


def test_only_the_owner_can_allocate_or_free_a_device() -> None:
    tree = port()
    tree.claim("vf1", "me")
    for operation in (tree.allocate, tree.free):
        with pytest.raises(WrongOwner, match="vf1 belongs to me, not to you"):
            operation("vf1", "you")
    assert (shown(tree), tree.owner("vf1")) == ("uC..", "me")


def test_a_removed_device_does_not_affect_its_port() -> None:
    tree = port()
    tree.remove("vf1")
    tree.claim("pf", "me")
    assert shown(tree) == "CRuu"
    with pytest.raises(InvalidTransition):
        tree.remove("pf")


def test_a_vf_whose_pf_is_not_tracked_is_handled_alone() -> None:
    tree = DeviceTree({"vf": TreeDevice(DeviceType.VF, "elsewhere")})
    tree.allocate("vf", "me")
    assert tree.free("vf") == {"vf"}


class PortLife(RuleBasedStateMachine):
    """All operations on a port, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = port()

    @rule(
        operation=st.sampled_from(["claim", "allocate", "free"]),
        key=st.sampled_from(KEYS),
        owner=st.sampled_from(["me", "you"]),
    )
    def ask(self, operation: str, key: str, owner: str) -> None:
        before = shown(self.tree)
        try:
            getattr(self.tree, operation)(key, owner)
        except InvalidTransition:
            assert shown(self.tree) == before

    @precondition(lambda self: self.tree.status("vf3") in (DeviceStatus.AVAILABLE, DeviceStatus.UNCLAIMABLE))
    @rule()
    def unplug(self) -> None:
        self.tree.remove("vf3")

    @invariant()
    def the_port_is_never_given_both_ways(self) -> None:
        held = [key for key in KEYS if self.tree.status(key) in HELD]
        assert held == ["pf"] or "pf" not in held

    @invariant()
    def what_is_held_has_an_owner_and_nothing_else_has(self) -> None:
        assert all((self.tree.owner(key) is not None) == (self.tree.status(key) in HELD) for key in KEYS)

    @invariant()
    def a_free_port_is_free_altogether(self) -> None:
        if self.tree.status("pf") is DeviceStatus.AVAILABLE:
            assert set(shown(self.tree)) <= {".", "R"}


TestPortLife = PortLife.TestCase
