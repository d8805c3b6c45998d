"""Whatever happens in whatever order: the number of a port's VFs never changes under anybody who has one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.routing import vf_addresses
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.real_ports import RealPorts
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import PORT, PORT_VF, VF_OFFSET, VF_STRIDE
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vfs_by_demand import VfsByDemand
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once, settings_of

PORTS = [PciAddress.parse("0000:01:00.0")]
VFS = {port: vf_addresses(port, VF_OFFSET, VF_STRIDE, 3) for port in PORTS}
DEVICES = [address for port in PORTS for address in (port, *VFS[port])]
SPECS = ['{"num_vfs": "0-3"}', '{"num_vfs": "1-3"}', '{"num_vfs": "0-2"}', '{"num_vfs": 3}']
IDLE = 300.0


def port_of(address: PciAddress) -> PciAddress:
    return next(port for port in PORTS if address in {port, *VFS[port]})


class Kernel(SimulatedKernel):
    """Notes each change of a number of VFs that takes a VF from vfio-pci, or the port itself."""

    disturbed: list[str]

    def set_num_vfs(self, pf: PciAddress, count: int) -> None:
        users = [vf for vf in (pf, *VFS[pf]) if self.is_on_vfio(vf)]
        if users:
            self.disturbed.append(f"{pf} got {count} VFs while {users} were in use")
        super().set_num_vfs(pf, count)


class Host(RuleBasedStateMachine):
    """A host and its agent. ``claims``: what callers hold, as the agent has told them."""

    @initialize(spec=st.sampled_from(SPECS), num_vfs=st.integers(0, 3))
    def build(self, spec: str, num_vfs: int) -> None:
        self._directory = tempfile.TemporaryDirectory()
        root = Path(self._directory.name)
        self.state = root / "state"
        self.state.mkdir()
        self.tree = build_host(root / "sys", HostShape(ports=1, vfs_per_port=3, num_vfs=num_vfs), "node-1")
        self.scanner = Scanner(SysfsTree(self.tree.root))
        self.kernel = Kernel(self.tree)
        self.kernel.disturbed = []
        self.now = 0.0
        self.claims: dict[PciAddress, Step] = {}
        self.missing: set[PciAddress] = set()
        self.spec = [spec]
        self._start()

    def _start(self) -> None:
        tree = SysfsTree(self.tree.root)
        self.restorer = Restorer(self.kernel, self.scanner, self.spec, None, 1.0, at_once)
        network = settings_of(self.tree, self.scanner, self.restorer, enabled=False)
        self.handover = Handover(tree, self.scanner, self.kernel, self.restorer, network)
        ports = RealPorts(tree, self.scanner, self.kernel, self.restorer, self.handover)
        self.by_demand = VfsByDemand(self.scanner, ports, self.spec)
        self.handover.make_vf = lambda row: self.by_demand.make_again(row.parent, row.address)
        self.handover.start(self.state)

    @rule(address=st.sampled_from(DEVICES))
    def claim(self, address: PciAddress) -> None:
        """It gets the device if the database would give it and the agent reports it as usable."""
        port = port_of(address)
        tree = {port, *VFS[port]}
        conflicting = {port, address} if address != port else tree
        if not conflicting.isdisjoint(self.claims):
            return
        reported = self.by_demand.completed(self.scanner.scan(), self.handover.problems())
        offered = {device.address for device in reported.scan.devices} - reported.held_back.keys()
        step = _step(address, port)
        try:
            with self.by_demand.providing(step.devices[0]):
                self.handover.hand_over(step, address)
        except DriverError:
            assert address not in offered, f"{address} was offered, and could not be had"
            self.handover.take_back(address)
        else:
            self.claims[address] = step

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        if self.claims:
            address = data.draw(st.sampled_from(sorted(self.claims)))
            del self.claims[address]
            self.missing.discard(address)
            self.handover.take_back(address)

    @rule(seconds=st.sampled_from([1.0, IDLE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.by_demand.remove_idle(IDLE, lambda: self.now)

    @rule(spec=st.sampled_from(SPECS))
    def device_spec_changes(self, spec: str) -> None:
        self.spec = [spec]
        self.restorer.device_spec = self.spec
        self.by_demand.take_device_spec(self.spec)

    @rule(port=st.sampled_from(PORTS), count=st.integers(1, 2))
    def an_operator_changes_the_number(self, port: PciAddress, count: int) -> None:
        """Of a port of which nobody has anything."""
        if {port, *VFS[port]}.isdisjoint(self.claims):
            self.tree.set_num_vfs(port, 0)
            self.tree.set_num_vfs(port, count)

    @rule(port=st.sampled_from(PORTS), wanted=st.integers(1, 2))
    def a_range_is_written_while_a_vf_is_held(self, port: PciAddress, wanted: int) -> None:
        """The port has fewer VFs then than the range allows, and another one is wanted."""
        if {port, *VFS[port]}.isdisjoint(self.claims):
            self.device_spec_changes(SPECS[3])
            self.an_operator_changes_the_number(port, 1)
            self.claim(VFS[port][0])
            self.device_spec_changes(SPECS[0])
            self.claim(VFS[port][wanted])

    @rule()
    def the_agent_is_started_again(self) -> None:
        self.handover.stop()
        self._start()

    @rule()
    def the_host_is_started_again(self) -> None:
        """Without power, no port has VFs and nothing is on vfio-pci. What the range allows is made again."""
        self.handover.stop()
        for port in PORTS:
            for function in (*self.tree.vfs(port), port):
                self.tree.bind(function, None)
                self.kernel._set_override(function, None)
            self.tree.bind(port, PORT.driver)
        self._start()
        missing = {address for address in self.claims if self.scanner.look(address) is None}
        assert missing <= self.handover.problems().keys()
        assert not missing or self.spec[0] in SPECS[2:]
        assert (
            all(VFS[port_of(address)].index(address) == 2 for address in missing) or self.spec[0] == SPECS[3]
        )
        self.missing |= missing

    @invariant()
    def nobody_was_disturbed(self) -> None:
        assert getattr(self, "kernel", None) is None or self.kernel.disturbed == []

    @invariant()
    def everybody_has_the_device(self) -> None:
        """But for VFs that a restart of the host took, and that the entry does not allow to be made."""
        for address in set(getattr(self, "claims", ())) - getattr(self, "missing", set()):
            device = self.scanner.look(address)
            assert device is not None, f"{address} is lost"
            assert device.driver == "vfio-pci", f"{address} is on {device.driver}"

    def teardown(self) -> None:
        """All is given back: after a while, each port has as few VFs as its entry says."""
        if not hasattr(self, "claims"):
            return
        for address in sorted(self.claims):
            self.handover.take_back(address)
        self.spec = [SPECS[0]]
        self.by_demand.take_device_spec(self.spec)
        for _ in range(2):
            self.by_demand.remove_idle(IDLE, lambda: self.now)
            self.now += IDLE
        assert [self.tree.num_vfs(port) for port in PORTS] == [0]
        assert (self.handover.handed_over(), self.handover.problems()) == ([], {})
        assert self.kernel.disturbed == []
        self.handover.stop()
        self._directory.cleanup()


def _step(address: PciAddress, port: PciAddress) -> Step:
    is_vf = address != port
    device = StepDevice(
        address=str(address),
        dev_type="type-VF" if is_vf else "type-PF",
        vendor_id=PORT_VF.vendor_id if is_vf else PORT.vendor_id,
        product_id=PORT_VF.product_id if is_vf else PORT.product_id,
        parent_address=str(port) if is_vf else None,
    )
    claim: UUID = uuid4()
    return Step(claim_id=claim, step=1, action="attach", instance_id=uuid4(), devices=[device])


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
