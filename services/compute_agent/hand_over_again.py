"""Hand over the devices of live claims again before the host's network starts, as after a power loss.

The agent itself does that too, but it starts when the network is there: until then, the host's network
manager could use the VFs of claims. This needs no service and no libvirtd.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.handover_record import held_by_claims
from portclaim.services.compute_agent.identity import Identity
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vfs_by_demand import VfsByDemand


def hand_over_again(conf: cfg.ConfigOpts) -> Mapping[PciAddress, str | None]:
    """Do what an agent does when it starts. Answers for each device of a claim why the claim cannot have it
    now; None: it can.

    The drivers of real hosts share one record, so any of them will do. Raises
    :class:`~portclaim.common.errors.InvalidConfiguration`, also while an agent of this host runs.
    """
    identity = Identity(Path(conf.state_path), conf.host)
    identity.take()
    try:
        driver = VfioDriver(conf, identity.path)
        scanner = Scanner(SysfsTree(conf.compute_agent.sysfs_root))
        driver.make_lost_vfs(VfsByDemand(scanner, driver.ports, conf.pci.device_spec).make_again)
        driver.start()
        try:
            problems = driver.problems()
            return {
                address: problems.get(address) for address in held_by_claims(driver.handover.handed_over())
            }
        finally:
            driver.stop()
    finally:
        identity.give_back()
