"""An agent that sets network settings is killed between any two of its writes, and started again."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.network_settings import DEFAULTS, VfSettings, Vlan
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.store import LocalStore
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vf_link import PortSettings
from tests.unit.compute_agent.handovers import (
    FACTORY,
    FRESH,
    CardLinks,
    SimulatedKernel,
    at_once,
    settings_of,
)

PF, VF = PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:01:10.0")

macs = st.integers(1, 2**40).map(lambda number: bytes((2, *number.to_bytes(5 + 1)[1:])).hex(":"))
vlans = st.builds(Vlan, st.integers(1, 4094), st.integers(0, 7), st.sampled_from(["802.1Q", "802.1ad"]))
kept = st.builds(
    VfSettings,
    mac=macs | st.just(FRESH.mac),
    vlan=vlans | st.just(Vlan()),
    min_tx_rate=st.just(0),
    max_tx_rate=st.integers(0, 1000),
    link_state=st.sampled_from(["auto", "enable", "disable"]),
    trust=st.booleans(),
    spoofchk=st.booleans(),
)
asked_for = st.fixed_dictionaries(
    {"spoofchk": st.booleans()},
    optional={
        "mac": macs,
        "vlan": st.builds(dict, id=st.integers(1, 4094), qos=st.integers(0, 7)),
        "trust": st.booleans(),
        "link_state": st.sampled_from(["auto", "enable", "disable"]),
        "max_tx_rate": st.integers(0, 1000),
    },
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the agent runs after it."""


class Machine:
    """A host whose agent may be killed before its nth write to the kernel, the card or its own records."""

    def __init__(self, directory: str, before: VfSettings) -> None:
        self._state = Path(directory, "state")
        self._state.mkdir()
        self._tree = build_host(Path(directory, "sys"), HostShape(ports=1, vfs_per_port=2), "node-1")
        self._scanner = Scanner(SysfsTree(self._tree.root))
        self.card = CardLinks()
        pf = self._scanner.look(PF)
        assert pf is not None
        self.place = str(pf.netdev), 0
        self.card.vfs[self.place] = before
        self.card.before_write = self._tick
        self.left = -1

    def _tick(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # its tries to restore devices
            return
        self.left -= 1
        if self.left == -1:
            raise Killed

    @contextmanager
    def agent(self, dies_at: int | None) -> Iterator[Handover]:
        """Start an agent, and stop it; or have it killed."""
        machine = self
        transaction = LocalStore.transaction

        class Kernel(SimulatedKernel):
            def _ask(self, what: str, address: PciAddress) -> None:
                machine._tick()
                super()._ask(what, address)

        @contextmanager
        def dying(store: LocalStore) -> Iterator[Any]:
            machine._tick()
            with transaction(store) as sql:
                yield sql

        kernel = Kernel(self._tree)
        restorer = Restorer(kernel, self._scanner, [], None, 1.0, at_once)
        network = settings_of(self._tree, self._scanner, restorer, self.card, enabled=True)
        handover = Handover(SysfsTree(self._tree.root), self._scanner, kernel, restorer, network)
        handover.start(self._state)
        self.left = -1 if dies_at is None else dies_at
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalStore, "transaction", dying)
            try:
                yield handover
            finally:
                self.left = -1
                handover.stop()

    def vfs(self) -> int:
        return len(self._scanner.vfs(PF))

    def step(self, claim_id: UUID, asked: dict[str, Any] | None, address: PciAddress = VF) -> Step:
        found = self._scanner.look(address)
        assert found is not None
        device = StepDevice(
            address=str(address),
            dev_type="type-VF" if found.parent else "type-PF",
            vendor_id=found.vendor_id,
            product_id=found.product_id,
            parent_address=str(PF) if found.parent else None,
            network_settings=None if asked is None else NetworkSettings.model_validate(asked),
        )
        return Step(claim_id=claim_id, step=1, action="attach", instance_id=uuid4(), devices=[device])

    def dies(self, nth: int, step: Step) -> bool:
        """Is the agent killed before its nth write, while it lends the device and takes it back?"""
        address = PciAddress.parse(step.devices[0].address)
        try:
            with self.agent(nth) as handover:
                handover.hand_over(step, address)
                handover.take_back(address)
        except Killed:
            return True
        return False

    def finish(self, step: Step) -> None:
        """A new agent starts, and the claim is released if it still has the device."""
        address = PciAddress.parse(step.devices[0].address)
        with self.agent(None) as handover:
            row = handover.find(address)
            if row is not None:
                assert row.claim_id == step.claim_id
                handover.take_back(address)
            assert handover.problems() == {}
            assert handover.handed_over() == []


