"""``[pci] device_spec``: the first entry that matches a device takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from portclaim.common.pci.address_spec import ADDRESS_BITS, ANY, DOMAIN, FULL_MASK, FieldPatterns, as_number
from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.device_spec_entry import DeviceSpec, read_device_spec
from portclaim.common.pci.errors import DeviceOutOfReach, InvalidDeviceSpec
from portclaim.common.pci.host import HostView
from portclaim.common.pci.option_text import read_json

_NO_HOST = HostView()
_ID_BITS = 16
_ID_MASK = (1 << _ID_BITS) - 1


@dataclass(frozen=True, slots=True)
class Match:
    """``spec`` takes the device. ``entry`` is its number among all entries, counted from 0."""

    entry: int
    spec: DeviceSpec

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags to be stored with the device."""
        return self.spec.tags


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry for fast comparison: ids and address in one number. ``asks_more``: it has other conditions."""

    mask: int
    value: int
    covers_vfs: bool
    patterns: FieldPatterns | None
    asks_more: bool
    match: Match


@dataclass(frozen=True, slots=True)
class DeviceSpecs:
    """All entries, in order."""

    specs: tuple[DeviceSpec, ...]
    _rows: tuple[_Row, ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, specs: Iterable[DeviceSpec]) -> DeviceSpecs:
        """These entries, in this order."""
        listed = tuple(specs)
        return cls(listed, tuple(_row(place, spec) for place, spec in enumerate(listed)))

    @classmethod
    def parse(
        cls, entries: Sequence[str], host: HostView = _NO_HOST, *, report_in_placement: bool = False
    ) -> DeviceSpecs:
        """Read the values of ``[pci] device_spec``, each a JSON object or a list of them.

        If a full address is a PF of ``host`` now, the entry takes the VFs of that PF too; see
        :meth:`seen_from`. Raises :class:`InvalidDeviceSpec`.
        """
        return cls.of(
            read_device_spec(source, item, host, report_in_placement=report_in_placement)
            for number, text in enumerate(entries, 1)
            for source, item in items_of(f"device_spec {number}", text)
        )

    def seen_from(self, host: HostView) -> DeviceSpecs:
        """The same entries with the PFs that the host has at a later time.

        It never raises: an entry that was valid at the start stays valid while interfaces come and go.
        """
        return self.of(replace(spec, covers_vfs=spec.place in host.pfs) for spec in self.specs)

    def match(self, device: PciDevice, host: HostView = _NO_HOST) -> Match | None:
        """The first entry that takes the device, or None.

        A ``devname`` is looked up in ``host`` at every call: it means the interface that has the name then.
        Raises :class:`DeviceOutOfReach` for a device in a PCI domain above ffff.
        """
        if device.address.domain > DOMAIN.limit:
            if all(spec.devname is not None and spec.devname not in host.netdevs for spec in self.specs):
                return None
            raise DeviceOutOfReach(f"{device.address}: device_spec cannot name PCI domains above ffff")
        ids = (int(device.vendor_id, 16) << _ID_BITS | int(device.product_id, 16)) << ADDRESS_BITS
        own = ids | as_number(device.address)
        above = own if device.parent is None else ids | as_number(device.parent)
        for row in self._rows:  # most of the time is spent here: call a function only if necessary
            patterns = row.patterns
            if (
                (own & row.mask == row.value and (patterns is None or patterns.match(own & FULL_MASK)))
                or (
                    row.covers_vfs
                    and above & row.mask == row.value
                    and (patterns is None or patterns.match(above & FULL_MASK))
                )
            ) and (not row.asks_more or _accepts(row.match.spec, device, host)):
                return row.match
        return None

    def hidden(self) -> dict[str, str]:
        """The entries that can take no device on any host, each with the earlier one that takes all of them.

        Only what ids and plain addresses tell is found, not what patterns or interface names would.
        """
        found: dict[str, str] = {}
        for place, later in enumerate(self._rows):
            for earlier in self._rows[:place]:
                if _covers(earlier, later):
                    found[later.match.spec.source] = earlier.match.spec.source
                    break
        return found


def items_of(source: str, text: str) -> list[tuple[str, object]]:
    """The JSON values in one value of the option, each with its name in messages.

    Raises :class:`InvalidDeviceSpec`.
    """
    try:
        value = read_json(text)
    except ValueError as error:
        raise InvalidDeviceSpec(str(error), source) from None
    if isinstance(value, list):
        return [(f"{source}, item {place}", item) for place, item in enumerate(value, 1)]
    return [(source, value)]


def _row(place: int, spec: DeviceSpec) -> _Row:
    mask = value = 0
    for one in (spec.vendor_id, spec.product_id):
        mask <<= _ID_BITS
        value <<= _ID_BITS
        if one != ANY:
            mask, value = mask | _ID_MASK, value | int(one, 16)
    return _Row(
        mask=mask << ADDRESS_BITS | spec.glob.mask,
        value=value << ADDRESS_BITS | spec.glob.value,
        covers_vfs=spec.covers_vfs,
        patterns=spec.patterns,
        asks_more=spec.devname is not None or spec.remote_managed,
        match=Match(place, spec),
    )


def _covers(earlier: _Row, later: _Row) -> bool:
    """Does the earlier entry take every device that the later one matches?"""
    names_addresses = earlier.mask & FULL_MASK
    return (
        not earlier.asks_more
        and earlier.patterns is None
        and earlier.mask & later.mask == earlier.mask
        and later.value & earlier.mask == earlier.value
        and (earlier.covers_vfs or not (names_addresses and later.covers_vfs))
    )


def _accepts(spec: DeviceSpec, device: PciDevice, host: HostView) -> bool:
    """Does the device meet the conditions beyond ids and address: ``remote_managed`` and ``devname``?"""
    if spec.remote_managed and not _serial(device, host):
        return False
    if spec.devname is None:
        return True
    target = host.netdevs.get(spec.devname)
    return target is not None and (
        target == device.address or (target == device.parent and target in host.pfs)
    )


def _serial(device: PciDevice, host: HostView) -> str | None:
    """The serial number in the VPD of the device, or else of its PF, because most VFs have no VPD."""
    pf = None if device.parent is None else host.pfs.get(device.parent)
    return device.serial or (None if pf is None else pf.serial)
