"""The ``address`` of a device_spec entry: partial addresses with wildcards, or patterns per field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress
from portclaim.common.pci.option_text import shown
from portclaim.common.pci.pattern import compile_pattern

ANY = "*"
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)


class Field(NamedTuple):
    """One field of an address: its name, the number of bits it takes, and its largest value."""

    name: str
    bits: int
    limit: int


DOMAIN = Field("domain", 16, 0xFFFF)
BUS = Field("bus", 8, 0xFF)
SLOT = Field("slot", 5, 0x1F)
FUNCTION = Field("function", 3, 0x7)
FIELDS = (DOMAIN, BUS, SLOT, FUNCTION)
"""Nova's limits. Linux has larger domains; device_spec cannot name a device in one of these."""

ADDRESS_BITS = sum(field.bits for field in FIELDS)
FULL_MASK = (1 << ADDRESS_BITS) - 1


def as_number(address: PciAddress) -> int:
    """The address as one number of ADDRESS_BITS bits; its domain must not be above ffff."""
    return address.domain << 16 | address.bus << 8 | address.slot << 3 | address.function


def as_address(number: int) -> PciAddress:
    """The reverse of :func:`as_number`."""
    return PciAddress(
        number >> 16, number >> 8 & BUS.limit, number >> 3 & SLOT.limit, number & FUNCTION.limit
    )


def hex_number(text: str, limit: int) -> int:
    """Read a plain hexadecimal number up to ``limit``. Raises ValueError with a reason."""
    if not _HEX.fullmatch(text):
        raise ValueError(f"{shown(text)} is no hexadecimal number")
    number = int(text, 16)
    if number > limit:
        raise ValueError(f"{shown(text)} is above {limit:x}")
    return number


class Glob(NamedTuple):
    """Matches the addresses that equal ``value`` in the bits of ``mask``."""

    mask: int
    value: int

    @property
    def single(self) -> PciAddress | None:
        """The address that it matches, if it has no wildcard; else None."""
        if self.mask != FULL_MASK:
            return None
        return as_address(self.value)


ANYWHERE = Glob(0, 0)


def parse_glob(text: str) -> Glob:
    """Read ``[[[[domain]:]bus]:][slot][.[function]]``, Nova's partial address.

    The text fills the fields from the right. A field is a number or ``*``; a missing or blank field means
    any. Raises ValueError with a reason.
    """
    front, _, function = text.partition(".")
    parts = front.split(":")
    if len(parts) > 3:
        raise ValueError(f"{shown(text)} has more than three fields before the function")
    if function and not function.strip():
        raise ValueError("the function is blank; leave it out or write a * for any")
    parts = [ANY] * (3 - len(parts)) + parts + [function]
    mask = value = 0
    for one, part in zip(FIELDS, parts, strict=True):
        mask <<= one.bits
        value <<= one.bits
        content = part.strip() or ANY
        if content == ANY:
            continue
        try:
            value |= hex_number(content, one.limit)
        except ValueError as error:
            raise ValueError(f"{one.name} {error}") from None
        mask |= (1 << one.bits) - 1
    return Glob(mask, value)


@dataclass(frozen=True, slots=True)
class FieldPatterns:
    """A pattern for each field. It must match the start of the field's zero-padded lower-case digits."""

    patterns: tuple[re.Pattern[str], ...]
    _addresses: dict[int, bool] = field(default_factory=dict, compare=False, repr=False)
    _fields: dict[tuple[re.Pattern[str], str], bool] = field(default_factory=dict, compare=False, repr=False)

    def match(self, number: int) -> bool:
        """Does every field of the address match?

        No pattern is tried twice on the same text. So the number of different buses, slots and functions of
        a host limits the time, even with a slow pattern.
        """
        if (known := self._addresses.get(number)) is None:
            fields = re.split("[:.]", str(as_address(number)))
            known = all(self._match_field(*pair) for pair in zip(self.patterns, fields, strict=True))
            self._addresses[number] = known
        return known

    def _match_field(self, pattern: re.Pattern[str], text: str) -> bool:
        if (known := self._fields.get((pattern, text))) is None:
            known = self._fields[pattern, text] = pattern.match(text) is not None
        return known

    @property
    def single(self) -> PciAddress | None:
        """The address, if the patterns are the plain text of one; else None."""
        domain, bus, slot, function = (pattern.pattern for pattern in self.patterns)
        text = f"{domain}:{bus}:{slot}.{function}"
        try:
            address = PciAddress.parse(text)
        except InvalidPciAddress:
            return None
        return address if str(address) == text else None


def parse_patterns(fields: Mapping[str, object]) -> FieldPatterns:
    """Read ``{"domain": pattern, "bus": …, "slot": …, "function": …}``; a field left out means any.

    Raises ValueError with a reason.
    """
    names = [one.name for one in FIELDS]
    if strangers := [name for name in fields if name not in names]:
        raise ValueError(f"{shown(strangers[0])} is no field of an address; these are {', '.join(names)}")
    return FieldPatterns(tuple(compile_pattern(fields.get(name, ".*")) for name in names))
