"""An agent that must not work, because another one already reports for its host."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.support.concurrency import wait_until

_REFUSAL = "this agent takes no steps"


class SecondProcess:
    """``record``: what its hypervisor does. ``log``: where its output goes."""

    def __init__(self, command: Sequence[str | Path], record: Path, log: Path) -> None:
        self._record = record
        self.log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def await_refusal(self) -> None:
        """Return when it knows that it must not work."""
        wait_until(lambda: _REFUSAL in self.log.read_text(), f"{self.log} says {_REFUSAL!r}", patience=60)

    def end(self) -> list[str]:
        """Kill it; return what it did, which it must not."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if not self._record.exists():
            return []
        with closing(sqlite3.connect(f"file:{self._record}?mode=ro", uri=True, timeout=30)) as record:
            return [f"a second agent did: {effect}" for effect in record.execute("SELECT * FROM effects")]
