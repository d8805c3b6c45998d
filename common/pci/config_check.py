"""Check the ``[pci]`` section of a nova.conf: what each entry would do in Portclaim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from portclaim.common.pci.alias import Aliases, read_alias
from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs, items_of
from portclaim.common.pci.device_spec_entry import DeviceSpec, read_device_spec
from portclaim.common.pci.errors import DeviceOutOfReach, InvalidAlias, InvalidDeviceSpec, InvalidOption
from portclaim.common.pci.host import HostView


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one entry.

    ``refused`` is the reason why no service would start with the entry; None: the entry is valid. ``takes``
    are the devices that a device_spec entry takes on the given host; None: this was not checked. ``notes``
    say what may surprise.
    """

    entry: str
    refused: str | None = None
    takes: tuple[PciDevice, ...] | None = None
    notes: tuple[str, ...] = ()


def check_device_spec(entries: Sequence[str], devices: Sequence[PciDevice] | None) -> list[Finding]:
    """Check the values of ``[pci] device_spec``.

    ``devices`` are the devices of a host. With None, only the entries are checked, not what they take. A
    refused entry takes no devices, so the entries after it may take them.
    """
    host = HostView.of(devices or ())
    findings: list[Finding] = []
    specs: list[DeviceSpec] = []
    for number, text in enumerate(entries, 1):
        source = f"device_spec {number}"
        try:
            items = items_of(source, text)
        except InvalidDeviceSpec as error:
            findings.append(_refused(source, error))
            continue
        for name, item in items:
            try:
                specs.append(read_device_spec(name, item, host))
                findings.append(Finding(name))
            except InvalidDeviceSpec as error:
                findings.append(_refused(name, error))
    return findings if devices is None else _with_host(findings, DeviceSpecs.of(specs), devices, host)


def check_aliases(entries: Sequence[str]) -> list[Finding]:
    """Check the values of ``[pci] alias``."""
    findings: list[Finding] = []
    aliases = Aliases({})
    for number, text in enumerate(entries, 1):
        source = f"alias {number}"
        try:
            aliases = aliases.plus(source, read_alias(source, text))
            findings.append(Finding(source))
        except InvalidAlias as error:
            findings.append(_refused(source, error))
    return findings


def _refused(source: str, error: InvalidOption) -> Finding:
    return Finding(source, refused=": ".join(part for part in (error.key, error.reason) if part))


def _with_host(
    findings: Iterable[Finding], specs: DeviceSpecs, devices: Iterable[PciDevice], host: HostView
) -> list[Finding]:
    """The findings with the devices that each entry takes. Devices that device_spec cannot name come last."""
    takes: dict[str, list[PciDevice]] = {spec.source: [] for spec in specs.specs}
    beyond: list[Finding] = []
    for device in devices:
        try:
            match = specs.match(device, host)
        except DeviceOutOfReach as error:
            beyond.append(Finding(str(device.address), notes=(str(error),)))
        else:
            if match is not None:
                takes[match.spec.source].append(device)
    absent = {
        spec.source: (f"this host has no network interface {spec.devname} now",)
        for spec in specs.specs
        if spec.devname is not None and spec.devname not in host.netdevs
    }
    return [
        replace(
            finding,
            takes=tuple(takes[finding.entry]) if finding.refused is None else None,
            notes=finding.notes + absent.get(finding.entry, ()),
        )
        for finding in findings
    ] + beyond
