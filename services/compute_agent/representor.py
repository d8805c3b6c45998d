"""The representor of a VF: its counterpart on the host where the PF is in switchdev mode."""

from __future__ import annotations

import errno
import re
from typing import NamedTuple

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

# Kernel documentation, networking/switchdev: controller, PF and VF. Older drivers leave the first two out.
_VF_PORT = re.compile(r"(?:c\d+)?(?:pf\d+)?vf(\d+)", re.ASCII)
_VIRTFN = re.compile(r"virtfn(\d+)", re.ASCII)


class Representor(NamedTuple):
    """Its network interface, and the name that the card gives the port: ``pf0vf3``."""

    netdev: str
    phys_port_name: str


def representor_of(tree: SysfsTree, vf: PciAddress, pf: PciAddress) -> Representor | None:
    """The representor of a VF. None: its PF is not in switchdev mode."""
    number = vf_number(tree, vf, pf)
    path = f"{PCI_DEVICES}/{pf}/net"
    for netdev in sorted(tree.names(path) or ()):
        port = _port_name(tree, f"{path}/{netdev}")
        if port and (match := _VF_PORT.fullmatch(port)) and int(match[1]) == number:
            return Representor(netdev, port)
    return None


def vf_number(tree: SysfsTree, vf: PciAddress, pf: PciAddress) -> int | None:
    """The number of a VF on its PF, as ``ip link`` uses it. None: the PF does not list it."""
    path = f"{PCI_DEVICES}/{pf}"
    for name in tree.names(path) or ():
        link = _VIRTFN.fullmatch(name)
        if link and tree.link(f"{path}/{name}") == str(vf):
            return int(link[1])
    return None


def _port_name(tree: SysfsTree, path: str) -> str | None:
    try:
        return tree.text(f"{path}/phys_port_name")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # most drivers
            return None
        raise
