"""A container engine in the lab: Docker's own programs, from a folder that `run` shares with the guest."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portclaim.services.compute_agent.uevents import wait_until

PATIENCE = 400.0
# Neither bridge nor firewall: the agent's container is on the host's network.
DAEMON = ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]
# An empty machine: the programs come from the host's own folders, mounted read-only.
FOLDERS = ("dev", "proc", "sys", "tmp", "run", "etc", "usr", "var/lib/portclaim")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


class Engine:
    """A running daemon, and one image of nothing in it."""

    image = "portclaim-nothing"

    def __init__(self, programs: Path) -> None:
        self._programs = programs

    def docker(self, *arguments: str, told: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the engine's command line; the caller looks at how it ended."""
        command = [str(self._programs / "docker"), *arguments]
        return subprocess.run(command, input=told, capture_output=True, check=False)


@contextmanager
def engine(programs: Path, files: Path) -> Iterator[Engine]:
    """Start the daemon; it ends, and with it all containers, at the end of the block."""
    if not Path("/sys/kernel/security/apparmor").exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=True)
    settings = Path("/etc/apparmor/parser.conf")
    settings.parent.mkdir(exist_ok=True)
    settings.touch()  # where it is missing, the parser says so, and the engine takes that for its version
    programs = Path(shutil.copytree(programs, files / "programs"))  # the shared folder is slow to run from
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    with (files / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(DAEMON, env=environment, stdout=log, stderr=log)
        try:
            running = Engine(programs)
            answers = wait_until(lambda: running.docker("version").returncode == 0, PATIENCE)
            assert answers, (files / "dockerd.log").read_text()
            made = running.docker("import", "-", Engine.image, told=_nothing())
            assert made.returncode == 0, made.stderr
            yield running
        finally:
            daemon.terminate()
            daemon.wait()


def _nothing() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, target in LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return archive.getvalue()
