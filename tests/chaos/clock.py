"""Clocks that can be set for a single service. This needs a C compiler."""

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


def has_compiler() -> bool:
    return shutil.which("cc") is not None


class Clocks:
    """One wall clock for each service; see clock.c."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._library = directory / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self._library, _SOURCE], check=True)

    def environment(self, service: str) -> dict[str, str]:
        """The environment variables that make a process of the service use its clock."""
        if not self._file(service).exists():
            self.set(service, 0)
        return {"LD_PRELOAD": str(self._library), "PORTCLAIM_CHAOS_CLOCK": str(self._file(service))}

    def set(self, service: str, ahead: int) -> None:
        """Set the clock ahead by this many seconds."""
        with self._file(service).open("r+b" if self._file(service).exists() else "wb") as file:
            file.write(struct.pack("q", ahead))

    def _file(self, service: str) -> Path:
        return self._directory / service