@pytest.mark.parametrize(
    "before", [FRESH, VfSettings("02:00:00:00:00:09", Vlan(7), 0, 50, "auto", True, False)]
)
def test_it_is_killed_before_each_of_its_writes(before: VfSettings) -> None:
    asked = {
        "mac": "52:54:00:00:00:01",
        "vlan": {"id": 100},
        "trust": True,
        "spoofchk": False,
        "max_tx_rate": 5,
    }
    deaths = 0
    while True:
        with tempfile.TemporaryDirectory() as directory:
            machine = Machine(directory, before)
            step = machine.step(uuid4(), asked)
            died = machine.dies(deaths, step)
            if died:
                machine.finish(step)
            assert machine.card.vfs == {machine.place: before}
        if not died:
            break
        deaths += 1
    assert deaths > 15


@pytest.mark.parametrize("begins_again", [False, True])
def test_so_it_is_with_a_pf(begins_again: bool) -> None:
    """``begins_again``: the new agent does the step before the claim is released."""
    asked = {"mac": "52:54:00:00:00:01", "mtu": 9000}
    deaths = 0
    while True:
        with tempfile.TemporaryDirectory() as directory:
            machine = Machine(directory, FRESH)
            step = machine.step(uuid4(), asked, PF)
            died = machine.dies(deaths, step)
            if died and begins_again:
                with machine.agent(None) as handover:
                    handover.hand_over(step, PF)
                    assert set(machine.card.ports.values()) == {PortSettings(*asked.values())}
            machine.finish(step)
            assert set(machine.card.ports.values()) <= {FACTORY}
            assert machine.vfs() == 2
        if not died:
            break
        deaths += 1
    assert deaths > 15


@settings(deadline=None, max_examples=40)
@given(before=kept, first=asked_for, second=asked_for | st.none(), nth=st.integers(0, 40))
def test_what_was_there_is_restored_and_the_next_tenant_gets_only_what_is_its_own(
    before: VfSettings, first: dict[str, Any], second: dict[str, Any] | None, nth: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(directory, before)
        step = machine.step(uuid4(), first)
        machine.dies(nth, step)
        machine.finish(step)
        assert machine.card.vfs == {machine.place: before}
        with machine.agent(None) as handover:
            handover.hand_over(machine.step(uuid4(), second), VF)
            own = NetworkSettings.model_validate(second or {"spoofchk": True})
            shown = machine.card.vfs[machine.place]
            assert shown.mac == (own.mac or before.mac)
            assert shown.trust == bool(own.trust)
            assert shown.spoofchk == own.spoofchk
            assert (shown.vlan or DEFAULTS.vlan).id == (own.vlan.id if own.vlan else 0)
            assert shown.max_tx_rate == (own.max_tx_rate or 0)
            handover.take_back(VF)
        assert machine.card.vfs == {machine.place: before}


def test_an_agent_that_is_killed_again_and_again_ends_where_it_began() -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(directory, FRESH)
        step = machine.step(uuid4(), {"mac": "52:54:00:00:00:01", "trust": True})
        for nth in range(0, 30, 2):
            try:
                machine.dies(nth, step)
            except DriverError:
                continue
        machine.finish(step)
        assert machine.card.vfs == {machine.place: FRESH}
