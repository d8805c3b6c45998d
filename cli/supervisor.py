"""Runs one server for as long as its owner lives, and removes everything that belongs to it afterwards.

A `finally` or an `atexit` stops a server only if the process that started it ends normally. A supervisor is a
small process between the two. It watches the owner through a pidfd, stops the server and removes its
directory, however the owner ends: by a return, Ctrl-C or SIGKILL.
"""

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT = 60.0  # seconds until a server must be ready
STOP_TIMEOUT = 30.0  # seconds from the polite signal to SIGKILL
OWNER_FD = 3  # the pidfd of the owner, in the supervisor


class NotStarted(Exception):
    """The server ended, or a minute passed, before it was ready. The message has the end of its log."""


@dataclass(frozen=True)
class SupervisedProcess:
    """A running server. `pid` leads its process group; `supervisor` is the process that watches it."""

    pid: int
    supervisor: int

    def stop(self) -> int | None:
        """Stop the server, and return as `wait` does. Works from any process, and after its end."""
        with suppress(ProcessLookupError):
            os.kill(self.supervisor, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int | None:
        """Wait until the server and its directory are gone.

        Returns its exit status (128 + n if signal n ended it), or None if another process started it.
        """
        with suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(self.supervisor, 0)[1])
        with suppress(ProcessLookupError):
            supervisor = os.pidfd_open(self.supervisor)
            select.select([supervisor], [], [])
            os.close(supervisor)
        return None


def supervise(
    *command: str | Path,
    ready: str,
    log: Path,
    directory: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    owner: int | None = None,
) -> SupervisedProcess:
    """Start `command` and return when a line of its output matches the regular expression `ready`.

    Its output goes to the file `log`. It is stopped with `stop_signal` when the process `owner` (default:
    this one) ends, or by `SupervisedProcess.stop`; `directory` is removed after that. `user`: the user to run
    as, which only root may set. Raises `NotStarted`.
    """
    options = [f"--ready={ready}", f"--log={log}", f"--stop-signal={stop_signal}"]
    if directory is not None:
        options.append(f"--directory={directory}")
    if user is not None:
        options.append(f"--user={user}")
    owner_fd = os.pidfd_open(owner or os.getpid())
    answer, answer_end = os.pipe()
    supervisor = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", __file__, *options, "--", *map(str, command)],
        os.environ if environment is None else environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, answer_end, 1),
            (os.POSIX_SPAWN_DUP2, owner_fd, OWNER_FD),
        ],
        setsid=True,  # Ctrl-C in a terminal is for the owner alone
    )
    os.close(owner_fd)
    os.close(answer_end)
    with os.fdopen(answer) as lines:
        word, _, pid = lines.readline().partition(" ")
        if word == "ready":
            return SupervisedProcess(int(pid), supervisor)
        tail = lines.read()
    status = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
    raise NotStarted(f"{command[0]} ended with status {status} before it was ready:\n{tail}")


def main() -> int:
    """The supervisor's own process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready", type=re.compile, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--user")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    server = subprocess.Popen(  # noqa: S603 - the command is the caller's
        arguments.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        user=arguments.user,
        extra_groups=[] if arguments.user else None,
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)

    def kill_after(seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        return timer

    def stop(*_: object) -> None:
        if arguments.stop_signal == signal.SIGKILL:
            kill()
        server.send_signal(arguments.stop_signal)
        kill_after(STOP_TIMEOUT)

    def watch_owner() -> None:
        select.select([OWNER_FD], [], [])
        stop()

    def watch_server() -> None:
        server.wait()
        kill()  # its children, which may hold its output open

    ended = os.pidfd_open(server.pid)
    signal.signal(signal.SIGTERM, stop)
    for watch in (watch_owner, watch_server):
        threading.Thread(target=watch, daemon=True).start()
    try:
        report(server, ended, arguments.ready, arguments.log, kill_after(START_TIMEOUT))
    finally:
        if arguments.directory is not None:
            shutil.rmtree(arguments.directory, ignore_errors=True)
    status = server.wait()
    return status if status >= 0 else 128 - status


def report(
    server: subprocess.Popen[bytes], ended: int, ready: re.Pattern[str], log: Path, limit: threading.Timer
) -> None:
    """Copy the server's output to `log` until it ends; tell the owner when it is ready, or why it was not.

    `limit` is cancelled when the server is ready; `ended` is its pidfd.
    """
    told = False
    with log.open("wb", buffering=0) as file:
        for line in lines(server, ended):
            file.write(line)
            if not told and ready.search(line.decode(errors="replace")):
                told = True
                limit.cancel()
                answer(f"ready {server.pid}")
    server.wait()
    if not told:
        answer("failed\n" + log.read_text(errors="replace")[-4000:])


def lines(server: subprocess.Popen[bytes], ended: int) -> Iterator[bytes]:
    """The lines that the server writes until it ends, even if another process still has its output open."""
    assert server.stdout is not None  # noqa: S101 - for the type checker
    output, rest = server.stdout.fileno(), b""
    while output in select.select([output, ended], [], [])[0] and (chunk := os.read(output, 65536)):
        *whole, rest = (rest + chunk).splitlines(keepends=True)
        if rest.endswith(b"\n"):
            whole, rest = [*whole, rest], b""
        yield from whole
    if rest:
        yield rest


def answer(text: str) -> None:
    with suppress(BrokenPipeError):  # the owner has ended
        print(text, flush=True)  # noqa: T201 - the owner reads standard output


if __name__ == "__main__":
    sys.exit(main())
