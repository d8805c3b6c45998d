"""A running ``portclaim serve`` for a test."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx

from portclaim.cli.supervisor import supervise
from tests.support.engines import run_owner

PROGRAM = Path(sys.executable).with_name("portclaim")


class Served:
    """A running ``portclaim serve``."""

    def __init__(self, directory: Path, *words: str, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.log = directory.with_name(f"log-{uuid4()}")
        self.process = supervise(
            *(PROGRAM, *options, "serve", "--data", directory, "--port", "0", *words),
            ready="Ctrl-C stops it",
            log=self.log,
            stop_signal=signal.SIGINT,
            owner=run_owner(),
        )
        self.status: int | None = None
        self.said = self.log.read_text()
        found = re.search(r"API is at (\S+),", self.said)
        assert found, self.said
        self.url = found[1]
        token = re.search(r"PORTCLAIM_TOKEN=(\S+)", self.said)
        self.token = token[1] if token else None

    @property
    def postmaster(self) -> int:
        return int((self.directory / "postgresql/data/postmaster.pid").read_text().split()[0])

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def end(self, number: int = signal.SIGINT) -> float:
        """Send a signal, and answer how long it took to end."""
        begun = time.monotonic()
        os.kill(self.process.pid, number)
        self.status = self.process.wait()
        return time.monotonic() - begun


@contextmanager
def directory_of_one() -> Iterator[Path]:
    """A directory that the server's user can reach. pytest's own are for one user only."""
    with tempfile.TemporaryDirectory(prefix="portclaim-serve-") as place:
        Path(place).chmod(0o711)
        yield Path(place) / "served"
