"""``portclaim host scan|record|hand-over``: this machine as its compute agent sees it. No service runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from portclaim.cli import documents, maintenance, recovery, trust
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from portclaim.cli.table import Table
    from portclaim.common.pci.device import PciDevice
    from portclaim.common.pci.device_spec import DeviceSpecs
    from portclaim.common.pci.host import HostView

_sysfs_root = click.option(
    "--sysfs-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root of the tree to read. Default: [compute_agent] sysfs_root, which is /sys.",
)

_COLUMNS = ("address", "type", "ids", "numa", "driver", "group", "netdev", "VFs", "matched by", "in the way")


@click.group()
def host() -> None:
    """List, drain, remove and enrol hosts, renew used devices, recover claims; scan this machine."""


for each in (
    maintenance.list_,
    maintenance.drain,
    maintenance.undrain,
    maintenance.remove,
    maintenance.renew,
    recovery.unknown_claims,
    recovery.recover,
    trust.enroll,
    trust.revoke,
    trust.keys_,
):
    host.add_command(each)


@command(group=host)
@_sysfs_root
@output_option
@click.pass_obj
def scan(session: Session, sysfs_root: Path | None, output: str) -> None:
    """Show the PCI devices of this machine, which entry of [pci] device_spec matches each, and what stands in
    the way of it.

    Example: portclaim host scan

    An agent would refuse to hand over a device that has an obstacle. No service has to run, and nothing is
    changed.

    Next: portclaim config check FILE tries the entries of another file on these devices.
    """
    from portclaim.cli import render
    from portclaim.common.pci.device_spec import DeviceSpecs
    from portclaim.common.pci.errors import InvalidDeviceSpec
    from portclaim.common.pci.host import HostView
    from portclaim.services.compute_agent.obstacles import obstacles
    from portclaim.services.compute_agent.scanner import ScanError, Scanner
    from portclaim.services.compute_agent.sysfs import SysfsTree

    tree = SysfsTree(sysfs_root or Path(session.conf.compute_agent.sysfs_root))
    try:
        found = Scanner(tree).scan()
    except ScanError as error:
        raise InvalidConfiguration(str(error)) from error
    view = HostView.of(found.devices)
    try:
        pci = session.conf.pci
        specs = DeviceSpecs.parse(pci.device_spec, view, report_in_placement=pci.report_in_placement)
    except InvalidDeviceSpec as error:
        raise InvalidConfiguration(f"[pci] device_spec: {error}") from error
    taken_by = {str(device.address): _taken_by(specs, device, view) for device in found.devices}
    in_the_way = {str(address): reasons for address, reasons in obstacles(tree, found).items()}
    if output != "table":
        problems = {str(address): problem for address, problem in found.problems.items()}
        rows = [_as_row(device, taken_by, problems, in_the_way) for device in found.devices]
        documents.document(output, rows)
        return
    render.console().print(_table(found.devices, taken_by, in_the_way))
    for spec in specs.specs:
        count = list(taken_by.values()).count(spec.source)
        click.echo(f"{spec.source} matches {count} device{'' if count == 1 else 's'}")
    if not specs.specs:
        click.echo("[pci] device_spec is not set: no device of this host would be handed out")


@command(group=host)
@_sysfs_root
@click.option("--identifying", is_flag=True, help="Include serial numbers and MACs.")
@click.argument("file", type=click.File("w"), default="-")
@click.pass_obj
def record(session: Session, sysfs_root: Path | None, identifying: bool, file: TextIO) -> None:
    """Write what a scan reads to FILE or standard output, for tests and bug reports.

    Example: portclaim host record machine.json

    Next: attach the file to a bug report. Without --identifying it has no serial numbers and no MACs.
    """
    from portclaim.services.compute_agent import recording
    from portclaim.services.compute_agent.sysfs import SysfsTree

    root = sysfs_root or Path(session.conf.compute_agent.sysfs_root)
    file.write(recording.record(SysfsTree(root), identifying=identifying).as_json())


@command("hand-over", group=host)
@click.pass_obj
def hand_over(session: Session) -> None:
    """Hand over the devices of this machine's live claims again, as after a power loss.

    Example: portclaim host hand-over

    The compute agent does the same when it starts. This command can run before the host's network starts, so
    that no network manager uses the VF of a claim: see the unit portclaim-hand-over.service. It exits with 1
    if a claim cannot have its device now. The agent then tries again.

    Next: start the compute agent.
    """
    from portclaim.services.compute_agent.hand_over_again import hand_over_again

    reasons = hand_over_again(session.conf)
    for address, reason in reasons.items():
        click.echo(f"{address}: {reason or 'ready for its guest'}")
    if any(reasons.values()):
        click.get_current_context().exit(1)


def _taken_by(specs: DeviceSpecs, device: PciDevice, view: HostView) -> str | None:
    from portclaim.common.pci.errors import DeviceOutOfReach

    try:
        match = specs.match(device, view)
    except DeviceOutOfReach:
        return None
    return None if match is None else match.spec.source


def _as_row(
    device: PciDevice,
    taken_by: Mapping[str, str | None],
    problems: Mapping[str, str],
    in_the_way: Mapping[str, Sequence[str]],
) -> dict[str, str | int | list[str] | None]:
    address = str(device.address)
    return {
        "address": address,
        "dev_type": device.dev_type.value,
        "class_id": device.class_id,
        "vendor_id": device.vendor_id,
        "product_id": device.product_id,
        "numa_node": device.numa_node,
        "parent_address": None if device.parent is None else str(device.parent),
        "driver": device.driver,
        "iommu_group": device.iommu_group,
        "netdev": device.netdev,
        "mac": device.mac,
        "serial": device.serial,
        "total_vfs": device.total_vfs,
        "num_vfs": device.num_vfs,
        "taken_by": taken_by[address],
        "problem": problems.get(address),
        "obstacles": list(in_the_way.get(address, ())),
    }


def _table(
    devices: tuple[PciDevice, ...],
    taken_by: Mapping[str, str | None],
    in_the_way: Mapping[str, Sequence[str]],
) -> Table:
    from portclaim.cli.table import Table

    table = Table(*_COLUMNS)
    for device in devices:
        address = str(device.address)
        shown = (
            device.numa_node,
            device.driver,
            device.iommu_group,
            device.netdev,
            f"{device.num_vfs} of {device.total_vfs}" if device.total_vfs else None,
            taken_by[address],
        )
        table.add_row(
            address,
            device.dev_type.value,
            f"{device.vendor_id}:{device.product_id}",
            *("-" if value is None else str(value) for value in shown),
            "; ".join(in_the_way.get(address, ())),
        )
    return table
