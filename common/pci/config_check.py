"""Check the ``[pci]`` options of a nova.conf: what each entry would do here, and what is a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.alias_check import Offer, check_aliases
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs, items_of
from portclaim.common.pci.device_spec_entry import TAGS, DeviceSpec, read_device_spec
from portclaim.common.pci.errors import DeviceOutOfReach, InvalidAlias, InvalidDeviceSpec
from portclaim.common.pci.filters import Kind, satisfies
from portclaim.common.pci.finding import Finding, in_short, number
from portclaim.common.pci.host import HostView
from portclaim.common.pci.request import PciRequest
from portclaim.common.pci.vfs_by_demand import most_vfs, with_vfs_by_demand

__all__ = ["Finding", "PciOptions", "check_aliases", "check_device_spec", "check_options"]

_KEYS = ("vendor_id", "product_id", "address", "devname", "reconfigurable", "num_vfs", "vf_defaults", *TAGS)
_OF_ALIASES = frozenset({"device_type", "dev_type", "numa_policy", "name"})
_NOTHING: Mapping[PciAddress, Sequence[str]] = {}


@dataclass(frozen=True, slots=True)
class _Host:
    """A host, and what each valid entry takes there. ``beyond``: devices that no entry can name."""

    devices: Sequence[PciDevice]
    view: HostView
    specs: DeviceSpecs
    takes: Mapping[str, list[PciDevice]]
    beyond: Mapping[PciAddress, str]

    @classmethod
    def of(cls, devices: Sequence[PciDevice], view: HostView, specs: DeviceSpecs) -> _Host:
        takes: dict[str, list[PciDevice]] = {spec.source: [] for spec in specs.specs}
        beyond = {}
        for device in devices:
            try:
                match = specs.match(device, view)
            except DeviceOutOfReach as error:
                beyond[device.address] = str(error)
            else:
                if match is not None:
                    takes[match.spec.source].append(device)
        return cls(devices, view, specs, takes, beyond)

    def matched_by(self, spec: DeviceSpec) -> list[PciDevice]:
        """What the entry would take if it were the only one."""
        alone = DeviceSpecs.of([spec])
        reachable = (device for device in self.devices if device.address not in self.beyond)
        return [device for device in reachable if alone.match(device, self.view) is not None]

    def offers(self) -> list[Offer]:
        """The devices that entries take, as claims see them."""
        return [
            Offer(device, Kind(device.dev_type, device.vendor_id, device.product_id, spec.tags))
            for spec in self.specs.specs
            for device in self.takes[spec.source]
            if spec.offers(device)
        ]


class PciOptions(NamedTuple):
    """The options of a file, or of the files of the two sides. ``by_class``: see :class:`Aliases`."""

    device_spec: Sequence[str]
    alias: Sequence[str] = ()
    by_class: bool = False
    report_in_placement: bool = False


def check_options(
    options: PciOptions,
    devices: Sequence[PciDevice] | None,
    obstacles: Mapping[PciAddress, Sequence[str]] = _NOTHING,
) -> list[Finding]:
    """Check the entries of device_spec and the aliases, each by itself and together.

    ``devices`` are the devices of a host; None: only the entries are checked. ``obstacles`` says what stands
    in the way of some of them.
    """
    alias, by_class = options.alias, options.by_class
    findings, specs, view = _read(options, devices)
    known = _valid_aliases(alias, by_class)
    if devices is None:
        findings = _without_host(findings, specs)
        return findings + check_aliases(alias, specs=specs.specs, by_class=by_class)
    devices = with_vfs_by_demand(devices, specs)
    host = _Host.of(devices, view, specs)
    offers = host.offers() if specs.specs else None
    taken = {offer.device.address for offer in offers or ()}
    others = [device for device in devices if device.address not in taken]
    return [
        *_with_host(findings, host, obstacles, known),
        *check_aliases(alias, offers, others, by_class=by_class),
        *(Finding(str(address), warnings=(reason,)) for address, reason in host.beyond.items()),
    ]


def check_device_spec(entries: Sequence[str], devices: Sequence[PciDevice] | None) -> list[Finding]:
    """Check the values of ``[pci] device_spec``.

    ``devices`` are the devices of a host. With None, only the entries are checked, not what they take. A
    refused entry takes no devices, so the entries after it may take them.
    """
    return check_options(PciOptions(entries), devices)


def _read(
    options: PciOptions, devices: Sequence[PciDevice] | None
) -> tuple[list[Finding], DeviceSpecs, HostView]:
    """The findings about each entry by itself, and the valid entries."""
    view = HostView.of(devices or ())
    findings: list[Finding] = []
    specs: list[DeviceSpec] = []
    for place, text in enumerate(options.device_spec, 1):
        source = f"device_spec {place}"
        try:
            items = items_of(source, text)
        except InvalidDeviceSpec as error:
            findings.append(Finding(source, refused=error.about_entry))
            continue
        for name, item in items:
            try:
                specs.append(
                    read_device_spec(name, item, view, report_in_placement=options.report_in_placement)
                )
                findings.append(Finding(name, warnings=tuple(_strange_tags(specs[-1].tags))))
            except InvalidDeviceSpec as error:
                findings.append(Finding(name, refused=error.about_entry))
    return findings, DeviceSpecs.of(specs), view


def _strange_tags(tags: Iterable[str]) -> Iterable[str]:
    for tag in tags:
        if tag in _OF_ALIASES:
            yield (
                f"{tag} is a key of an alias: here it is a tag of yours and selects no devices; to take only "
                "VFs, write their product_id"
            )
        elif tag not in _KEYS and (close := difflib.get_close_matches(tag, _KEYS, n=1, cutoff=0.75)):
            yield f"{tag} is taken as a tag of yours: write {close[0]} if you mean that"


def _without_host(findings: Sequence[Finding], specs: DeviceSpecs) -> list[Finding]:
    """The findings, with what the order of the entries says alone."""
    hidden = specs.hidden()
    return [
        finding
        if (earlier := hidden.get(finding.entry)) is None
        else replace(finding, takes=(), warnings=(*finding.warnings, _comes_first(earlier, "all")))
        for finding in findings
    ]


def _comes_first(earlier: str, how_many: str) -> str:
    return f"{earlier} comes first and takes {how_many} that it matches: put this entry before it"


def _with_host(
    findings: Iterable[Finding],
    host: _Host,
    obstacles: Mapping[PciAddress, Sequence[str]],
    aliases: Aliases,
) -> list[Finding]:
    """The findings with the devices that each entry takes."""
    specs = {spec.source: spec for spec in host.specs.specs}
    result = []
    for finding in findings:
        if (spec := specs.get(finding.entry)) is None:
            result.append(finding)
            continue
        takes = host.takes[spec.source]
        warnings = [*finding.warnings, *_of_obstacles(takes, obstacles), *_too_many_vfs(spec, takes)]
        notes: list[str] = []
        if not takes:
            warnings.extend(_why_nothing(spec, host))
        elif (whole := _unwanted_ports(takes, host, aliases)) is not None:
            (warnings if aliases.by_name else notes).append(whole)
        result.append(replace(finding, takes=tuple(takes), warnings=tuple(warnings), notes=tuple(notes)))
    return result


def _of_obstacles(takes: Sequence[PciDevice], obstacles: Mapping[PciAddress, Sequence[str]]) -> list[str]:
    found = [(device.address, reason) for device in takes for reason in obstacles.get(device.address, ())]
    if len(found) > 1 and len({reason for _, reason in found}) == 1:
        return [f"{in_short([str(address) for address, _ in found])}: {found[0][1]}"]
    shown = [f"{address}: {reason}" for address, reason in found[:4]]
    rest = len(found) - len(shown)
    return [
        *shown,
        *([f"the same of {number(rest, 'more device')}: see portclaim host scan"] if rest else []),
    ]


def _too_many_vfs(spec: DeviceSpec, takes: Iterable[PciDevice]) -> Iterable[str]:
    """Ports that can have fewer VFs than the entry says, or that do not show where their VFs will be."""
    wanted = spec.num_vfs if spec.most_vfs is None else spec.most_vfs
    for port in takes:
        if wanted is None or port.dev_type is not DeviceType.PF:
            continue
        if wanted > port.total_vfs:
            yield f"{port.address} can have {port.total_vfs} VFs, and num_vfs says {wanted}: it gets as many"
        if spec.most_vfs is not None and not most_vfs(port, spec):
            yield (
                f"{port.address} gets no VFs by demand: its kernel driver does not show where they will be. "
                "Write a number as num_vfs"
            )


def _why_nothing(spec: DeviceSpec, host: _Host) -> Iterable[str]:
    """Why an entry takes no device of this host, if it is not simply that there is none."""
    matched = host.matched_by(spec)
    if matched:
        first = [match for device in matched if (match := host.specs.match(device, host.view)) is not None]
        sources = list(dict.fromkeys(match.spec.source for match in first))
        yield _comes_first(in_short(sources), "all" if len(matched) == 1 else f"all {len(matched)} devices")
    elif spec.devname is not None and spec.devname not in host.view.netdevs:
        yield f"this host has no network interface {spec.devname} now"
    elif spec.remote_managed and host.matched_by(replace(spec, remote_managed=False)):
        yield "the devices that it matches show no serial number in their VPD, which remote_managed needs"


def _unwanted_ports(takes: Sequence[PciDevice], host: _Host, aliases: Aliases) -> str | None:
    """Ports that the entry takes whole, although only their VFs are asked for."""
    own = {device.address for device in takes}
    kinds = {offer.device.address: offer.kind for offer in host.offers() if offer.device.address in own}
    requests = [PciRequest(1, aliases.spec_of(alias)) for alias in aliases.by_name.values()]
    pfs = [device for device in takes if device.dev_type is DeviceType.PF and device.address in kinds]
    vfs = [device for device in takes if device.dev_type is DeviceType.VF]
    asked = {address for address, kind in kinds.items() if any(satisfies(one, kind) for one in requests)}
    unasked = [pf for pf in pfs if pf.address not in asked]
    if not unasked or not vfs or (requests and not any(vf.address in asked for vf in vfs)):
        return None
    ports = in_short([str(pf.address) for pf in unasked])
    products = sorted({vf.product_id for vf in vfs})
    advice = f'write "product_id": "{products[0]}"' if len(products) == 1 else "write their product_id"
    if not requests:
        return f"offers {ports} both whole and in slices; for the VFs only, {advice}"
    return f"takes {ports} whole too, which no alias asks for: if only VFs are meant, {advice}"


def _valid_aliases(entries: Sequence[str], by_class: bool) -> Aliases:
    aliases = Aliases({}, by_class)
    for text in entries:
        try:
            aliases = aliases.with_entry("alias", text)
        except InvalidAlias:
            continue
    return aliases
