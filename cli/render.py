"""Show answers to people: tables and trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from portclaim.cli.table import Table

if TYPE_CHECKING:
    from portclaim.common.rpc.claim_messages import Claim, Device, Explanation
    from portclaim.common.rpc.claimed_device import ClaimedDevice
    from portclaim.common.rpc.move_messages import Move

STYLES = {
    "available": "green",
    "claimed": "yellow",
    "prepared": "yellow",
    "allocated": "bold red",
    "unclaimable": "dim yellow",
    "unavailable": "dim red",
    "removed": "dim",
    "up": "green",
    "silent": "bold red",
    "releasing": "yellow",
    "released": "green",
    "failed": "bold red",
    "expired": "dim",
    "waiting": "cyan",
    "begun": "yellow",
    "completing": "yellow",
    "completed": "green",
    "reverted": "dim",
}

_UNBROKEN = 100_000  # columns: no line of an answer is as long


def console() -> Console:
    """The console for answers: in colour on a terminal, plain and unbroken elsewhere."""
    found = Console()
    return found if found.is_terminal else Console(width=_UNBROKEN)


def claim(shown: Claim) -> None:
    """A claim and its devices."""
    out = console()
    out.print(f"claim {shown.claim_id} of instance {shown.instance_id}")
    out.print(Text.assemble("host  ", or_dash(shown.host), "\nstatus ", status(shown.status)))
    if shown.reason:
        out.print(f"reason {shown.reason}", markup=False)
    if shown.move:
        out.print(
            f"move   from claim {shown.move.source_claim_id} to {shown.move.target_claim_id},",
            status(shown.move.status),
        )
    out.print(_claimed(shown.devices))


def move(shown: Move) -> None:
    """A move, its two claims, and the devices of the new one."""
    out = console()
    kind = "live migration" if shown.kind == "live" else "move"
    out.print(f"{kind} of instance {shown.target.instance_id}")
    for word, end in (("from  ", shown.source), ("to    ", shown.target)):
        out.print(f"{word} claim {end.claim_id} on {end.host},", status(end.status))
    out.print(Text.assemble("status ", status(shown.status)))
    if shown.reason:
        out.print(f"reason {shown.reason}", markup=False)
    if shown.kind == "live" and shown.status in {"begun", "completing"}:
        now = "migrate the guest now" if shown.ready else "do not migrate the guest yet"
        out.print(f"ready  {'yes' if shown.ready else 'no'}: {now}", markup=False)
    out.print(_claimed(shown.target.devices))


def _claimed(devices: Iterable[ClaimedDevice]) -> Table:
    table = Table("request", "address", "type", "ids", "numa", "in PF", "vf", "network", "status")
    for device in devices:
        table.add_row(
            str(device.request_index),
            device.address,
            device.dev_type,
            f"{device.vendor_id}:{device.product_id}",
            or_dash(device.numa_node),
            or_dash(device.parent_address),
            or_dash(device.vf_num),
            or_dash(device.tags.get("physical_network")),
            status(device.status),
        )
    return table


def tree(shown: Iterable[Device]) -> None:
    """A tree per host."""
    out = console()
    for root in trees(shown):
        out.print(root)


def trees(shown: Iterable[Device]) -> Iterator[Tree]:
    """For each host its ports, and under each PF its VFs. Rows come sorted by host and port."""
    for host, of_host in groupby(shown, key=lambda device: device.host):
        root = Tree(Text(host, style="bold"))
        for _, (top, *vfs) in groupby(of_host, key=lambda device: device.port):
            branch = root.add(_leaf(top))
            for vf in vfs:
                branch.add(_leaf(vf))
        yield root


def explanation(shown: Explanation, refused: str = "would be refused") -> None:
    """What each filter leaves, and the reason of a refusal. ``refused``: the words for one."""
    table = Table("after the filter", "hosts", "devices")
    for row in shown.filters:
        table.add_row(row.filter, str(row.hosts), str(row.devices))
    out = console()
    out.print(table)
    verdict = "would be served" if shown.served else refused
    text = f"{verdict}: {shown.nearest_miss}" if shown.nearest_miss else verdict
    out.print(text, markup=False, soft_wrap=True)


def status(word: str) -> Text:
    """A status in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def _leaf(device: Device) -> Text:
    line = Text.assemble(
        device.address,
        "  ",
        (device.dev_type.removeprefix("type-"), "bold"),
        "  ",
        (f"{device.vendor_id}:{device.product_id}", "dim"),
        "  ",
        status(device.effective_status),
    )
    note = device.reason or (None if device.on_host else "made when it is claimed")
    if note:
        line.append(f"  {note}", style="dim")
    return line


def page_of_table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], widths: list[int], *, with_header: bool
) -> None:
    """Print a part of a long table. ``widths`` are those of the parts before, and are widened as needed."""
    table = Table(*columns, widths=widths, with_header=with_header)
    for row in rows:
        table.add_row(*row)
    widths[:] = table.widths
    console().print(table)


def or_dash(value: object) -> str:
    """The value, or a dash in place of none."""
    return "-" if value is None else str(value)


def time_span(seconds: float) -> str:
    """A time span in its two largest units."""
    rest = max(round(seconds), 0)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def rows(columns: Sequence[str], cells: Iterable[Sequence[str | Text]]) -> None:
    """A short table."""
    page_of_table(columns, cells, [0] * len(columns), with_header=True)


def facts(shown: Iterable[tuple[str, str | Text]]) -> None:
    """One fact in each line: its name, and its value."""
    out = console()
    for name, value in shown:
        out.print(Text.assemble(f"{name:<14} ", value or "-"), soft_wrap=True)


def moment(text: str) -> str:
    """A time of ISO 8601 in this machine's time zone, to the second."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
