"""``portclaim config check``: what the PCI options of a nova.conf would do here. No service has to run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.session import command
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.finding import Finding, in_short

if TYPE_CHECKING:
    from portclaim.cli.table import Table
    from portclaim.common.pci.address import PciAddress
    from portclaim.common.pci.device import PciDevice
    from portclaim.common.pci.nova_options import Setting

_COLOURS = {"ok": "green", "takes nothing": "yellow", "warning": "yellow", "refused": "red"}


@click.group("config")
def config() -> None:
    """Check a configuration before a service reads it."""


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(group=config)
@click.argument("file", type=_file, required=False)
@click.option("--compute", type=_file, help="The nova.conf of a compute node, instead of FILE.")
@click.option("--scheduler", type=_file, help="The nova.conf of the API and the schedulers, instead of FILE.")
@click.option(
    "--sysfs-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/sys",
    show_default=True,
    help="The tree whose devices the entries are tried on.",
)
@click.option("--no-host", is_flag=True, help="Check the entries only, without the devices of this machine.")
@output_option
def check(
    file: Path | None,
    compute: Path | None,
    scheduler: Path | None,
    sysfs_root: Path,
    no_host: bool,
    output: str,
) -> None:
    """Check the PCI options of FILE, a nova.conf, and show which devices each entry and each alias matches.

    Example: portclaim config check /etc/nova/nova.conf

    Where [api] auth = keystone, the section [keystone_authtoken] is checked too, without asking Keystone. No
    password is shown.

    Give the two sides' files as --compute and --scheduler to check device_spec of the one with the aliases
    of the other.

    \b
    ok             the entry does what it says
    takes nothing  it is valid, but matches no device here
    warning        it is probably a mistake; the reason says what to write instead
    refused        no service would start with it

    Exit status: 0 the services would start with it; 1 they would refuse it.

    Next: correct the entries, and copy the section [pci] into the services' configuration.
    """
    from oslo_config import cfg

    from portclaim.cli import render
    from portclaim.common import config_faults

    if (file is None) == (compute is None and scheduler is None):
        raise click.UsageError("give either FILE, or --compute and --scheduler")
    try:
        findings = _check(compute or file, scheduler or file, None if no_host else sysfs_root)
    except cfg.Error as error:
        raise InvalidConfiguration(config_faults.explained(error)) from error
    if output != "table":
        documents.document(output, [_as_row(finding) for finding in findings])
    elif findings:
        render.console().print(_table(findings))
    else:
        click.echo(f"{file or compute or scheduler} has no PCI options: no device would be handed out")
    if any(finding.refused for finding in findings):
        sys.exit(1)


def _check(compute: Path | None, scheduler: Path | None, sysfs_root: Path | None) -> list[Finding]:
    """The findings about the files of the two sides, which may be one file."""
    from portclaim.cli import keystone_check
    from portclaim.common.pci.config_check import PciOptions, check_options

    sides = {path: _read(path) for path in (compute, scheduler) if path is not None}
    options = PciOptions(
        device_spec=sides[compute].device_spec if compute else (),
        alias=next(side.alias for path, side in sides.items() if path == (scheduler or compute)),
        by_class=any(side.pci_in_placement for side in sides.values()),
        report_in_placement=any(side.report_in_placement for side in sides.values()),
    )
    devices, obstacles = (None, {}) if sysfs_root is None else _devices(sysfs_root)
    findings = [finding for side in sides.values() for finding in side.findings]
    findings += check_options(options, devices if compute else None, obstacles)
    if compute and scheduler and sides[compute].alias and set(sides[compute].alias) != set(options.alias):
        findings.append(Finding(f"[pci] alias of {compute.name}", notes=(_OTHER_ALIASES,)))
    for path in sides:
        findings += keystone_check.check(path, {section for section, _ in _settings(path)})
    return findings


_OTHER_ALIASES = "differs from that of the scheduler, which alone counts: compute agents need no aliases"


class _Side(NamedTuple):
    """The PCI options of a file, and the findings about those that take one value."""

    device_spec: Sequence[str]
    alias: Sequence[str]
    report_in_placement: bool
    pci_in_placement: bool
    findings: Sequence[Finding]


def _read(file: Path) -> _Side:
    from oslo_config import cfg

    from portclaim.common.pci.nova_options import EXPLAINED, OLD_NAMES, refusals

    conf = cfg.ConfigOpts()
    for name, old_names in OLD_NAMES.items():
        old = [cfg.DeprecatedOpt(old, group=section) for section, old in old_names]
        conf.register_opt(cfg.MultiStrOpt(name, default=[], deprecated_opts=old), "pci")
    for section, name in EXPLAINED:
        conf.register_opt(cfg.BoolOpt(name, default=False), section)
    conf(["--config-file", str(file)], project="portclaim", prog="portclaim", use_env=False)
    findings = [
        Finding(f"[{section}] {name}", refused=reason)
        for (section, name), reason in refusals(_settings(file)).items()
    ]
    for (section, name), meaning in EXPLAINED.items():
        if conf[section][name]:
            findings.append(Finding(f"[{section}] {name}", notes=(meaning,)))
    return _Side(
        conf.pci.device_spec,
        conf.pci.alias,
        conf.pci.report_in_placement,
        conf.filter_scheduler.pci_in_placement,
        findings,
    )


def _settings(file: Path) -> dict[Setting, list[str]]:
    """Everything that the file sets, known or not."""
    from oslo_config import cfg

    sections: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(str(file), sections).parse()
    return {(section, name): values for section, found in sections.items() for name, values in found.items()}


def _devices(
    sysfs_root: Path,
) -> tuple[Sequence[PciDevice] | None, Mapping[PciAddress, Sequence[str]]]:
    """The devices of this host, and what stands in their way; None where it has no PCI bus."""
    from portclaim.services.compute_agent.obstacles import obstacles
    from portclaim.services.compute_agent.scanner import ScanError, Scanner
    from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

    if not (sysfs_root / PCI_DEVICES).is_dir():
        return None, {}
    tree = SysfsTree(sysfs_root)
    try:
        scan = Scanner(tree).scan()
    except ScanError as error:
        raise InvalidConfiguration(str(error)) from error
    return scan.devices, obstacles(tree, scan)


def _as_row(finding: Finding) -> dict[str, object]:
    return {
        "entry": finding.entry,
        "verdict": finding.verdict,
        "refused": finding.refused,
        "takes": None if finding.takes is None else [str(device.address) for device in finding.takes],
        "warnings": list(finding.warnings),
        "notes": list(finding.notes),
    }


def _table(findings: Sequence[Finding]) -> Table:
    from rich.text import Text

    from portclaim.cli.table import Table

    table = Table("entry", "verdict", "reason, or matched devices")
    for finding in findings:
        about = "; ".join(filter(None, (finding.refused, _takes(finding), *finding.warnings, *finding.notes)))
        table.add_row(finding.entry, Text(finding.verdict, style=_COLOURS[finding.verdict]), about)
    return table


def _takes(finding: Finding) -> str | None:
    if finding.takes is None:
        return None
    if not finding.takes:
        return None if finding.warnings else "matches no device of this host"
    return f"matches {in_short([str(device.address) for device in finding.takes])}"
