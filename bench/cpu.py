"""How much CPU time the parts of a system take: user and system time of all their processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Meter:
    """Reads the CPU time of each named part: of a process and all that descend from it.

    ``parts``: the process id of each, or several in a tuple. ``database``: in the part ``postgresql``,
    connections to other databases are left out; what the server does for all of them is counted.
    """

    def __init__(self, parts: Mapping[str, int | tuple[int, ...]], database: str | None = None) -> None:
        self._parts = {part: pids if isinstance(pids, tuple) else (pids,) for part, pids in parts.items()}
        self._database = database

    def read(self) -> dict[str, float]:
        """The seconds so far, by part. Children that have ended are in their parents' figures."""
        children = _children()
        return {
            part: sum(
                _seconds(pid) for root in roots for pid in _tree(root, children) if self._counts(part, pid)
            )
            for part, roots in self._parts.items()
        }

    def _counts(self, part: str, pid: int) -> bool:
        if part != "postgresql" or self._database is None:
            return True
        with suppress(OSError):
            # "postgres: USER DATABASE CLIENT STATE"; background processes are named otherwise.
            title = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split(" ")
            if len(title) > 3 and title[:2] == ["postgres:", "postgres"]:
                return title[2] == self._database
        return True


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {part: after[part] - before[part] for part in after}


def _children() -> dict[int, list[int]]:
    """The children of each process."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                found.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    return found


def _tree(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _tree(child, children)


def _seconds(pid: int) -> float:
    with suppress(OSError):
        return sum(map(int, _stat(pid)[11:15])) * _TICK  # utime, stime, cutime, cstime
    return 0.0


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) after the name of the program, which may have blanks and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
