"""Parse and check one entry of ``[pci] device_spec``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.address_spec import (
    ANY,
    ANYWHERE,
    DOMAIN,
    FieldPatterns,
    Glob,
    hex_number,
    parse_glob,
    parse_patterns,
)
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.errors import InvalidDeviceSpec
from portclaim.common.pci.host import HostView
from portclaim.common.pci.network_settings import DEFAULTS, TAG, VfSettings, read_vf_defaults
from portclaim.common.pci.option_text import as_text, read_boolean, shown
from portclaim.common.pci.placement_names import RESOURCE_CLASS, TRAITS, check_class, check_traits

MAX_ID = 0xFFFF
MAX_VFS = 0xFFFF
"""TotalVFs is a field of 16 bits (PCI Express, SR-IOV capability)."""

_VF_COUNT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

STRICT_TAGS = frozenset({"managed", "live_migratable", "one_time_use"})
"""Tags that are boolean words, stored as ``true`` or ``false``."""

TAGS = (*sorted(STRICT_TAGS), "physical_network", "trusted", "remote_managed", RESOURCE_CLASS, TRAITS)
"""The tags that mean something by themselves."""

NO_TAGS = {
    "parent_ifname": "Nova finds it out by itself, and Portclaim does not compare it: to offer the VFs of an "
    "interface, write devname; to ask for them, give this entry a tag of your own",
    TAG: "the agent gives it to the devices whose network settings it sets, by its option [handover] " + TAG,
}
"""Keys that are not taken as tags, and what to write instead."""

_NAMES = {RESOURCE_CLASS: check_class, TRAITS: check_traits}


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One parsed entry.

    ``source`` is its name in messages. Ids are four lower-case hexadecimal digits or ``*``. ``devname``,
    ``glob`` and ``patterns`` are three ways to name addresses; at most one is given. ``covers_vfs``: the
    address is a PF, and the entry takes its VFs too. ``tags`` are stored with every device that the entry
    takes; a key with JSON null is not a tag.

    Three keys are Portclaim's own. With ``reconfigurable`` False, a PF that has VFs is never offered.
    ``num_vfs`` is the number of VFs that a port gets when it is restored; None: the number that it had. With
    ``most_vfs``, it has that number while nobody wants a VF of it, and ``most_vfs`` while somebody does.
    ``vf_defaults`` are the network settings of a VF whose claim asks for none.
    """

    source: str
    tags: Mapping[str, str]
    vendor_id: str = ANY
    product_id: str = ANY
    devname: str | None = None
    glob: Glob = ANYWHERE
    patterns: FieldPatterns | None = None
    covers_vfs: bool = False
    remote_managed: bool = False
    reconfigurable: bool = True
    num_vfs: int | None = None
    most_vfs: int | None = None
    vf_defaults: VfSettings = DEFAULTS

    @property
    def place(self) -> PciAddress | None:
        """The address, if the entry names exactly one; None if it names several, or an interface."""
        return self.glob.single if self.patterns is None else self.patterns.single

    def offers(self, device: PciDevice) -> bool:
        """May a device that the entry takes be offered as it is now?"""
        return self.reconfigurable or device.dev_type is not DeviceType.PF or device.num_vfs == 0


def read_device_spec(
    source: str, entry: object, host: HostView, *, report_in_placement: bool = False
) -> DeviceSpec:
    """Parse one JSON object. Raises :class:`InvalidDeviceSpec` with entry, key and reason."""
    if not isinstance(entry, dict):
        raise InvalidDeviceSpec(f"{shown(entry)} is no JSON object", source)
    return _Reader(source, entry, host, report_in_placement).read()


