"""What rtnetlink tells of VFs, in the kernel's own form. The lab's card shows the rest (tests/hardware)."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from portclaim.common.pci.network_settings import VfSettings, Vlan
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.vf_link import SettingRefused, VfLinks, settings_in

NOT_SHOWN = 0xFFFFFFFF


def answer(*vfs: list[tuple[str, Any]]) -> ifinfmsg:
    """The kernel's answer about an interface, encoded and read again."""
    message = ifinfmsg()
    infos = [("IFLA_VF_INFO", {"attrs": attributes}) for attributes in vfs]
    message["attrs"] = [("IFLA_IFNAME", "ens1f0"), ("IFLA_VFINFO_LIST", {"attrs": infos})]
    message.encode()
    read = ifinfmsg(message.data)
    read.decode()
    return read


def vf(number: int, vlan: dict[str, int], *, shown: bool = True) -> list[tuple[str, Any]]:
    one = {"vf": number}
    return [
        ("IFLA_VF_MAC", {**one, "mac": f"52:54:00:00:00:{number:02x}"}),
        ("IFLA_VF_VLAN", {**one, "vlan": vlan["vlan"], "qos": vlan["qos"]}),
        ("IFLA_VF_VLAN_LIST", {"attrs": [("IFLA_VF_VLAN_INFO", {**one, **vlan})]}),
        ("IFLA_VF_RATE", {**one, "min_tx_rate": 10, "max_tx_rate": 100}),
        ("IFLA_VF_SPOOFCHK", {**one, "spoofchk": 0 if shown else NOT_SHOWN}),
        ("IFLA_VF_LINK_STATE", {**one, "link_state": 2}),
        ("IFLA_VF_TRUST", {**one, "trust": 1 if shown else NOT_SHOWN}),
    ]


def test_settings_are_those_of_the_vf_that_was_asked_for() -> None:
    link = answer(
        vf(0, {"vlan": 0, "qos": 0, "proto": 0x8100}), vf(1, {"vlan": 7, "qos": 3, "proto": 0x88A8})
    )
    assert settings_in(link, 0) == VfSettings("52:54:00:00:00:00", Vlan(), 10, 100, "disable", True, False)
    found = settings_in(link, 1)
    assert found is not None
    assert (found.mac, found.vlan) == ("52:54:00:00:00:01", Vlan(7, 3, "802.1ad"))
    assert settings_in(link, 2) is None


def test_what_the_driver_does_not_show_is_none() -> None:
    found = settings_in(answer(vf(0, {"vlan": 0, "qos": 0, "proto": 0x8100}, shown=False)), 0)
    assert found is not None
    assert (found.spoofchk, found.trust) == (None, None)


def test_an_interface_without_vfs_is_told() -> None:
    links = VfLinks(timeout=10.0)
    with pytest.raises(DriverError, match="lo does not show VF 0: its driver keeps no settings of VFs"):
        links.read("lo", 0)
    with pytest.raises(SettingRefused):
        links.write("lo", 0, "mac", "52:54:00:00:00:01")
    with pytest.raises(DriverError, match=r"the kernel says of nosuch0: .*No such device"):
        links.read("nosuch0", 0)
