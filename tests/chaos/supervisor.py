"""A supervisor that restarts services when they end, as systemd does with `Restart=always`."""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from portclaim.cli.supervisor import NotStarted, SupervisedProcess, supervise

RESTART_PAUSE = 2.0  # seconds: RestartSec in deploy/systemd


class Supervised:
    """One service. ``surprises``: its ends that no fault had caused."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        directory: Path,
        ready: str,
    ) -> None:
        self.name = name
        self.surprises: list[str] = []
        self._command = command
        self._environment = {**os.environ, **environment}
        self._directory = directory
        self._ready = ready
        self._starts = 0
        self._is_wanted = True
        self._was_killed = False
        self._up = threading.Event()
        self._kept = self._start()
        self._watch = threading.Thread(target=self._start_again, name=f"supervisor of {name}", daemon=True)
        self._watch.start()

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    def await_up(self) -> None:
        assert self._up.wait(60), f"{self.name} is not up in a minute"

    def kill(self) -> None:
        """Kill all of its processes at once, as a crash does."""
        self._was_killed = True
        self._up.clear()
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        os.killpg(self._kept.pid, number)

    def workers(self) -> set[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self._kept.pid}/task").glob("*/children")
        return {int(pid) for thread in children for pid in thread.read_text().split()}

    def stop(self) -> None:
        """Stop it as an operator does; it has to end cleanly."""
        self._is_wanted = False
        self._kept.stop()
        self._watch.join()

    def _start(self) -> SupervisedProcess:
        self._starts += 1
        log = self._directory / f"{self.name}.{self._starts}.log"
        process = supervise(*self._command, ready=self._ready, log=log, environment=self._environment)
        self._was_killed = False
        self._up.set()
        return process

    def _start_again(self) -> None:
        while True:
            status = self._kept.wait()
            self._up.clear()
            if not self._is_wanted:
                if status not in {0, None}:
                    self.surprises.append(f"{self.name} ended with status {status} when it was stopped")
                return
            if not self._was_killed:
                self.surprises.append(f"{self.name} ended by itself with status {status}")
            self._insist_on_starting()

    def _insist_on_starting(self) -> None:
        while self._is_wanted:
            time.sleep(RESTART_PAUSE)
            try:
                self._kept = self._start()
            except NotStarted as failure:
                self.surprises.append(f"{self.name} did not start: {failure}")
            else:
                return
