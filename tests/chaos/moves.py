"""Moves of a claim to another host, cold and live, and how clients end them."""

import time
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.move_messages import Move, MoveRequest
from tests.chaos.calls import Calls
from tests.chaos.cycles import Cycle
from tests.chaos.guests import Guests

# What a client does, one step after another. In a live migration, libvirt defines the guest on the host of
# the target (`arrive`). Then it runs it there (`run`), or it aborts the migration (`leave`).
COLD = (
    ("move", "guest", "attached", "complete", "completed"),
    ("move", "complete", "guest", "completed"),
    ("move", "guest", "attached", "revert", "reverted"),
    ("move", "revert", "reverted"),
    ("move", "guest", "release both"),
    ("move", "guest", "release both, the target first"),
)
LIVE = (
    ("move", "ready", "arrive", "run", "completed"),
    ("move", "ready", "arrive", "run", "completed"),
    ("move", "ready", "arrive", "look", "leave", "reverted"),
    ("move", "ready", "revert", "reverted"),
    ("move", "revert", "reverted"),
    ("move", "ready", "release both"),
    ("move", "ready", "release both, the target first"),
)
_POLLS = (
    40  # until the client reverts a move whose migration was aborted: the agent may not have seen the guest
)

# The statuses that a move may have in the answers to a step.
_EXPECTED = {
    "move": {"begun"},
    "ready": {"begun"},
    "complete": {"completing", "completed"},
    "completed": {"begun", "completing", "completed"},
    "revert": {"reverted"},
    "reverted": {"begun", "reverted"},
}
# The statuses that the source and the target may have together with that of the move.
_FITTING = {
    ("cold", "begun"): ({"allocated"}, {"claimed", "prepared", "allocated"}),
    ("cold", "completing"): ({"allocated"}, {"claimed", "prepared"}),
    ("cold", "completed"): ({"releasing", "released"}, {"allocated"}),
    ("cold", "reverted"): ({"allocated"}, {"releasing", "released"}),
    ("live", "begun"): ({"allocated", "prepared"}, {"claimed", "prepared"}),
    ("live", "completed"): ({"releasing", "released"}, {"allocated"}),
    ("live", "reverted"): ({"allocated", "prepared"}, {"releasing", "released", "failed"}),
}


