"""vDPA devices: VFs that the host keeps behind its vDPA bus (kernel docs, vDPA)."""

from __future__ import annotations

from collections.abc import Mapping

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress
from portclaim.services.compute_agent.sysfs import SysfsTree

_DEVICES = "bus/vdpa/devices"


def vdpa_problems(tree: SysfsTree) -> Mapping[PciAddress, str]:
    """Why each PCI function that has a vDPA device cannot be handed out.

    Nova gives such a VF to a guest through vhost-vdpa, as an interface of type ``vdpa``. Portclaim gives PCI
    devices only. To bind such a VF to vfio-pci would take its vDPA device away from whoever uses it.
    """
    found = {}
    for name in sorted(tree.names(_DEVICES) or ()):
        for part in reversed((tree.target(f"{_DEVICES}/{name}") or "").split("/")):
            try:
                address = PciAddress.parse(part)
            except InvalidPciAddress:
                continue
            found[address] = (
                f"it has the vDPA device {name}, and Portclaim hands out no vDPA devices: remove that with "
                f"vdpa dev del {name}"
            )
            break
    return found