class _Reader:
    """Reads the known keys of an entry. The other keys are tags."""

    def __init__(self, source: str, entry: Mapping[str, object], host: HostView, in_placement: bool) -> None:
        self._source = source
        self._rest = dict(entry)
        self._host = host
        self._in_placement = in_placement

    def read(self) -> DeviceSpec:
        vendor_id, product_id = self._id("vendor_id"), self._id("product_id")
        devname, address = self._devname(), self._address()
        if devname is not None and address is not None:
            raise self._invalid("devname", "given together with address; keep one of them")
        pf = None if address is None or address.single is None else self._host.pfs.get(address.single)
        num_vfs, most_vfs = self._num_vfs()
        spec = DeviceSpec(
            source=self._source,
            vendor_id=vendor_id,
            product_id=product_id,
            devname=devname,
            glob=address if isinstance(address, Glob) else ANYWHERE,
            patterns=address if isinstance(address, FieldPatterns) else None,
            covers_vfs=pf is not None,
            remote_managed=read_boolean(self._rest.get("remote_managed")) is True,
            reconfigurable=self._reconfigurable(),
            num_vfs=num_vfs,
            most_vfs=most_vfs,
            vf_defaults=self._vf_defaults(),
            tags=self._tags(),
        )
        if spec.most_vfs is not None and not spec.reconfigurable:
            raise self._invalid(
                "num_vfs", "a range needs a card that may be changed: leave reconfigurable out"
            )
        if spec.remote_managed:
            self._check_remote_managed(spec, pf)
        return spec

    def _invalid(self, key: str, reason: str) -> InvalidDeviceSpec:
        return InvalidDeviceSpec(reason, self._source, key)

    def _id(self, key: str) -> str:
        value = self._rest.pop(key, ANY)
        if not isinstance(value, str):
            raise self._invalid(key, f"{shown(value)} is no string of hexadecimal digits")
        text = value.strip() if key == "vendor_id" else value
        if text == ANY:
            return ANY
        try:
            return f"{hex_number(text, MAX_ID):04x}"
        except ValueError as error:
            raise self._invalid(key, f"{error}; write four hexadecimal digits or *") from None

    def _devname(self) -> str | None:
        value = self._rest.pop("devname", None)
        if not value:
            return None
        if not isinstance(value, str):
            raise self._invalid("devname", f"{shown(value)} is no name of a network interface")
        at = self._host.netdevs.get(value)
        if at is not None and at.domain > DOMAIN.limit:
            raise self._invalid(
                "devname", f"{value} is at {at}; device_spec cannot name PCI domains above ffff"
            )
        return value

    def _address(self) -> Glob | FieldPatterns | None:
        value = self._rest.pop("address", None)
        if value is None or value == "":
            return None
        try:
            if isinstance(value, str):
                return parse_glob(value)
            if isinstance(value, dict) and value:
                return parse_patterns(value)
        except ValueError as error:
            raise self._invalid("address", str(error)) from None
        raise self._invalid("address", f"{shown(value)} is neither text nor patterns; leave it out for any")

    def _reconfigurable(self) -> bool:
        value = self._rest.pop("reconfigurable", None)
        return True if value is None else self._boolean("reconfigurable", value)

    def _num_vfs(self) -> tuple[int | None, int | None]:
        """``"8"`` or ``"0-64"``: see :class:`DeviceSpec`."""
        value = self._rest.pop("num_vfs", None)
        if value is None:
            return None, None
        found = _VF_COUNT.fullmatch(str(value))
        least, most = (None, None) if found is None else found.groups()
        if least is None or int(most or least) > MAX_VFS:
            raise self._invalid(
                "num_vfs", f"{shown(value)} is no number from 0 to {MAX_VFS}, and no range of such, like 0-64"
            )
        if most is None:
            return int(least), None
        if int(least) >= int(most):
            raise self._invalid("num_vfs", f"{shown(value)} is no range: write the smaller number first")
        return int(least), int(most)

    def _vf_defaults(self) -> VfSettings:
        value = self._rest.pop("vf_defaults", None)
        try:
            return DEFAULTS if value is None else read_vf_defaults(value)
        except ValueError as error:
            raise self._invalid("vf_defaults", str(error)) from None

    def _tags(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        for key, value in self._rest.items():
            if value is None:
                continue
            if key in NO_TAGS:
                raise self._invalid(key, NO_TAGS[key])
            try:
                if (check := _NAMES.get(key)) is not None:
                    check(self._name(key, value))
                tags[as_text(key)] = as_text(self._boolean(key, value) if key in STRICT_TAGS else value)
            except ValueError as error:
                if isinstance(error, InvalidDeviceSpec):
                    raise
                raise self._invalid(ascii(key), str(error)) from None
        if tags.get("one_time_use") == "true" and not self._in_placement:
            raise self._invalid(
                "one_time_use",
                "needs [pci] report_in_placement, as in Nova: set it; nothing is reported to Placement",
            )
        return tags

    def _name(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._invalid(key, f"{shown(value)} is no text: write names, with commas between traits")
        return value

    def _boolean(self, key: str, value: object) -> bool:
        word = read_boolean(value)
        if word is None:
            raise self._invalid(key, f"{shown(value)} is neither yes nor no")
        return word

    def _check_remote_managed(self, spec: DeviceSpec, pf: PciDevice | None) -> None:
        """Refuse ``remote_managed`` for a PF: the guest could not reach its control plane (Nova docs)."""
        if spec.devname is not None:
            target = self._host.netdevs.get(spec.devname)
            if target is None:
                raise self._invalid(
                    "remote_managed", f"this host has no network interface {shown(spec.devname)}"
                )
            pf = self._host.pfs.get(target)
        if pf is None:
            return
        same_vendor = spec.vendor_id in (ANY, pf.vendor_id)
        if same_vendor and spec.product_id == pf.vf_product_id:
            return
        if same_vendor and spec.product_id in (ANY, pf.product_id):
            raise self._invalid(
                "remote_managed", f"{pf.address} is a PF; name its VFs by their product_id {pf.vf_product_id}"
            )
        raise self._invalid(
            "remote_managed",
            f"these ids are not the ids of the VFs of PF {pf.address}: {pf.vendor_id}:{pf.vf_product_id}",
        )
