"""On what the results were made: the machine, and the versions of all that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PEERS = Path(__file__).parent.parent / ".venv" / "peers" / "bin" / "python"
"""The Python of the environment of requirements-peers.txt."""

OURS = ("portclaim", "oslo.messaging", "kombu", "SQLAlchemy", "psycopg2-binary")
THEIRS = ("openstack-placement", "nova", "pyuwsgi", "SQLAlchemy", "psycopg2-binary")
_VERSIONS = (
    "import sys; from importlib.metadata import version\nfor name in sys.argv[1:]: print(version(name))"
)


def machine() -> dict[str, object]:
    """The processor, the memory, and the file system that the database writes to."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_gib": round(int(memory[1]) / 1024**2) if memory else None,
        "kernel": platform.release(),
        "file_system": _file_system(tempfile.gettempdir()),
    }


def load() -> float:
    """Processes that ran or wanted to, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def versions() -> dict[str, object]:
    """Of our packages, of the peers' if their environment is there, and of Python."""
    found: dict[str, object] = {"python": platform.python_version()}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if PEERS.exists():
        asked = subprocess.run(
            [PEERS, "-c", _VERSIONS, *THEIRS], capture_output=True, text=True, check=True, cwd=sys.prefix
        )
        found["peers"] = dict(zip(THEIRS, asked.stdout.split(), strict=True))
    return found


def _file_system(path: str) -> str:
    """The type of the mount that ``path`` is on: on a tmpfs, fsync costs nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    covering = [(len(point), kind) for point, kind in mounts if Path(path).is_relative_to(point)]
    return max(covering)[1]
