"""``portclaim config check``: what the PCI options of a nova.conf would do here. No service has to run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portclaim.cli.options import output_option
from portclaim.cli.session import command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from rich.table import Table

    from portclaim.common.pci.config_check import Finding
    from portclaim.common.pci.device import PciDevice
    from portclaim.common.pci.nova_options import Setting

_FEW = 4  # so many devices are named; the others are counted


@click.group("config")
def config() -> None:
    """Check a configuration before a service reads it."""


@command(group=config)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sysfs-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/sys",
    show_default=True,
    help="The tree whose devices the entries are tried on.",
)
@click.option("--no-host", is_flag=True, help="Check the entries only, without the devices of this machine.")
@output_option
def check(file: Path, sysfs_root: Path, no_host: bool, output: str) -> None:
    """Check the PCI options of FILE, a nova.conf, and show which devices each entry matches.

    Example: portclaim config check /etc/nova/nova.conf

    Exit status: 0 the services would start with it; 1 they would refuse it.

    Next: correct the refused entries, and copy the section [pci] into the services' configuration.
    """
    from oslo_config import cfg

    from portclaim.cli import render

    try:
        findings = _check(file, None if no_host else _devices(sysfs_root))
    except cfg.Error as error:
        raise InvalidConfiguration(str(error)) from error
    if output == "json":
        click.echo(json.dumps([_as_row(finding) for finding in findings], indent=2))
    elif findings:
        render.console().print(_table(findings))
    else:
        click.echo(f"{file} has no PCI options: no device would be handed out")
    if any(finding.refused for finding in findings):
        sys.exit(1)


def _check(file: Path, devices: Sequence[PciDevice] | None) -> list[Finding]:
    from oslo_config import cfg

    from portclaim.common.pci.config_check import Finding, check_aliases, check_device_spec
    from portclaim.common.pci.nova_options import OLD_NAMES, refusals

    conf = cfg.ConfigOpts()
    for name, old_names in OLD_NAMES.items():
        old = [cfg.DeprecatedOpt(old, group=section) for section, old in old_names]
        conf.register_opt(cfg.MultiStrOpt(name, default=[], deprecated_opts=old), "pci")
    conf(["--config-file", str(file)], project="portclaim", prog="portclaim", use_env=False)
    refused = [
        Finding(f"[{section}] {name}", refused=reason)
        for (section, name), reason in refusals(_settings(file)).items()
    ]
    return [*refused, *check_device_spec(conf.pci.device_spec, devices), *check_aliases(conf.pci.alias)]


def _settings(file: Path) -> dict[Setting, list[str]]:
    """Everything that the file sets, known or not."""
    from oslo_config import cfg

    sections: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(str(file), sections).parse()
    return {(section, name): values for section, found in sections.items() for name, values in found.items()}


def _devices(sysfs_root: Path) -> Sequence[PciDevice] | None:
    """The devices of this host, or None where it has no PCI bus."""
    from portclaim.services.compute_agent.scanner import ScanError, Scanner
    from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

    if not (sysfs_root / PCI_DEVICES).is_dir():
        return None
    try:
        return Scanner(SysfsTree(sysfs_root)).scan().devices
    except ScanError as error:
        raise InvalidConfiguration(str(error)) from error


def _as_row(finding: Finding) -> dict[str, object]:
    return {
        "entry": finding.entry,
        "refused": finding.refused,
        "takes": None if finding.takes is None else [str(device.address) for device in finding.takes],
        "notes": list(finding.notes),
    }


def _table(findings: Sequence[Finding]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("entry", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason, or matched devices", overflow="fold")
    for finding in findings:
        verdict = "[red]refused[/red]" if finding.refused else "[green]good[/green]"
        about = "; ".join(filter(None, (finding.refused, _takes(finding), *finding.notes)))
        table.add_row(escape(finding.entry), verdict, escape(about))
    return table


def _takes(finding: Finding) -> str | None:
    if finding.takes is None:
        return None
    addresses = [str(device.address) for device in finding.takes]
    if not addresses:
        return "matches no device of this host"
    rest = f" and {len(addresses) - _FEW} more" if len(addresses) > _FEW else ""
    return f"matches {', '.join(addresses[:_FEW])}{rest}"
