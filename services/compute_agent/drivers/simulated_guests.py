"""The record of the simulated hypervisor, and the guests that tests define on it."""

from __future__ import annotations

import hashlib
import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.store import LocalStore

LOG = logging.getLogger(__name__)

RECORD = "hypervisor.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS attachments (        -- what guests have
    address TEXT PRIMARY KEY, parent_address TEXT, claim_id TEXT, instance_id TEXT NOT NULL,
    num_vfs INTEGER NOT NULL);                  -- how many VFs the host had on it before
CREATE TABLE IF NOT EXISTS prepared (           -- taken from the host, and in no guest yet
    address TEXT PRIMARY KEY, parent_address TEXT, claim_id TEXT NOT NULL, instance_id TEXT NOT NULL,
    num_vfs INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS restoring (          -- released by a guest, not restored yet
    address TEXT PRIMARY KEY, num_vfs INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS network_settings (   -- what was set for the claim that has the device, as JSON
    address TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS guests (             -- arriving: it does not run here yet
    instance_id TEXT PRIMARY KEY, arriving INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS effects (            -- all changes, in order
    id INTEGER PRIMARY KEY, claim_id TEXT NOT NULL, step INTEGER NOT NULL, action TEXT NOT NULL,
    instance_id TEXT NOT NULL, address TEXT NOT NULL,
    happened_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
"""


def _socket_name(state_path: Path) -> str:
    """A name in Linux' abstract namespace, because a path could be too long (unix(7))."""
    return f"\0portclaim-guests-{hashlib.sha256(str(state_path.resolve()).encode()).hexdigest()[:32]}"


def plug(sql: sqlite3.Connection, address: str, claim_id: UUID | str) -> bool:
    """The guest gets a device that is prepared for the claim. False: it is not, or is attached."""
    ours = address, str(claim_id)
    moved = sql.execute(
        "INSERT INTO attachments SELECT * FROM prepared WHERE address = ? AND claim_id = ?", ours
    )
    sql.execute("DELETE FROM prepared WHERE address = ? AND claim_id = ?", ours)
    return moved.rowcount > 0


def unplug(sql: sqlite3.Connection, address: str, claim_id: UUID | str) -> bool:
    """The guest releases a device of the claim, which stays prepared. False: the guest does not have it."""
    ours = address, str(claim_id)
    moved = sql.execute(
        "INSERT INTO prepared SELECT * FROM attachments WHERE address = ? AND claim_id = ?", ours
    )
    sql.execute("DELETE FROM attachments WHERE address = ? AND claim_id = ?", ours)
    return moved.rowcount > 0


def log_effect(sql: sqlite3.Connection, action: str, step: Step, device: StepDevice) -> None:
    """Record what was done, in the transaction that does it."""
    sql.execute(
        "INSERT INTO effects (claim_id, step, action, instance_id, address) VALUES (?, ?, ?, ?, ?)",
        (str(step.claim_id), step.step, action, str(step.instance_id), device.address),
    )


class SimulatedGuests:
    """Defines and ends guests of a simulated host, as an operator of a real one does with libvirt.

    ``state_path`` is the agent's own directory. The agent may run or not.
    """

    def __init__(self, state_path: Path) -> None:
        self._state_path = state_path

    def define(self, instance_id: UUID, devices: Sequence[str] = (), *, arriving: bool = False) -> None:
        """An instance comes to the host, with these devices in its definition.

        ``arriving``: a live migration brings it. It runs here when it is defined again without that.

        Raises ValueError, and changes nothing, for a device that was not prepared for this instance.
        """
        store = LocalStore(self._state_path / RECORD, SCHEMA)
        try:
            with store.transaction() as sql:
                sql.execute("INSERT OR REPLACE INTO guests VALUES (?, ?)", (str(instance_id), arriving))
                for address in devices:
                    row = sql.execute(
                        "SELECT claim_id FROM prepared WHERE address = ? AND instance_id = ?",
                        (address, str(instance_id)),
                    ).fetchone()
                    if row is None:
                        raise ValueError(f"{address} is not prepared for instance {instance_id}")
                    plug(sql, address, row["claim_id"])
        finally:
            store.close()
        self._tell(instance_id)

    def undefine(self, instance_id: UUID) -> None:
        """The instance leaves the host. Its devices stay taken from the host."""
        store = LocalStore(self._state_path / RECORD, SCHEMA)
        try:
            with store.transaction() as sql:
                instance = (str(instance_id),)
                sql.execute("DELETE FROM guests WHERE instance_id = ?", instance)
                sql.execute("INSERT INTO prepared SELECT * FROM attachments WHERE instance_id = ?", instance)
                sql.execute("DELETE FROM attachments WHERE instance_id = ?", instance)
        finally:
            store.close()
        self._tell(instance_id)

    def _tell(self, instance_id: UUID) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(str(instance_id).encode(), _socket_name(self._state_path))
            except ConnectionRefusedError:
                LOG.info("no agent runs on %s: it looks when it starts", self._state_path)


class GuestChanges(threading.Thread):
    """Calls ``changed`` for each instance that is defined or undefined, until :meth:`end`."""

    def __init__(self, state_path: Path, changed: Callable[[UUID | None], None]) -> None:
        super().__init__(name="guests", daemon=True)
        self._changed = changed
        self._name = _socket_name(state_path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name)

    def run(self) -> None:
        while message := self._socket.recv(64).decode():
            self._changed(UUID(message))

    def end(self) -> None:
        """Stop listening."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._name)
        self.join()
        self._socket.close()
