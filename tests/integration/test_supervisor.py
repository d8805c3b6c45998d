"""A supervised server ends with its owner, and leaves nothing behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from portclaim.cli.embedded import postgresql
from portclaim.cli.supervisor import NotStarted, supervise

OWNER = """
import signal, sys
from pathlib import Path
from portclaim.cli.supervisor import supervise
directory = Path(sys.argv[1])
command = ("sh", "-c", "echo up; exec sleep 1000")
server = supervise(*command, ready="up", log=directory / "log", directory=directory)
print(server.pid, server.supervisor, flush=True)
signal.pause()
"""
POSTGRESQL_OWNER = """
import signal
from portclaim.cli.embedded import postgresql
with postgresql() as url:
    print(url, flush=True)
    signal.pause()
"""


def wait_until_gone(*processes: int) -> None:
    for pid in processes:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([process], [], [])
        os.close(process)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_and_its_directory_are_removed_however_the_owner_ends(
    tmp_path: Path, end: signal.Signals
) -> None:
    directory = tmp_path / "server"
    directory.mkdir()
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        server, supervisor = map(int, owner.stdout.readline().split())
        assert Path(f"/proc/{server}").exists()
        owner.send_signal(end)
    wait_until_gone(server, supervisor)
    assert not directory.exists()


def test_stop_returns_the_exit_status_of_the_server(tmp_path: Path) -> None:
    polite = 'trap "exit 7" TERM; echo up; sleep 1000 & wait'
    server = supervise("sh", "-c", polite, ready="up", log=tmp_path / "log")
    assert server.stop() == 7
    wait_until_gone(server.pid)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match=r"status 3 [\s\S]*port is taken"):
        supervise("sh", "-c", "echo the port is taken >&2; exit 3", ready="up", log=tmp_path / "log")


def test_embedded_postgresql_serves_and_is_removed_after_its_stop() -> None:
    with postgresql() as url:
        directory = Path(str(sa.make_url(url).query["host"]))
        with sa.create_engine(url).connect() as connection:
            assert connection.scalar(sa.text("SHOW max_connections")) == "300"
        assert directory.stat().st_mode & 0o077 == 0, "others can reach the socket"
    assert not directory.exists()


def test_embedded_postgresql_ends_when_its_owner_is_killed() -> None:
    command = [sys.executable, "-c", POSTGRESQL_OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        directory = Path(str(sa.make_url(url).query["host"]))
        postmaster = int((directory / "data/postmaster.pid").read_text().splitlines()[0])
        supervisor = int(Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()[1])
        owner.kill()
    wait_until_gone(postmaster, supervisor)
    assert not directory.exists()


def test_the_end_of_a_server_is_noticed_while_its_daemon_holds_its_output_open(tmp_path: Path) -> None:
    stray = tmp_path / "stray"
    command = f"setsid sleep 1000 & echo $! > {stray}; echo no good; exit 3"
    with pytest.raises(NotStarted, match="status 3 before it was ready:\nno good"):
        supervise("sh", "-c", command, ready="up", log=tmp_path / "log")
    os.kill(int(stray.read_text()), signal.SIGKILL)
