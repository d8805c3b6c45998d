"""An agent that has served many claims is as it was before: no open file, no row and no memory stays."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.one_host import PF, VFS, OneHost, one_host
from tests.support.services import Services

CYCLES = int(os.environ.get("PORTCLAIM_CYCLES", "10"))
GROWTH = 3.0  # MB


@pytest.fixture
def lab(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    with one_host(service_process, tmp_path) as fleet:
        yield fleet


def cycle(lab: OneHost, alias_spec: str) -> None:
    claim = lab.wait_for(lab.claim(alias_spec).claim_id, "allocated")
    lab.scheduler.release(claim.claim_id)
    lab.wait_for(claim.claim_id, "released")


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory_of(pid: int) -> float:
    """MB that are this process's alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1024


def rows_of(lab: OneHost) -> dict[str, int]:
    with closing(sqlite3.connect(lab.state / lab.name / "hypervisor.sqlite")) as record:
        return {
            table: record.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("attachments", "prepared", "restoring")
        }


def test_many_cycles_of_a_whole_port_and_of_all_of_its_vfs(
    lab: OneHost, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = lab.start_agent()
    lab.wait_for_report()
    for alias_spec in 3 * ("pf:1", "vf:4"):  # what is made once is made now
        cycle(lab, alias_spec)
    [worker] = agent.workers
    files, rows, memory = files_of(worker), rows_of(lab), memory_of(worker)
    for _ in range(CYCLES):
        cycle(lab, "pf:1")
        cycle(lab, "vf:4")
    assert (files_of(worker), rows_of(lab)) == (files, rows)
    assert lab.statuses() == dict.fromkeys([PF, *VFS], "available")
    grown = memory_of(worker) - memory
    with capsys.disabled():
        print(f"\n{CYCLES} cycles each: {memory:.1f} MB, {grown:+.2f} MB")  # noqa: T201 - the figure
    assert grown < GROWTH
