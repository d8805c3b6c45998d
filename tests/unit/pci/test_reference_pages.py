"""Every example of the reference pages does what the page says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.config_check import Finding, check_aliases, check_device_spec
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import InvalidAlias, InvalidDeviceSpec, InvalidTransition
from portclaim.common.pci.extra_specs import ALIAS, requests_from_extra_specs
from portclaim.common.pci.filters import Affinity
from portclaim.common.pci.host import HostView
from portclaim.common.pci.request import NumaPolicy, PciRequest
from portclaim.common.pci.status import DeviceTree, TreeDevice

PAGES = Path(__file__).parents[3] / "docs" / "reference"
NAMES = ("device_spec.md", "alias.md", "extra_specs.md", "device_status.md")


class Block(NamedTuple):
    """A fenced block of a page: its info string, its lines, and the values of the latest ini block."""

    info: str
    lines: list[str]
    values: list[str]


def blocks(name: str) -> Iterator[Block]:
    """The blocks of a page that show an answer."""
    values: list[str] = []
    for info, text in re.findall(r"```([^\n]*)\n(.*?)```", (PAGES / name).read_text(), re.DOTALL):
        lines = [line.rstrip() for line in text.splitlines()]
        if info == "ini":
            values = [line.partition(" = ")[2] for line in lines if " = " in line]
        else:
            yield Block(info, lines, values)


BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name in NAMES
    for number, block in enumerate(blocks(name), 1)
    if block.info != "text host"
]


def test_each_page_has_examples() -> None:
    assert all(list(blocks(name)) for name in NAMES)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_example_does_what_the_page_says(block: Block) -> None:
    kind, *words = shlex.split(block.info.removeprefix("text").strip() or "findings")
    match kind:
        case "findings":
            shown = findings(block.values)
        case "requests":
            shown = requests(block.values, *words)
        case "numa":
            shown = distances()
        case "story":
            shown = story(block.lines)
    assert shown == block.lines


def findings(values: Sequence[str]) -> list[str]:
    if '"name"' in values[0]:
        return [_finding(finding) for finding in check_aliases(values)]
    devices = host()
    tags = _tags_of_entries(values, HostView.of(devices))
    return [_finding(finding, tags.get(finding.entry, "")) for finding in check_device_spec(values, devices)]


def _finding(finding: Finding, tags: str = "") -> str:
    if finding.refused:
        return f"{finding.entry}: refused, {finding.refused}"
    taken = " ".join(str(device.address) for device in finding.takes or ())
    notes = "".join(f"; {note}" for note in (*finding.warnings, *finding.notes))
    return f"{finding.entry}: {finding.verdict}{', takes ' + taken if taken else ''}{tags}{notes}"


def _tags_of_entries(values: Sequence[str], view: HostView) -> dict[str, str]:
    try:
        specs = DeviceSpecs.parse(values, view).specs
    except InvalidDeviceSpec:
        return {}
    shown = {spec.source: " ".join(f"{key}={value}" for key, value in spec.tags.items()) for spec in specs}
    return {source: f", tags {tags}" for source, tags in shown.items() if tags}


def host() -> list[PciDevice]:
    """The host of the page."""
    lines = next(block.lines for block in blocks("device_spec.md") if block.info == "text host")
    return [_device(*line.split()) for line in lines]


def _device(address: str, dev_type: str, ids: str, *more: str) -> PciDevice:
    vendor, product = ids.split(":")
    return PciDevice(
        PciAddress.parse(address),
        DeviceType(dev_type),
        vendor,
        product,
        parent=PciAddress.parse(more[1]) if dev_type == "type-VF" else None,
        netdev=more[0] if dev_type == "type-PF" else None,
        total_vfs=8 if dev_type == "type-PF" else 0,
    )


def requests(values: Sequence[str], wanted: str, *more: str) -> list[str]:
    extra_specs = {ALIAS: wanted} | dict(word.split("=") for word in more)
    try:
        return [
            _request(one) for one in requests_from_extra_specs(extra_specs, Aliases.parse(values)).requests
        ]
    except InvalidAlias as error:
        return [str(error)]


def _request(request: PciRequest) -> str:
    alternatives = (" ".join(f"{key}={value}" for key, value in one.items()) for one in request.spec)
    return f"{request.count} of {request.alias_name}, {request.numa_policy}: {' | '.join(alternatives)}"


def distances() -> list[str]:
    affinity = Affinity(frozenset({0}), {0: 0, 1: 0, 2: 1})
    words = {0: "first", 1: "then", 2: "last", None: "never"}
    rows = [["", "node 0", "node 1", "node 2", "unknown"]]
    policies = (NumaPolicy.REQUIRED, NumaPolicy.SOCKET, NumaPolicy.LEGACY, NumaPolicy.PREFERRED)
    rows += [
        [policy, *(words[affinity.distance(policy, node)] for node in (0, 1, 2, None))] for policy in policies
    ]
    return [f"{row[0]:12}{''.join(f'{word:10}' for word in row[1:])}".rstrip() for row in rows]


def story(lines: Sequence[str]) -> list[str]:
    """Do the actions of the first column, and show the statuses after each."""
    keys = ("pf", "vf1", "vf2")
    vf = TreeDevice(DeviceType.VF, "pf")
    tree = DeviceTree({"pf": TreeDevice(DeviceType.PF), "vf1": vf, "vf2": vf})
    shown = [_row("", keys), _row("", [tree.status(key) for key in keys])]
    for line in lines[2:]:
        does = line[:22].rstrip()
        operation, key, *owner = does.replace(" for ", " ").replace(" to ", " ").split()
        try:
            getattr(tree, operation)(key, *owner)
            shown.append(_row(does, [tree.status(key) for key in keys]))
        except InvalidTransition:
            shown.append(_row(does, ["refused"]))
    return shown


def _row(does: str, cells: Sequence[str]) -> str:
    return f"{does:22}{''.join(f'{cell:13}' for cell in cells)}".rstrip()
