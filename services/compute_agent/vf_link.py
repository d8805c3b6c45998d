"""Read and set the network settings of PFs and their VFs by rtnetlink(7)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from portclaim.common.pci.network_settings import LINK_STATES, VfSettings, Vlan
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.deadline import Deadline

_VFS, _NO_STATISTICS = 1, 8  # RTEXT_FILTER_VF, RTEXT_FILTER_SKIP_STATS: 256 VFs then fit into one answer
_NOT_SHOWN = 0xFFFFFFFF  # -1: the driver says nothing of it
_PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}

NO_MAC = "00:00:00:00:00:00"
"""How a PF's driver shows that no MAC was set for a VF. Most drivers take it, and forget the MAC then."""


class PortSettings(NamedTuple):
    """The settings of a PF's interface. None: not said."""

    mac: str | None = None
    mtu: int | None = None


class NothingKept(DriverError):
    """The driver of the PF keeps no settings of VFs."""


class SettingRefused(DriverError):
    """The kernel, or the driver of the PF, does not set this."""


class VfLinks:
    """The settings of a PF's interface, by its name, and of VFs, by this name and their number on it."""

    def __init__(self, timeout: float) -> None:
        """``timeout``: seconds until the kernel must have answered. A driver may hold its lock for long."""
        self._kernel = Deadline("the kernel (rtnetlink)", timeout)

    def read(self, netdev: str, vf: int) -> VfSettings:
        """The settings as the driver shows them.

        Raises :class:`NothingKept`, and another :class:`DriverError` where the kernel does not answer.
        """
        return self._kernel.ask(lambda: _read(netdev, vf))

    def write(self, netdev: str, vf: int, name: str, value: Any) -> None:
        """Set one setting. ``rate`` is a pair, min_tx_rate and max_tx_rate: they are set together.

        Raises :class:`SettingRefused`, and another :class:`DriverError` where the kernel does not answer.
        """
        self._kernel.ask(lambda: _write(netdev, vf, name, value))

    def read_port(self, netdev: str) -> PortSettings:
        """The settings of the interface itself. Raises :class:`DriverError`."""
        return self._kernel.ask(lambda: _read_port(netdev))

    def write_port(self, netdev: str, name: str, value: Any) -> None:
        """Set ``mac`` or ``mtu`` of the interface itself. Raises as :meth:`write` does."""
        self._kernel.ask(lambda: _set_link(netdev, **{"address" if name == "mac" else name: value}))


def _read(netdev: str, vf: int) -> VfSettings:
    with _kernel(netdev) as kernel:
        (link,) = kernel.link("get", ifname=netdev, ext_mask=_VFS | _NO_STATISTICS)
    found = settings_in(link, vf)
    if found is None:
        raise NothingKept(f"{netdev} does not show VF {vf}: its driver keeps no settings of VFs")
    return found


def settings_in(link: Any, vf: int) -> VfSettings | None:
    """The settings of a VF in the kernel's answer about its PF's interface; None: it does not show the VF."""
    listed = link.get_attr("IFLA_VFINFO_LIST")
    for info in () if listed is None else listed.get_attrs("IFLA_VF_INFO"):
        facts = dict(info["attrs"])
        if facts["IFLA_VF_MAC"]["vf"] == vf:
            return _settings(facts)
    return None


def _write(netdev: str, vf: int, name: str, value: Any) -> None:
    _set_link(netdev, vf={"vf": vf, **_WRITTEN[name](value)})


def _read_port(netdev: str) -> PortSettings:
    with _kernel(netdev) as kernel:
        (link,) = kernel.link("get", ifname=netdev)
    return PortSettings(link.get_attr("IFLA_ADDRESS"), link.get_attr("IFLA_MTU"))


def _set_link(netdev: str, **change: Any) -> None:
    with _kernel(netdev) as kernel:
        index = socket.if_nametoindex(netdev)
        try:
            kernel.link("set", index=index, **change)
        except _netlink_error() as error:
            hint = ": the agent needs CAP_NET_ADMIN" if error.args[0] == errno.EPERM else ""
            raise SettingRefused(f"{error.args[-1]}{hint}") from error


def _settings(facts: Mapping[str, Any]) -> VfSettings:
    def shown(name: str) -> int | None:
        found = facts.get(f"IFLA_VF_{name.upper()}")
        return None if found is None or found[name] == _NOT_SHOWN else found[name]

    rate, state = facts.get("IFLA_VF_RATE"), shown("link_state")
    spoofchk, trust = shown("spoofchk"), shown("trust")
    return VfSettings(
        mac=facts["IFLA_VF_MAC"]["mac"],
        vlan=_vlan(facts),
        min_tx_rate=None if rate is None else rate["min_tx_rate"],
        max_tx_rate=None if rate is None else rate["max_tx_rate"],
        link_state=None if state is None else LINK_STATES[state],
        trust=None if trust is None else bool(trust),
        spoofchk=None if spoofchk is None else bool(spoofchk),
    )


def _vlan(facts: Mapping[str, Any]) -> Vlan | None:
    """The first VLAN of the list, which has the protocol; kernels before 4.9 show only the other one."""
    listed, plain = facts.get("IFLA_VF_VLAN_LIST"), facts.get("IFLA_VF_VLAN")
    found = plain if listed is None else listed.get_attr("IFLA_VF_VLAN_INFO")
    if found is None:
        return None
    if not found["vlan"]:
        return Vlan()
    return Vlan(found["vlan"], found["qos"], _PROTOCOLS.get(found.get("proto"), "802.1Q"))


def _written_vlan(vlan: Vlan) -> Mapping[str, Any]:
    plain = {"vlan": vlan.id, "qos": vlan.qos}
    if vlan.protocol == "802.1Q":
        return {"vlan": plain}
    return {"vlan": [{**plain, "proto": _NUMBERS[vlan.protocol]}]}


_WRITTEN: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "mac": lambda mac: {"mac": mac},
    "vlan": _written_vlan,
    "rate": lambda rate: {"rate": {"min_tx_rate": rate[0], "max_tx_rate": rate[1]}},
    "link_state": lambda state: {"link_state": LINK_STATES.index(state)},
    "trust": lambda on: {"trust": int(on)},
    "spoofchk": lambda on: {"spoofchk": int(on)},
}


@contextmanager
def _kernel(netdev: str) -> Iterator[Any]:
    # Imported here: it takes 8 MB of memory, and only an agent that sets network settings needs it.
    from pyroute2 import IPRoute  # noqa: PLC0415

    try:
        with IPRoute() as kernel:
            yield kernel
    except (OSError, _netlink_error()) as error:
        raise DriverError(f"the kernel says of {netdev}: {error}") from error


def _netlink_error() -> type[Exception]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    return cast(type[Exception], NetlinkError)
