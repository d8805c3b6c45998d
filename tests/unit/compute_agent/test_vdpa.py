"""A VF with a vDPA device is not handed out."""

from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vdpa import vdpa_problems

VF = PciAddress.parse("0000:01:10.0")


@pytest.mark.parametrize("below", ["blk7", "mlx5_core.vnet.0/blk7"])
def test_the_reason_names_the_device_and_what_to_do(host: SimulatedTree, below: str) -> None:
    """The vDPA device is below its VF, directly or below the auxiliary device of the driver."""
    place = (host.root / "bus/pci/devices" / str(VF)).resolve() / below
    place.mkdir(parents=True)
    devices = host.root / "bus/vdpa/devices"
    devices.mkdir(parents=True)
    (devices / "blk7").symlink_to(Path("../../..") / place.relative_to(host.root))
    (devices / "simulated").symlink_to("../../../devices/simulated")  # of no PCI function
    assert vdpa_problems(SysfsTree(host.root)) == {
        VF: "it has the vDPA device blk7, and Portclaim hands out no vDPA devices: remove that with vdpa dev "
        "del blk7"
    }


def test_most_hosts_have_none(host: SimulatedTree) -> None:
    assert vdpa_problems(SysfsTree(host.root)) == {}
