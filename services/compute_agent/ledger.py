"""The ledger: how each claim's latest step ended here, so that no step is done twice or after a later one."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.store import LocalStore

KEEP_DAYS = 90

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    claim_id TEXT PRIMARY KEY, step INTEGER NOT NULL, action TEXT NOT NULL,
    outcome TEXT CHECK (outcome IN ('done', 'failed', 'prepared')), -- NULL: begun, and perhaps interrupted
    reason TEXT, changed_at INTEGER NOT NULL DEFAULT (unixepoch()),
    was_attached INTEGER NOT NULL DEFAULT 0);                       -- it attaches what an unplug had taken
CREATE INDEX IF NOT EXISTS steps_changed_at ON steps (changed_at);
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a step ended; ``reason`` says why it failed.

    ``prepared``: the devices are ready, and the instance does not have them yet.
    """

    outcome: Literal["done", "failed", "prepared"]
    reason: str | None = None

    def __str__(self) -> str:
        return self.outcome if self.reason is None else f"{self.outcome}: {self.reason}"


class Superseded(Exception):
    """A later step of the claim has begun on this host: drop this one."""


class Ledger:
    """One row per claim, for its highest step. Written before the step begins and after it has ended."""

    def __init__(self, path: Path) -> None:
        """Open the ledger and delete ended claims whose last change is more than ``KEEP_DAYS`` ago."""
        self._store = LocalStore(path, _SCHEMA)
        self._store.rebuild("steps", "'prepared'", _SCHEMA)  # release 0.2.0 did not know this outcome
        with self._store.transaction() as sql:
            sql.execute(
                "DELETE FROM steps WHERE changed_at < unixepoch() - ? * 86400"
                " AND (outcome = 'failed' OR (action = 'detach' AND outcome = 'done'))",
                (KEEP_DAYS,),
            )

    def begin(self, step: Step, again: bool = False) -> Ending | None:
        """Record that the step begins and answer None; or answer how it ended, if it must not be done again.

        A failed prepare or attach is final: another claim may hold the devices now. A failed unplug or detach
        is tried again. ``again``: do the step even if it was done before. Raises :class:`Superseded`.
        """
        claim = str(step.claim_id)
        with self._store.transaction() as sql:
            row = sql.execute("SELECT * FROM steps WHERE claim_id = ?", (claim,)).fetchone()
            if row is not None and row["step"] > step.step:
                raise Superseded(
                    f"claim {claim}: step {step.step} is stale: it was sent before step {row['step']}"
                )
            if row is not None and row["step"] == step.step:
                is_final = {
                    "done": not again,
                    "prepared": not again,
                    "failed": step.action in {"prepare", "attach"},
                    None: False,
                }
                if is_final[row["outcome"]]:
                    return Ending(row["outcome"], row["reason"])
            was_attached = row is not None and (
                row["was_attached"] if row["step"] == step.step else row["action"] == "unplug"
            )
            sql.execute(
                "INSERT OR REPLACE INTO steps (claim_id, step, action, was_attached) VALUES (?, ?, ?, ?)",
                (claim, step.step, step.action, bool(was_attached)),
            )
        return None

    def finish(self, step: Step, ending: Ending) -> None:
        """Record how a step ended."""
        with self._store.transaction() as sql:
            sql.execute(
                "UPDATE steps SET outcome = ?, reason = ?, changed_at = unixepoch()"
                " WHERE claim_id = ? AND step = ?",
                (ending.outcome, ending.reason, str(step.claim_id), step.step),
            )

    def is_prepared(self, step: Step) -> bool:
        """Has this step ended as prepared?"""
        with self._store.transaction() as sql:
            found = sql.execute(
                "SELECT count(*) FROM steps WHERE claim_id = ? AND step = ? AND outcome = 'prepared'",
                (str(step.claim_id), step.step),
            ).fetchone()
        return bool(found[0])

    def was_attached(self, step: Step) -> bool:
        """Does this step, which has begun, attach what the step before it unplugged?"""
        with self._store.transaction() as sql:
            row = sql.execute(
                "SELECT was_attached FROM steps WHERE claim_id = ? AND step = ?",
                (str(step.claim_id), step.step),
            ).fetchone()
        return row is not None and bool(row["was_attached"])

    def latest(self, claim_id: UUID) -> int:
        """The highest step of a claim; 0 for an unknown claim."""
        with self._store.transaction() as sql:
            row = sql.execute("SELECT step FROM steps WHERE claim_id = ?", (str(claim_id),)).fetchone()
        return row["step"] if row else 0

    def not_attached(self) -> AbstractSet[UUID]:
        """The claims whose attach failed. A device that a guest still has for one of them is a leftover."""
        with self._store.transaction() as sql:
            rows = sql.execute(
                "SELECT claim_id FROM steps WHERE action IN ('prepare', 'attach') AND outcome = 'failed'"
            ).fetchall()
        return {UUID(row["claim_id"]) for row in rows}

    def close(self) -> None:
        """Close the file."""
        self._store.close()
