"""The lives of a claim and of a move, a table each: which status may follow which, and what makes it so.

PostgreSQL refuses what is not in them (check and trigger ``is_a_transition``), and docs/claims.md draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Transition(NamedTuple):
    """From one status (None: there was nothing) to the next, and when that happens."""

    before: str | None
    after: str
    when: str


TRANSITIONS = (
    Transition(None, "claimed", "claim"),
    Transition(None, "waiting", "claim that waits"),
    Transition("waiting", "claimed", "there is room"),
    Transition("waiting", "released", "release"),
    Transition("waiting", "expired", "not served in time"),
    Transition("claimed", "allocated", "attached"),
    Transition("claimed", "failed", "attach failed"),
    Transition("claimed", "releasing", "release, or not attached in time"),
    Transition("claimed", "released", "release by force"),
    Transition("allocated", "releasing", "release"),
    Transition("allocated", "failed", "its instance is gone"),
    Transition("allocated", "released", "release by force"),
    Transition("releasing", "releasing", "detach failed"),
    Transition("releasing", "released", "detached, or release by force"),
    Transition("releasing", "expired", "detached, and it was never attached in time"),
)

LIVE = frozenset({"claimed", "allocated", "releasing"})
"""A claim of such a status holds its devices. Any other waits for some, or has ended and stays what it is."""

MOVE_TRANSITIONS = (
    Transition(None, "begun", "move"),
    Transition("begun", "completing", "complete, before the target is allocated"),
    Transition("begun", "completed", "complete, or the source has ended"),
    Transition("begun", "reverted", "revert, or the target has ended"),
    Transition("completing", "completed", "the target is allocated, or the source has ended"),
    Transition("completing", "reverted", "revert, or the target has ended"),
)


def diagram(transitions: Sequence[Transition]) -> str:
    """A table as a state diagram in Mermaid's language."""
    ended = sorted({each.after for each in transitions} - {each.before for each in transitions})
    lines = [f"{each.before or '[*]'} --> {each.after}: {each.when}" for each in transitions]
    lines += [f"{status} --> [*]" for status in ended]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in lines)])
