"""A VF is lent with the network settings that its claim asks for, and restored as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.network_settings import VfSettings, Vlan
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vf_link import NothingKept, PortSettings
from tests.unit.compute_agent.handovers import (
    FACTORY,
    FRESH,
    CardLinks,
    SimulatedKernel,
    at_once,
    settings_of,
)

MakeStep = Callable[..., Step]
Build = Callable[..., Handover]
PF, VF, VF2, ACCELERATOR = (
    PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:03:00.0")
)
MAC = "52:54:00:00:00:01"
TENANT = VfSettings(MAC, Vlan(100, 3), 10, 1000, "enable", trust=True, spoofchk=False)
ASKED: dict[str, Any] = {
    "mac": MAC,
    "vlan": {"id": 100, "qos": 3},
    "min_tx_rate": 10,
    "max_tx_rate": 1000,
    "link_state": "enable",
    "trust": True,
    "spoofchk": False,
}


@pytest.fixture
def card() -> CardLinks:
    return CardLinks()


@pytest.fixture
def kernel(host: SimulatedTree) -> SimulatedKernel:
    return SimulatedKernel(host)


@pytest.fixture
def build(
    host: SimulatedTree, scanner: Scanner, kernel: SimulatedKernel, state_path: Path, card: CardLinks
) -> Iterator[Build]:
    """Makes the Handover of an agent that starts, for the first time or after it was killed."""
    built: list[Handover] = []

    def build(*device_spec: dict[str, Any], enabled: bool = True) -> Handover:
        texts = [json.dumps(entry) for entry in device_spec]
        restorer = Restorer(kernel, scanner, texts, None, 1.0, at_once)
        network = settings_of(host, scanner, restorer, card, enabled=enabled)
        handover = Handover(SysfsTree(host.root), scanner, kernel, restorer, network)
        handover.start(state_path)
        built.append(handover)
        return handover

    yield build
    for handover in built:
        handover.stop()


@pytest.fixture
def handover(build: Build) -> Handover:
    return build()


@pytest.fixture
def place(scanner: Scanner) -> tuple[str, int]:
    """Where the card keeps the settings of VF."""
    pf = scanner.look(PF)
    assert pf is not None
    assert pf.netdev is not None
    return pf.netdev, 0


@pytest.fixture
def ask(make_step: MakeStep) -> Callable[..., Step]:
    """Makes a step that has these settings for VF."""

    def ask(
        *, address: PciAddress = VF, claim_id: UUID | None = None, step: int = 1, **settings: Any
    ) -> Step:
        made = make_step("attach", str(address), claim_id=claim_id, step=step)
        if not settings:
            return made
        message = NetworkSettings.model_validate(settings)
        devices = [made.devices[0].model_copy(update={"network_settings": message})]
        return made.model_copy(update={"devices": devices})

    return ask


class TestLend:
    def test_a_vf_gets_what_its_claim_asks_for(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(**ASKED), VF)
        assert card.vfs == {place: TENANT}

    def test_each_vf_of_a_claim_gets_its_own(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(mac=MAC), VF)
        handover.hand_over(ask(address=VF2, mac="52:54:00:00:00:02"), VF2)
        assert [card.read(place[0], number).mac for number in (0, 1)] == [MAC, "52:54:00:00:00:02"]

    def test_what_was_left_on_it_does_not_reach_a_claim_that_asks_for_nothing(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        card.vfs[place] = TENANT
        handover.hand_over(ask(), VF)
        shown = card.vfs[place]
        assert (shown.vlan, shown.trust, shown.spoofchk) == (Vlan(), False, True)
        assert (shown.min_tx_rate, shown.max_tx_rate) == (0, 0)

    def test_nothing_is_written_that_is_so_already(
        self, handover: Handover, card: CardLinks, ask: Callable[..., Step]
    ) -> None:
        step = ask(mac=MAC)
        handover.hand_over(step, VF)
        handover.hand_over(step, VF)
        handover.take_back(VF)
        assert [write.split()[2] for write in card.writes] == ["mac", "mac"]  # there and back

    def test_its_device_spec_entry_may_say_otherwise(
        self, build: Build, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        card.vfs[place] = VfSettings(mac=MAC, vlan=Vlan(9), trust=False, spoofchk=False)
        entry = {"vf_defaults": {"trust": "yes", "vlan": None, "spoofchk": False}}
        build(entry).hand_over(ask(), VF)
        assert card.vfs[place] == VfSettings(mac=MAC, vlan=Vlan(9), trust=True, spoofchk=False)

    @pytest.mark.parametrize("rates", [(0, 100), (10, 0), (10, 100), (0, 0)])
    def test_one_rate_changes_without_the_other(
        self,
        handover: Handover,
        card: CardLinks,
        place: tuple[str, int],
        ask: Callable[..., Step],
        rates: tuple[int, int],
    ) -> None:
        left = card.vfs[place] = replace(FRESH, min_tx_rate=0, max_tx_rate=100)
        step = ask(min_tx_rate=rates[0], max_tx_rate=rates[1])
        handover.hand_over(step, VF)
        shown = card.vfs[place]
        assert (shown.min_tx_rate, shown.max_tx_rate) == rates
        handover.take_back(VF)
        assert card.vfs == {place: left}

    def test_each_setting_that_the_driver_does_not_set_is_told_and_nothing_stays(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        card.refused, card.ignored = {"link_state"}, {"trust"}
        with pytest.raises(DriverError) as error:
            handover.hand_over(ask(**ASKED), VF)
        assert str(error.value) == (
            f"{VF} cannot get its network settings from i40e, the driver of its PF: link_state enable: "
            "Operation not supported; trust on: it was set, but reads back as False"
        )
        handover.take_back(VF)  # as after every step that fails
        assert card.vfs == {place: FRESH}

    def test_what_the_driver_does_not_show_is_missed_only_if_it_is_asked_for(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        card.vfs[place] = VfSettings(mac=FRESH.mac)
        card.ignored = {"spoofchk"}
        handover.hand_over(ask(), VF)
        assert card.writes == []
        handover.take_back(VF)
        with pytest.raises(DriverError, match="spoofchk on: it was set, but reads back as None"):
            handover.hand_over(ask(spoofchk=True), VF)

    def test_a_driver_that_keeps_no_settings_is_missed_only_if_some_are_asked_for(
        self,
        handover: Handover,
        card: CardLinks,
        ask: Callable[..., Step],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def read(netdev: str, vf: int) -> VfSettings:
            raise NothingKept(f"{netdev} does not show VF {vf}: its driver keeps no settings of VFs")

        monkeypatch.setattr(card, "read", read)
        handover.hand_over(ask(), VF)
        handover.take_back(VF)
        assert handover.problems() == {}
        with pytest.raises(DriverError, match="its driver keeps no settings of VFs"):
            handover.hand_over(ask(mac=MAC), VF)

    def test_a_vf_that_a_guest_has_is_not_touched(
        self,
        handover: Handover,
        kernel: SimulatedKernel,
        card: CardLinks,
        place: tuple[str, int],
        ask: Callable[..., Step],
    ) -> None:
        step = ask(trust=True)
        handover.hand_over(step, VF)
        kernel.opened.add(VF)
        card.vfs[place] = TENANT  # a trusted guest changes its MAC itself
        handover.hand_over(step, VF)
        assert card.vfs == {place: TENANT}

    def test_an_mtu_is_none_of_a_vf(self, handover: Handover, ask: Callable[..., Step]) -> None:
        with pytest.raises(DriverError, match="mtu is a setting of PFs"):
            handover.hand_over(ask(mtu=9000), VF)

    def test_other_devices_have_no_settings(
        self, handover: Handover, card: CardLinks, ask: Callable[..., Step]
    ) -> None:
        with pytest.raises(DriverError, match=f"{ACCELERATOR} is no VF of a network card"):
            handover.hand_over(ask(address=ACCELERATOR, mac=MAC), ACCELERATOR)
        handover.take_back(ACCELERATOR)
        handover.hand_over(ask(address=ACCELERATOR), ACCELERATOR)
        assert card.vfs == {}

    def test_where_it_is_switched_off_a_claim_that_asks_is_refused(
        self, build: Build, card: CardLinks, ask: Callable[..., Step]
    ) -> None:
        handover = build(enabled=False)
        with pytest.raises(DriverError, match=r"\[handover\] network_settings is off on this host"):
            handover.hand_over(ask(mac=MAC), VF)
        handover.take_back(VF)
        handover.hand_over(ask(), VF)
        assert card.vfs == {}


class TestTakeBack:
    def test_all_is_as_it_was_before_the_claim(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        before = card.vfs[place] = VfSettings(
            "02:00:00:00:00:09", Vlan(7, 0, "802.1ad"), 0, 50, "auto", True, True
        )
        handover.hand_over(ask(**ASKED), VF)
        handover.take_back(VF)
        assert card.vfs == {place: before}

    def test_a_mac_that_the_guest_has_set_does_not_stay(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(trust=True), VF)
        card.vfs[place] = TENANT
        handover.take_back(VF)
        assert card.vfs == {place: FRESH}

    @pytest.mark.parametrize("silently", [False, True])
    def test_a_driver_that_forgets_no_mac_gets_another_one(
        self,
        handover: Handover,
        card: CardLinks,
        place: tuple[str, int],
        ask: Callable[..., Step],
        silently: bool,
    ) -> None:
        card.keeps_macs = "silently" if silently else "and says so"
        handover.hand_over(ask(mac=MAC), VF)
        handover.take_back(VF)
        mac = card.vfs[place].mac
        assert mac not in {None, MAC, FRESH.mac}
        assert int(str(mac)[:2], 16) & 3 == 2  # locally administered, of one interface
        assert handover.problems() == {}

    def test_it_is_restored_before_its_own_driver_gets_it(
        self, handover: Handover, kernel: SimulatedKernel, card: CardLinks, ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(mac=MAC), VF)
        card.before_write = lambda: kernel.calls.append("write")
        kernel.calls.clear()
        handover.take_back(VF)
        assert kernel.calls == ["write", f"return_to_driver {VF}"]

    def test_a_vf_that_cannot_be_restored_is_not_offered_and_tried_again(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        step = ask(vlan={"id": 5})
        handover.hand_over(step, VF)
        card.refused = {"vlan"}
        handover.take_back(VF)
        assert handover.problems()[VF].endswith(
            f"{VF} still has network settings of claim {step.claim_id}: no vlan: Operation not supported"
        )
        card.refused.clear()
        handover.take_back(VF)
        assert (handover.problems(), card.vfs) == ({}, {place: FRESH})

    def test_a_claim_that_comes_before_it_is_restored_gets_nothing_of_the_last_one(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(vlan={"id": 5}), VF)
        card.refused = {"vlan"}
        handover.take_back(VF)
        card.refused.clear()
        handover.hand_over(ask(), VF)
        assert card.vfs == {place: FRESH}
        handover.take_back(VF)
        assert card.vfs == {place: FRESH}

    def test_a_late_step_of_the_claim_changes_nothing(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        claim_id = uuid4()
        handover.hand_over(ask(claim_id=claim_id, step=3, mac=MAC), VF)
        with pytest.raises(DriverError, match="comes too late"):
            handover.hand_over(ask(claim_id=claim_id, step=2, mac="52:54:00:00:00:02"), VF)
        assert card.vfs[place].mac == MAC

    def test_vfs_that_went_with_their_port_are_not_restored(
        self, handover: Handover, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        handover.hand_over(ask(vlan={"id": 5}), VF)
        card.refused = {"vlan"}
        handover.take_back(VF)
        handover.hand_over(ask(address=PF), PF)
        card.vfs.clear()  # as the driver makes them anew
        card.refused.clear()
        handover.take_back(PF)
        left = card.vfs[place] = VfSettings(mac=MAC, vlan=Vlan(8), spoofchk=True)
        handover.hand_over(ask(), VF)
        handover.take_back(VF)
        assert card.vfs[place] == left

    def test_what_was_set_before_it_was_switched_off_is_restored(
        self, build: Build, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        build().hand_over(ask(**ASKED), VF)
        build(enabled=False).take_back(VF)
        assert card.vfs == {place: FRESH}

    def test_a_vf_that_is_made_anew_meanwhile_gets_the_settings_again(
        self, build: Build, card: CardLinks, place: tuple[str, int], ask: Callable[..., Step]
    ) -> None:
        build().hand_over(ask(**ASKED), VF)
        card.vfs.clear()  # the host was started again
        build()
        assert card.vfs == {place: TENANT}

    def test_under_a_guest_all_but_its_mac_is_set_again(
        self,
        build: Build,
        kernel: SimulatedKernel,
        card: CardLinks,
        place: tuple[str, int],
        ask: Callable[..., Step],
    ) -> None:
        build().hand_over(ask(**ASKED), VF)
        kernel.opened.add(VF)
        for mac in ("02:00:00:00:00:07", FRESH.mac):  # the guest's choice; or the VF is a new one
            card.vfs[place] = replace(FRESH, mac=mac)
            build()
            assert card.vfs == {place: replace(TENANT, mac=mac if mac != FRESH.mac else MAC)}
        kernel.opened.clear()

    def test_a_vf_that_was_taken_over_with_its_guest_is_given_back_with_the_defaults(
        self,
        handover: Handover,
        kernel: SimulatedKernel,
        card: CardLinks,
        place: tuple[str, int],
        ask: Callable[..., Step],
    ) -> None:
        card.vfs[place] = TENANT  # Nova has set it
        kernel.opened.add(VF)
        handover.adopt(ask(), VF)
        assert card.vfs == {place: TENANT}
        kernel.opened.clear()
        handover.take_back(VF)
        assert card.vfs == {place: replace(FRESH, link_state="enable")}


class TestPort:
    """A PF that goes to a guest: only what its card keeps gets there."""

    WANTED = PortSettings(MAC, 9000)

    @pytest.fixture
    def netdev(self, place: tuple[str, int]) -> str:
        return place[0]

    @pytest.fixture
    def step(self, ask: Callable[..., Step]) -> Step:
        return ask(address=PF, mac=MAC, mtu=9000)

    def test_what_the_card_keeps_goes_to_the_guest_and_is_restored_afterwards(
        self, handover: Handover, kernel: SimulatedKernel, card: CardLinks, netdev: str, step: Step
    ) -> None:
        handover.hand_over(step, PF)
        assert card.ports == {netdev: self.WANTED}
        assert kernel.calls == [
            f"set_num_vfs 0 {PF}",
            f"bind_anew {PF}",
            f"bind_to_vfio {PF}",
            f"reset {PF}",
        ]
        handover.hand_over(step, PF)  # sent again
        assert kernel.calls.count(f"bind_anew {PF}") == 1
        handover.take_back(PF)
        assert card.ports == {netdev: FACTORY}
        assert handover.problems() == {}

    def test_what_the_card_forgets_is_told_and_nothing_stays(  # noqa: PLR0917 - fixtures
        self,
        handover: Handover,
        kernel: SimulatedKernel,
        card: CardLinks,
        scanner: Scanner,
        netdev: str,
        step: Step,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        bind_anew = kernel.bind_anew

        def forget(address: PciAddress) -> None:
            bind_anew(address)
            card.ports[netdev] = FACTORY._replace(mtu=9000)

        monkeypatch.setattr(kernel, "bind_anew", forget)
        with pytest.raises(DriverError) as error:
            handover.hand_over(step, PF)
        assert str(error.value) == (
            f"{PF} cannot get its network settings from its driver i40e: mac {MAC}: it was set, but does not "
            "stay when the PF goes to a guest"
        )
        handover.take_back(PF)
        assert (card.ports, len(scanner.vfs(PF))) == ({netdev: FACTORY}, 4)

    def test_what_the_driver_refuses_is_told_before_anything_is_bound(
        self, handover: Handover, kernel: SimulatedKernel, card: CardLinks, step: Step
    ) -> None:
        card.refused = {"mtu"}
        with pytest.raises(DriverError, match="driver i40e: mtu 9000: Operation not supported"):
            handover.hand_over(step, PF)
        assert kernel.calls == []

    def test_settings_of_vfs_are_none_of_a_pf(self, handover: Handover, ask: Callable[..., Step]) -> None:
        with pytest.raises(DriverError, match="is a PF: trust, vlan are settings of VFs"):
            handover.hand_over(ask(address=PF, trust=True, vlan={"id": 1}), PF)

    def test_an_agent_that_was_killed_makes_sure_again(
        self, build: Build, kernel: SimulatedKernel, card: CardLinks, netdev: str, step: Step
    ) -> None:
        kernel.broken = {"bind_anew"}
        with pytest.raises(DriverError):
            build().hand_over(step, PF)
        kernel.broken.clear()
        successor = build()  # which brings it to vfio-pci
        successor.hand_over(step, PF)
        assert card.ports == {netdev: self.WANTED}
        assert f"bind_anew {PF}" in kernel.calls
        successor.take_back(PF)
        assert card.ports == {netdev: FACTORY}
