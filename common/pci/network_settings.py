"""Network settings of a VF, which its PF's driver keeps, and of a PF."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from portclaim.common.pci.option_text import read_boolean, shown

TAG = "network_settings"
"""The tag of devices whose agent sets network settings. Requests with settings match only these."""

NETWORK = "02"
"""Base class of network controllers (PCI Code and ID Assignment)."""

MAX_VLAN, MAX_QOS, MAX_RATE = 4094, 7, 2**32 - 1
PROTOCOLS = ("802.1Q", "802.1ad")
LINK_STATES = ("auto", "enable", "disable")

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Vlan:
    """The VLAN that a VF is in. ``id`` 0: none."""

    id: int = 0
    qos: int = 0
    protocol: str = "802.1Q"


@dataclass(frozen=True, slots=True)
class VfSettings:
    """The settings of one VF, as ``ip link set PF vf NUMBER`` names them.

    None: not said, or the driver does not show it. Rates are in Mbit/s; 0: no limit.
    """

    mac: str | None = None
    vlan: Vlan | None = None
    min_tx_rate: int | None = None
    max_tx_rate: int | None = None
    link_state: str | None = None
    trust: bool | None = None
    spoofchk: bool | None = None

    def over(self, others: VfSettings) -> VfSettings:
        """These settings, and from ``others`` what they do not say."""
        return replace(others, **self.said())

    def said(self) -> dict[str, Any]:
        """The settings that are not None, by name, in the order in which to set them."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


DEFAULTS = VfSettings(vlan=Vlan(), min_tx_rate=0, max_tx_rate=0, trust=False, spoofchk=True)
"""What a VF is given out with, where neither its claim nor its device_spec entry says otherwise."""


def check_mac(text: str) -> str:
    """A MAC for one interface, in lower case. Raises ValueError."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{shown(text)} is no MAC: write six bytes, as in 52:54:00:12:34:56")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(f"{shown(text)} is not the MAC of one interface: it is a group's, or zero")
    return mac


def read_vf_defaults(value: object) -> VfSettings:
    """:data:`DEFAULTS` with what ``vf_defaults`` of a device_spec entry says instead.

    A key with null: this setting stays as it is. Raises ValueError.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is no JSON object of settings")  # noqa: TRY004 - a value of a file
    unknown = value.keys() - _READ.keys()
    if unknown:
        raise ValueError(f"{shown(min(unknown))} is no setting: choose of {', '.join(_READ)}")
    found = replace(
        DEFAULTS, **{key: None if one is None else _READ[key](key, one) for key, one in value.items()}
    )
    if found.max_tx_rate and (found.min_tx_rate or 0) > found.max_tx_rate:
        raise ValueError(f"min_tx_rate {found.min_tx_rate} is above max_tx_rate {found.max_tx_rate}")
    return found


def _boolean(key: str, value: object) -> bool:
    word = read_boolean(value)
    if word is None:
        raise ValueError(f"{key}: {shown(value)} is neither yes nor no")
    return word


def _number(key: str, value: object, most: int = MAX_RATE) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{key}: {shown(value)} is no number from 0 to {most}")
    return value


def _word(key: str, value: object, words: tuple[str, ...] = LINK_STATES) -> str:
    if value not in words:
        raise ValueError(f"{key}: {shown(value)} is none of {', '.join(words)}")
    return str(value)


def _vlan(key: str, value: object) -> Vlan:
    parts = value if isinstance(value, Mapping) else {"id": value}
    unknown = parts.keys() - {"id", "qos", "protocol"}
    if unknown or "id" not in parts:
        raise ValueError(f"{key}: {shown(value)} is no VLAN: write its id, and qos and protocol if needed")
    return Vlan(
        _number("vlan id", parts["id"], MAX_VLAN),
        _number("vlan qos", parts.get("qos", 0), MAX_QOS),
        _word("vlan protocol", parts.get("protocol", "802.1Q"), PROTOCOLS),
    )


_READ: Mapping[str, Callable[[str, object], Any]] = {
    "vlan": _vlan,
    "min_tx_rate": _number,
    "max_tx_rate": _number,
    "link_state": _word,
    "trust": _boolean,
    "spoofchk": _boolean,
}
