"""``[pci] alias``: names for kinds of devices, and the requests that a flavor makes with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.errors import InvalidAlias, UnknownAlias
from portclaim.common.pci.option_text import as_text, read_boolean, read_json, shown
from portclaim.common.pci.placement_names import (
    RESOURCE_CLASS,
    TRAITS,
    check_class,
    check_traits,
    class_name,
    default_class,
)
from portclaim.common.pci.request import MAX_COUNT, NumaPolicy, PciRequest

MAX_NAME = 256
DEVICE_TYPES = (DeviceType.PCI, DeviceType.PF, DeviceType.VF)
_KEYS = (
    "name",
    "vendor_id",
    "product_id",
    "device_type",
    "numa_policy",
    "live_migratable",
    "resource_class",
    "traits",
    "capability_type",
)
_IDS = ("vendor_id", "product_id")
_ID = re.compile(r"[0-9a-fA-F]{4}")
_COUNT = re.compile(r"0*([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Alias:
    """A kind of device. A device must satisfy one alternative in ``spec``, as in :class:`PciRequest`."""

    name: str
    numa_policy: NumaPolicy
    spec: tuple[Mapping[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Aliases:
    """All aliases by name.

    ``by_class``: an alias without a resource class asks for the class of its ids, ``CUSTOM_PCI_8086_154C``,
    as in Nova with ``[filter_scheduler] pci_in_placement``. So it does not get devices whose device_spec
    entry names another class.
    """

    by_name: Mapping[str, Alias]
    by_class: bool = False

    @classmethod
    def parse(cls, entries: Sequence[str], *, by_class: bool = False) -> Aliases:
        """Read the values of ``[pci] alias``, each a JSON object.

        Entries of the same name are alternatives; they must agree on device type and NUMA policy.
        Raises :class:`InvalidAlias`.
        """
        aliases = cls({}, by_class)
        for number, text in enumerate(entries, 1):
            aliases = aliases.with_entry(f"alias {number}", text)
        return aliases

    def with_entry(self, source: str, text: str) -> Aliases:
        """These aliases and one more value of the option. Raises :class:`InvalidAlias`."""
        return self.plus(source, read_alias(source, text))

    def plus(self, source: str, one: Alias) -> Aliases:
        """These aliases and one more entry. Messages call it ``source``. Raises :class:`InvalidAlias`."""
        known = self.by_name.get(one.name)
        joined = one if known is None else _join(source, known, one)
        return replace(self, by_name={**self.by_name, one.name: joined})

    def spec_of(self, alias: Alias) -> tuple[Mapping[str, str | None], ...]:
        """What a device must satisfy to be one of ``alias``."""
        return tuple(_with_class(alternative) for alternative in alias.spec) if self.by_class else alias.spec

    def requests(self, extra_spec: str, affinity_policy: NumaPolicy | None = None) -> tuple[PciRequest, ...]:
        """The requests of an extra spec ``pci_passthrough:alias``: ``name:count``, separated by commas.

        ``affinity_policy`` overrides the aliases' own NUMA policies. Raises :class:`InvalidAlias`.
        """
        return tuple(self._request(part, affinity_policy) for part in extra_spec.split(","))

    def _request(self, part: str, affinity_policy: NumaPolicy | None) -> PciRequest:
        name, colon, count = part.partition(":")
        number = _COUNT.fullmatch(count.strip())
        if not colon or number is None:
            raise InvalidAlias(f"{shown(part)} does not say which devices and how many; write name:count")
        alias = self.by_name.get(name.strip())
        if alias is None:
            known = ", ".join(sorted(self.by_name)) or "none at all"
            raise UnknownAlias(f"{shown(name.strip())} is no alias; defined are {known}")
        if not 1 <= int(number[1]) <= MAX_COUNT:
            raise InvalidAlias(
                f"{shown(part)} asks for {number[1]} devices; from 1 to {MAX_COUNT} can be asked for"
            )
        return PciRequest(
            count=int(number[1]),
            spec=self.spec_of(alias),
            alias_name=alias.name,
            numa_policy=affinity_policy or alias.numa_policy,
        )


def read_alias(source: str, text: str) -> Alias:
    """Parse one value of the option. Raises :class:`InvalidAlias` with ``source``, key and reason."""
    try:
        entry = read_json(text)
    except ValueError as error:
        raise InvalidAlias(str(error), source) from None
    if not isinstance(entry, dict):
        raise InvalidAlias("not a JSON object", source)
    fields: dict[str, str] = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise InvalidAlias(f"not a key of an alias; these are {', '.join(_KEYS)}", source, ascii(key))
        if not isinstance(value, str):
            raise InvalidAlias(f"{shown(value)} is no string", source, key)
        try:
            fields[key] = as_text(value)
        except ValueError as error:
            raise InvalidAlias(str(error), source, key) from None
    return _checked(source, fields)


def _checked(source: str, fields: Mapping[str, str]) -> Alias:
    if "name" not in fields:
        raise InvalidAlias("missing; an alias needs it", source, "name")
    if not 1 <= len(fields["name"]) <= MAX_NAME:
        raise InvalidAlias(f"must have 1 to {MAX_NAME} characters", source, "name")
    spec: dict[str, str | None] = {**_ids(source, fields)}
    if "device_type" in fields:
        spec["dev_type"] = _choice(source, fields, "device_type", DEVICE_TYPES)
    if "live_migratable" in fields:
        word = read_boolean(fields["live_migratable"])
        if word is None:
            raise InvalidAlias(
                f"{shown(fields['live_migratable'])} is neither yes nor no", source, "live_migratable"
            )
        spec["live_migratable"] = as_text(word)
    for key, check in ((RESOURCE_CLASS, check_class), (TRAITS, check_traits)):
        if key in fields:
            try:
                spec[key] = check(fields[key])
            except ValueError as error:
                raise InvalidAlias(str(error), source, key) from None
    if "capability_type" in fields:  # an old key whose only value is "pci": it restricts nothing
        _choice(source, fields, "capability_type", ("pci",))
    policy = NumaPolicy.LEGACY
    if "numa_policy" in fields:
        policy = NumaPolicy(_choice(source, fields, "numa_policy", tuple(NumaPolicy)))
    return Alias(fields["name"].strip(), policy, (spec,))


def _ids(source: str, fields: Mapping[str, str]) -> dict[str, str]:
    """The ids. An alias with a resource class need not have them."""
    by_class = bool(fields.get(RESOURCE_CLASS, "").strip())
    for key in _IDS:
        if key not in fields and not by_class:
            raise InvalidAlias(f"missing; an alias needs it, or a {RESOURCE_CLASS}", source, key)
        if key in fields and not _ID.fullmatch(fields[key]):
            raise InvalidAlias(f"{shown(fields[key])} is not four hexadecimal digits", source, key)
    return {key: fields[key].lower() for key in _IDS if key in fields}


def _choice(source: str, fields: Mapping[str, str], key: str, choices: Sequence[str]) -> str:
    if fields[key] not in choices:
        raise InvalidAlias(f"{shown(fields[key])} is none of {', '.join(choices)}", source, key)
    return fields[key]


def _join(source: str, known: Alias, one: Alias) -> Alias:
    """``known`` with one more alternative."""
    if known.numa_policy is not one.numa_policy:
        raise InvalidAlias(
            f"another entry named {shown(one.name)} has {known.numa_policy}", source, "numa_policy"
        )
    device_type = known.spec[0].get("dev_type")
    if device_type != one.spec[0].get("dev_type"):
        raise InvalidAlias(
            f"another entry named {shown(one.name)} has {device_type or 'none'}", source, "device_type"
        )
    return Alias(known.name, known.numa_policy, known.spec + one.spec)


def _with_class(alternative: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """The alternative with the resource class that it implies."""
    vendor_id, product_id = (alternative.get(key) for key in _IDS)
    if class_name(alternative.get(RESOURCE_CLASS) or "") or vendor_id is None or product_id is None:
        return alternative
    return {**alternative, RESOURCE_CLASS: default_class(vendor_id, product_id)}
