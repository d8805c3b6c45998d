"""The identity of an agent: a UUID that survives restarts, and a lock against a second agent."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import UUID, uuid4

from portclaim.common.errors import InvalidConfiguration

_FILE = "agent_id"


class Identity:
    """The agent of one host name on this machine, whose directory is ``<state_path>/<host>``.

    The kernel holds the lock (``flock``) and releases it when the agent crashes.
    """

    def __init__(self, state_path: Path, host: str) -> None:
        self.path = state_path / host
        self._host = host
        self._file: int | None = None

    def take(self) -> UUID:
        """Become the agent of this host until :meth:`give_back`.

        Raises :class:`InvalidConfiguration` if another process or thread already is, or if the directory
        cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidConfiguration(f"state_path must be a directory to write to: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            agent_id = _read_or_write(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise InvalidConfiguration(
                f"another agent of host {self._host} is running with {self.path}: "
                "stop it, or give this one a host name or a state_path of its own"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor
        return agent_id

    def give_back(self) -> None:
        """Give up the identity."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def check(self) -> None:
        """Raise what :meth:`take` would raise now."""
        self.take()
        self.give_back()


def _read_or_write(descriptor: int) -> UUID:
    text = os.read(descriptor, 64).decode("ascii", "replace").strip()
    try:
        return UUID(text)
    except ValueError:  # new, or a crash cut the first write short
        agent_id = uuid4()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{agent_id}\n".encode(), 0)
        os.fsync(descriptor)
        return agent_id
