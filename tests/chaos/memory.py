"""Has the kernel kill a process for want of memory. This needs root and control groups.

Both versions of control groups work, each where it is usually mounted.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.concurrency import wait_until

_VERSION_1 = Path("/sys/fs/cgroup/memory")
_VERSION_2 = Path("/sys/fs/cgroup")
_LIMIT = 32 << 20  # bytes
_EATER = "input()\nroom = []\nwhile True:\n    room.append(b'x' * (1 << 20))\n"


def why_not() -> str | None:
    """Why the kernel cannot be had to do that here; None if it can."""
    return None if _parent() is not None else "it needs root and a control group for memory to write to"


def run_out(pid: int) -> None:
    """Put the process into a group of little memory, with another one that takes all of it.

    Returns when the kernel has killed the process.
    """
    parent = _parent()
    assert parent is not None, why_not()
    group = parent / f"portclaim-chaos-{os.getpid()}-{pid}"
    group.mkdir()
    is_first = parent == _VERSION_1
    (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(_LIMIT))
    members = group / "cgroup.procs"
    members.write_text(str(pid))
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")  # it goes before the other one
    with subprocess.Popen([sys.executable, "-c", _EATER], stdin=subprocess.PIPE) as eater:
        members.write_text(str(eater.pid))
        assert eater.stdin is not None
        eater.stdin.write(b"\n")
        eater.stdin.flush()
        wait_until(lambda: str(pid) not in members.read_text().split(), f"the kernel kills process {pid}")
        events = group / ("memory.oom_control" if is_first else "memory.events")
        counts = dict(line.split() for line in events.read_text().splitlines())
        eater.kill()
    assert int(counts["oom_kill"]) > 0, f"process {pid} ended, but not for want of memory"
    wait_until(lambda: not members.read_text(), "the group is empty")
    group.rmdir()


def _parent() -> Path | None:
    if os.geteuid() == 0 and os.access(_VERSION_1 / "memory.limit_in_bytes", os.R_OK):
        return _VERSION_1 if os.access(_VERSION_1, os.W_OK) else None
    control = _VERSION_2 / "cgroup.subtree_control"
    if os.geteuid() == 0 and os.access(control, os.W_OK) and "memory" in control.read_text().split():
        return _VERSION_2
    return None
