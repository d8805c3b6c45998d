"""Callers that do not give up: a caller without an answer repeats its call with the same id."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeVar
from uuid import UUID

from portclaim.common.errors import ClaimNotFound, ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.scheduler import SchedulerClient

T = TypeVar("T")

ALIAS_SPECS = ("vf:1", "vf:1", "vf:2", "pf:1", "pf:1,vf:1")
SEVERAL = 3  # claims in one call
PAUSE = 0.05  # seconds between two polls
PATIENCE = 120.0  # seconds after which a repeated call has failed


@dataclass
class Caller:
    """Claims, moves and releases in turn, and at the end claims a VF that it does not release.

    ``begun``: the ids of all claim calls of all callers, in the order in which they began. ``answers``: the
    devices of each claim in the answers to this caller. ``events``: its calls that were refused or got no
    answer, its moves by their ends, and how many claims it made several at once.
    """

    scheduler: SchedulerClient
    random: Random
    begun: list[UUID]
    answers: defaultdict[UUID, set[frozenset[str]]] = field(default_factory=lambda: defaultdict(set))
    events: Counter[str] = field(default_factory=Counter)

    def live(self, enough: threading.Event) -> UUID:
        """Claim, move and release until ``enough``; return the id of the claim that is not released."""
        while not enough.is_set():
            if self.random.random() < 0.2:
                self._claim_and_release_several()
                continue
            try:
                claim = self._claim(self.random.choice(ALIAS_SPECS), enough)
            except ClaimRefused:
                break
            if self.random.random() < 0.5:
                claim = self._insist(partial(self._is_attached, claim.claim_id))
                if claim.status == "allocated" and self.random.random() < 0.5:
                    claim = self._move(claim)
            self._insist(partial(self.scheduler.release, claim.claim_id))
        return self._claim("vf:1").claim_id

    def _claim(self, alias_spec: str, enough: threading.Event | None = None) -> Claim:
        """Call until there is a claim. Raises ClaimRefused after ``enough``: from then on callers hold VFs
        for good, so a PF may never be free again."""
        request = self._request(alias_spec)
        for _ in range(self.random.choice([1, 1, 2])):  # some callers repeat a claim that was served
            claim = self._insist(partial(self._call, request, enough))
            self._note(claim)
        return claim

    def _call(self, request: ClaimRequest, enough: threading.Event | None) -> Claim | None:
        self.begun.append(request.claim_id)
        try:
            return self.scheduler.claim(request)
        except ClaimRefused:
            self.events["refused"] += 1
            if enough is not None and enough.is_set():
                raise
            return None

    def _claim_and_release_several(self) -> None:
        """Call until all of them are served. Callers hold too few VFs to prevent that for long."""
        requests = [self._request("vf:1") for _ in range(SEVERAL)]
        ids = [request.claim_id for request in requests]

        def claim_all() -> list[Claim] | None:
            self.begun += ids
            claims = [each for each in self.scheduler.claim_many(requests) if isinstance(each, Claim)]
            for claim in claims:
                self._note(claim)
            self.events["refused"] += SEVERAL - len(claims)
            return claims if len(claims) == SEVERAL else None

        self._insist(claim_all)
        self._insist(partial(self.scheduler.release_many, ids))
        self.events["claims made together"] += SEVERAL

    def _request(self, alias_spec: str) -> ClaimRequest:
        return ClaimRequest(
            claim_id=UUID(int=self.random.getrandbits(128)),
            instance_id=UUID(int=self.random.getrandbits(128)),
            extra_specs={"pci_passthrough:alias": alias_spec},
        )

    def _move(self, source: Claim) -> Claim:
        """Move an allocated claim to another host, and complete or revert the move.

        Returns the claim that the instance has then. If the move is refused, the source is released.
        """
        request = MoveRequest(
            claim_id=UUID(int=self.random.getrandbits(128)), source_claim_id=source.claim_id
        )
        self.begun.append(request.claim_id)
        try:
            move = self._insist(partial(self.scheduler.move, request))
        except ClaimRefused:
            self.events["moves refused"] += 1
            return self._give_up(source, request.claim_id)
        self._note(move.target)
        if self.random.random() < 0.5:
            self.events["moves reverted"] += 1
            self._insist(partial(self.scheduler.revert_move, request.claim_id))
            return source
        self.events["moves completed"] += 1
        self._insist(partial(self._is_completed, request.claim_id))
        return move.target

    def _give_up(self, source: Claim, target_id: UUID) -> Claim:
        """An earlier call without an answer may be served later, but not after the source is released."""
        released = self._insist(partial(self.scheduler.release, source.claim_id))
        with suppress(ClaimNotFound):
            self._note(self._insist(partial(self.scheduler.release, target_id)))
        return released

    def _note(self, claim: Claim) -> None:
        self.answers[claim.claim_id].add(
            frozenset(f"{claim.host} {device.address}" for device in claim.devices)
        )

    def _is_completed(self, claim_id: UUID) -> Move | None:
        move = self.scheduler.complete_move(claim_id)
        return move if move.status == "completed" else None

    def _is_attached(self, claim_id: UUID) -> Claim | None:
        claim = self.scheduler.show(claim_id)
        return None if claim.status in {"claimed", "prepared"} else claim

    def _insist(self, call: Callable[[], T | None]) -> T:
        """Call until there is an answer that is not None."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                answer = call()
            except ServiceUnavailable:
                self.events["unanswered"] += 1
                continue
            if answer is not None:
                return answer
            time.sleep(PAUSE)
        raise AssertionError(f"there was no answer in {PATIENCE} s")