@dataclass
class Moving:
    """One move, step by step. ``steps``: those that are left. ``status``: that in the last answer.

    ``fate``: how it ended, for the report.
    """

    source: Cycle
    target: Cycle
    request: MoveRequest
    steps: list[str]
    status: str | None = None
    fate: str = ""
    _is_target_first: bool = False
    _is_ending: bool = False  # something may have ended the move before its claims are released
    _polls: int = 0
    _wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: Cycle, host: str, random: Random) -> "Moving":
        """A move of an allocated claim to this host, of a random kind and with a random end."""
        claim_id, is_live = UUID(int=random.getrandbits(128)), random.random() < 0.5
        asked = source.request.model_copy(update={"claim_id": claim_id, "hosts": [host], "attach": "auto"})
        target = Cycle(source.kind, host, asked, waits_for_attach=False, moves=source.moves - 1)
        request = MoveRequest(claim_id=claim_id, source_claim_id=source.claim_id, hosts=[host], live=is_live)
        source.moves -= 1
        source.live_moves += is_live
        return cls(source, target, request, list(random.choice(LIVE if is_live else COLD)))

    @property
    def kind(self) -> str:
        return "live" if self.request.live else "cold"

    @property
    def phase(self) -> str:
        return self.steps[0] if self.steps else "over"

    @property
    def claim_id(self) -> UUID:
        return self.target.claim_id

    @property
    def is_over(self) -> bool:
        return not self.steps

    @property
    def wrong(self) -> list[str]:
        return [*self._wrong, *self.source.wrong, *self.target.wrong]

    @property
    def needs(self) -> set[str]:
        """The hosts that must be reachable for the next step.

        A move that may have been served without an answer is called for again, whatever happens to its hosts.
        """
        return set() if self.phase in {"move", "give up"} else {self.source.host, self.target.host}

    def possible_ends(self) -> set[str]:
        """The statuses that the move may have when one of its claims has been released.

        ``lost``: there is no such move.
        """
        source, target = self.source, self.target
        if self.fate == "refused":  # or it was served later, and ended by the release of its source
            return {"lost", "completed"}
        if self.fate.startswith("both"):
            if self._is_ending:
                return {"completed", "reverted"}
            of_source = {"completed"} if source.release_began < target.released_by else set()
            of_target = {"reverted"} if target.release_began < source.released_by else set()
            return of_source | of_target
        return {self.fate.split()[0]}

    def divide(self) -> list[Cycle]:
        """The claims, to be continued one by one.

        In the middle of a move both are released, each as soon as its host can be reached.
        """
        if not self.is_over:
            self._release_both("after a network cut")
        return [self.target, self.source] if self._is_target_first else [self.source, self.target]

    def advance(self, scheduler: Calls, guests: Guests) -> bool:
        """Do one step; return whether the move has advanced."""
        self._is_ending = self._is_ending or self.phase in {"complete", "run", "leave", "revert"}
        is_done = self._do(self.phase, scheduler, guests)
        if is_done and not self.is_over:
            del self.steps[0]
        return is_done

    def _do(self, step: str, scheduler: Calls, guests: Guests) -> bool:
        match step:
            case "move":
                self.target.begin()
                for cycle in (self.source, self.target):
                    cycle.may_end_from = min(cycle.may_end_from, time.monotonic())
                try:
                    self._note(scheduler.move(self.request))
                except ClaimRefused:
                    self.steps = ["move", "give up"]
            case "give up":
                self._give_up(scheduler)
            case "ready":
                return self._note(scheduler.move(self.request)).ready or self.is_over
            case "guest" | "arrive" | "run" | "leave":
                self._change_guests(step, guests)
            case "look" | "attached":
                status = self.target.note(scheduler.show(self.claim_id))
                return step == "look" or status not in {"claimed", "prepared"}
            case "complete":
                self._note(scheduler.complete_move(self.claim_id))
            case "revert":
                self._note(scheduler.revert_move(self.claim_id))
                self.fate = "reverted"
            case "completed" | "reverted":
                return self._await_end(step, scheduler)
            case "release both" | "release both, the target first":
                self._is_target_first = step.endswith("first")
                self._release_both("as the client wanted")
        return True

    def _note(self, move: Move) -> Move:
        self.status = move.status
        self.source.note(move.source)
        self.target.note(move.target)
        sources, targets = _FITTING.get((move.kind, move.status), ((), ()))
        is_expected = move.kind == self.kind and move.status in _EXPECTED[self.phase]
        if not is_expected or move.source.status not in sources or move.target.status not in targets:
            self._wrong.append(
                f"the {self.kind} move to claim {self.claim_id} is {move.kind}, {move.status} "
                f"({move.reason}); its source is {move.source.status}, its target {move.target.status}; "
                f"to do: {self.steps}"
            )
            self._release_both("after a wrong answer")
        return move

    def _await_end(self, status: str, scheduler: Calls) -> bool:
        move = self._note(scheduler.move(self.request))
        if self.is_over:
            return True
        if move.status != status:
            self._polls += 1
            if status == "reverted" and self._polls == _POLLS:
                self.steps = ["revert", "reverted"]
            return False
        if status == "completed":
            self.fate = status
            self._end("end", "move" if self.target.moves else "release")
        else:
            self.fate = self.fate or "reverted by itself"
            self._end("attach", "end")
        return True

    def _give_up(self, scheduler: Calls) -> None:
        """An earlier call without an answer may be served later, but not after the source is released."""
        self.source.note(scheduler.release(self.source.claim_id))
        self.target.may_be_missing = True
        self.fate = "refused"
        self._end("end", "release")

    def _release_both(self, why: str) -> None:
        self.fate = f"both claims released {why}"
        self._end("release", "release")

    def _end(self, of_source: str, of_target: str) -> None:
        self.steps = []
        self.source.phase, self.target.phase = of_source, of_target

    def _change_guests(self, step: str, guests: Guests) -> None:
        leaves = {"run": self.source, "leave": self.target}.get(step)
        if step == "leave":
            self.target.may_fail = True
        else:
            self.target.define(guests, arriving=step == "arrive")
        if leaves is not None:
            guests.undefine(leaves.host, leaves.request.instance_id)
            leaves.has_guest = False
