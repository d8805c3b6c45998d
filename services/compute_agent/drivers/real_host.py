"""What the drivers of real hosts have in common: the way out of the host and home, and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.base import Attachment, HypervisorDriver
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.homecoming import Homecoming, Hook
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.uevents import wait_until

GROUP = cfg.OptGroup("handover", "How devices of a real host leave for guests and come home")
OPTIONS = [
    cfg.FloatOpt(
        "write_timeout",
        default=30.0,
        min=1.0,
        help="Seconds for one write to sysfs. A device whose write takes longer is stuck: it is reported "
        "and left alone until the kernel answers.",
    ),
    cfg.FloatOpt(
        "home_timeout",
        default=30.0,
        min=1.0,
        help="Seconds for a device to show its driver, and a port its VFs, once the kernel was asked.",
    ),
    cfg.StrOpt(
        "hook",
        help="Program to run for each port that is back on its driver with its VFs. It finds "
        "PORTCLAIM_ADDRESS, PORTCLAIM_NUM_VFS and PORTCLAIM_NETDEV in its environment.",
    ),
    cfg.FloatOpt("hook_timeout", default=30.0, min=0.1, help="Seconds for the hook."),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """These options, for oslo.config's generators."""
    return [(GROUP, OPTIONS)]


class RealHostDriver(HypervisorDriver):
    """Knows which devices left the host and brings them home; what a guest is, its subclasses know."""

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        super().__init__(conf, state_path)
        conf.register_opts(OPTIONS, GROUP)
        options = conf.handover
        if options.hook is not None and not Path(options.hook).is_absolute():
            raise InvalidConfiguration(f"[handover] hook must be an absolute path, not {options.hook!r}")
        tree = SysfsTree(conf.compute_agent.sysfs_root)
        scanner = Scanner(tree)
        self.kernel = Kernel(tree, options.write_timeout)
        homecoming = Homecoming(
            self.kernel,
            scanner,
            conf.pci.device_spec,
            None if options.hook is None else Hook(Path(options.hook), options.hook_timeout),
            options.home_timeout,
            wait_until,
        )
        self.handover = Handover(tree, scanner, self.kernel, homecoming)

    def start(self) -> None:
        """Go on where a predecessor was interrupted."""
        self.handover.start(self.state_path)

    def stop(self) -> None:
        """Close the record."""
        self.handover.stop()

    def lent(self) -> Sequence[Attachment]:
        """What the record says: it is written before a device leaves, and before any guest has it."""
        return [
            Attachment(row.address, row.instance_id, row.claim_id)
            for row in self.handover.away()
            if row.instance_id is not None
        ]

    def troubles(self) -> Mapping[PciAddress, str]:
        """What is stuck, and what has not come home."""
        return self.handover.troubles()
