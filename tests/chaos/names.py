"""The name of the broker, which services look up when they connect. Needs private mounts."""

import subprocess
from pathlib import Path

NAME = "broker.portclaim.test"
_HOSTS = Path("/etc/hosts")


class Names:
    """A file of names in place of /etc/hosts, for this program and its services."""

    def __init__(self, directory: Path, address: str) -> None:
        self._file = directory / "hosts"
        self._others = f"127.0.0.1 localhost\n::1 localhost\n{_HOSTS.read_text()}"
        self._known = f"{address} {NAME}\n"
        self.know()
        subprocess.run(["mount", "--bind", self._file, _HOSTS], check=True)

    def know(self) -> None:
        """The name has its address again."""
        self._file.write_text(self._others + self._known)

    def forget(self) -> None:
        """Nobody can look the name up any more."""
        self._file.write_text(self._others)
