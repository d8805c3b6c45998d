"""The life cycles of a claim and of a move: which status may follow which, and when.

PostgreSQL refuses any other transition (check and trigger ``is_a_transition``). docs/claims.md shows the
diagrams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Transition(NamedTuple):
    """From one status (None: it is new) to the next, and when that happens."""

    before: str | None
    after: str
    when: str


TRANSITIONS = (
    Transition(None, "claimed", "claim"),
    Transition(None, "waiting", "claim with --wait"),
    Transition("waiting", "claimed", "served"),
    Transition("waiting", "released", "release"),
    Transition("waiting", "expired", "not served in time"),
    Transition("claimed", "prepared", "ready for the guest"),
    Transition("claimed", "allocated", "attached at once"),
    Transition("claimed", "failed", "prepare or attach failed"),
    Transition("claimed", "releasing", "release, or not prepared in time"),
    Transition("claimed", "released", "release by force"),
    Transition("prepared", "allocated", "attached"),
    Transition("prepared", "failed", "attach failed"),
    Transition("prepared", "releasing", "release, or the guest did not come in time"),
    Transition("prepared", "released", "release by force"),
    Transition("allocated", "prepared", "unplugged for a live migration"),
    Transition("allocated", "releasing", "release"),
    Transition("allocated", "failed", "its instance is gone"),
    Transition("allocated", "released", "release by force"),
    Transition("releasing", "releasing", "detach failed"),
    Transition("releasing", "released", "detached, or release by force"),
    Transition(
        "releasing", "expired", "detached, because it was not prepared, or its guest did not come, in time"
    ),
)

LIVE = frozenset({"claimed", "prepared", "allocated", "releasing"})
"""A claim with one of these statuses holds devices. Any other claim waits, or has ended for good."""

MOVE_TRANSITIONS = (
    Transition(None, "begun", "move"),
    Transition("begun", "completing", "complete, before the target is allocated"),
    Transition("begun", "completed", "complete, or the source has ended"),
    Transition("begun", "reverted", "revert, or the target has ended"),
    Transition("completing", "completed", "the target is allocated, or the source has ended"),
    Transition("completing", "reverted", "revert, or the target has ended"),
)


def diagram(transitions: Sequence[Transition]) -> str:
    """The transitions as a state diagram in Mermaid's language."""
    ended = sorted({each.after for each in transitions} - {each.before for each in transitions})
    lines = [f"{each.before or '[*]'} --> {each.after}: {each.when}" for each in transitions]
    lines += [f"{status} --> [*]" for status in ended]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in lines)])
