"""The common part of the drivers of real hosts: handover, restore, and their options."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import Attachment, HypervisorDriver
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.handover_record import HandedOver, held_by_claims
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.port_control import PortControl
from portclaim.services.compute_agent.real_ports import RealPorts
from portclaim.services.compute_agent.restore import Hook, Restorer
from portclaim.services.compute_agent.scanner import Scan, Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.uevents import wait_until
from portclaim.services.compute_agent.vf_link import VfLinks
from portclaim.services.compute_agent.vf_network import VfNetwork

GROUP = cfg.OptGroup("handover", "How devices of a real host are handed over to guests and restored")
OPTIONS = [
    cfg.FloatOpt(
        "write_timeout",
        default=30.0,
        min=1.0,
        help="Seconds for one write to sysfs. If a write takes longer, its device is reported as blocked, "
        "and nothing more is written to it until the kernel answers.",
    ),
    cfg.FloatOpt(
        "restore_timeout",
        default=30.0,
        min=1.0,
        help="Seconds until a device must show its driver, and a port its VFs, after the write that asks "
        "for it.",
    ),
    cfg.StrOpt(
        "hook",
        help="Program to run for each port that was restored to its driver with its VFs, for each VF that "
        "has a representor, and for each device of one-time use. Its environment has PORTCLAIM_ADDRESS, "
        "PORTCLAIM_NUM_VFS, PORTCLAIM_NETDEV, PORTCLAIM_REPRESENTOR and PORTCLAIM_PHYS_PORT_NAME.",
    ),
    cfg.BoolOpt(
        "network_settings",
        default=False,
        help="Set the network settings of VFs: what a claim asks for, and safe values of what it does not "
        "ask for. When the VF is given back, they are restored. The agent then needs CAP_NET_ADMIN.",
    ),
    cfg.FloatOpt("hook_timeout", default=30.0, min=0.1, help="Seconds until the hook must have ended."),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """These options, for oslo.config's generators."""
    return [(GROUP, OPTIONS)]


class RealHostDriver(HypervisorDriver):
    """Hands devices over and restores them. The subclasses say which guest has which device."""

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        super().__init__(conf, state_path)
        register(conf, OPTIONS, GROUP)
        options = conf.handover
        if options.hook is not None and not Path(options.hook).is_absolute():
            raise InvalidConfiguration(f"[handover] hook must be an absolute path, not {options.hook!r}")
        tree = SysfsTree(conf.compute_agent.sysfs_root)
        scanner = Scanner(tree)
        self.kernel = Kernel(tree, options.write_timeout)
        self.restorer = Restorer(
            self.kernel,
            scanner,
            conf.pci.device_spec,
            None if options.hook is None else Hook(Path(options.hook), options.hook_timeout),
            options.restore_timeout,
            wait_until,
        )
        self.network = VfNetwork(
            tree,
            scanner,
            VfLinks(options.write_timeout),
            self.restorer,
            enabled=options.network_settings,
        )
        self.handover = Handover(tree, scanner, self.kernel, self.restorer, self.network)
        self._ports = RealPorts(tree, scanner, self.kernel, self.restorer, self.handover)

    def start(self) -> None:
        """Finish what a killed agent has left unfinished."""
        self.handover.start(self.state_path)

    def stop(self) -> None:
        """Close the record."""
        self.handover.stop()

    @property
    def sets_network(self) -> bool:
        """Is it switched on?"""
        return self.network.enabled

    @property
    def ports(self) -> PortControl:
        """Those of the kernel."""
        return self._ports

    def make_lost_vfs(self, make: Callable[[PciAddress | None, PciAddress], None]) -> None:
        """After a reboot the VFs of claims are missing."""
        self.handover.make_vf = lambda row: make(row.parent, row.address)

    def _without_lost(self, found: Iterable[Attachment], rows: Iterable[HandedOver]) -> Sequence[Attachment]:
        """These without the devices of claims that the host does not show as they were handed over."""
        claimed = held_by_claims(rows).values()
        lost = {(row.address, row.claim_id) for row in claimed if not self.handover.is_lent(row)}
        return [held for held in found if (held.address, held.claim_id) not in lost]

    def follow(self, tell: Callable[[], None]) -> None:
        """A device is lost when something has taken it from vfio-pci or from the host."""
        self.handover.follow(tell)

    def devices_changed(self, addresses: Collection[PciAddress] | None) -> None:
        """Hand over or restore now what waits for that."""
        self.handover.changed(addresses)

    def take_device_spec(self, device_spec: Sequence[str]) -> None:
        """It says how many VFs a restored port gets, and which devices the operator binds."""
        self.restorer.device_spec = device_spec

    def handed_over(self) -> Sequence[Attachment]:
        """What the record says. It is written before a device is handed over."""
        return [
            Attachment(row.address, row.instance_id, row.claim_id)
            for row in self.handover.handed_over()
            if row.instance_id is not None
        ]

    def adopt(self, step: Step, device: StepDevice) -> None:
        """Record a device that the instance has and that names no claim, and that is not recorded."""
        found = Attachment(PciAddress.parse(device.address), step.instance_id, None)
        if self.handover.find(found.address) is None and found in self.attachments():
            self.handover.adopt(step, found.address)

    def stopped(self, scan: Scan) -> Mapping[PciAddress, str]:
        """What a port stops that is stuck in the kernel."""
        return self.handover.stuck_ports.problems(scan, self.handover.handed_over())

    def problems(self) -> Mapping[PciAddress, str]:
        """Devices that are blocked in the kernel, not restored, or lost by their claims."""
        return self.handover.problems()
