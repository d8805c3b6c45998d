"""Callers that do not give up: a caller without an answer repeats its call with the same id."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeVar
from uuid import UUID

from portclaim.common.errors import ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient

T = TypeVar("T")

ALIAS_SPECS = ("vf:1", "vf:1", "vf:2", "pf:1", "pf:1,vf:1")
PAUSE = 0.05  # seconds between two polls
PATIENCE = 120.0  # seconds after which a repeated call has failed


@dataclass
class Caller:
    """Claims and releases in turn, and at the end claims a VF that it does not release.

    ``begun``: the ids of all claim calls of all callers, in the order in which they began. ``answers``: the
    devices of each claim in the answers to this caller. ``troubles``: its calls that were refused or got no
    answer.
    """

    scheduler: SchedulerClient
    random: Random
    begun: list[UUID]
    answers: defaultdict[UUID, set[frozenset[str]]] = field(default_factory=lambda: defaultdict(set))
    troubles: Counter[str] = field(default_factory=Counter)

    def live(self, enough: threading.Event) -> UUID:
        """Claim and release until ``enough``; return the id of the claim that is not released."""
        while not enough.is_set():
            try:
                claim = self._claim(self.random.choice(ALIAS_SPECS), enough)
            except ClaimRefused:
                break
            if self.random.random() < 0.5:
                self._insist(partial(self._is_attached, claim.claim_id))
            self._insist(partial(self.scheduler.release, claim.claim_id))
        return self._claim("vf:1").claim_id

    def _claim(self, alias_spec: str, enough: threading.Event | None = None) -> Claim:
        """Call until there is a claim. Raises ClaimRefused after ``enough``: from then on callers hold VFs
        for good, so a PF may never be free again."""
        request = ClaimRequest(
            claim_id=UUID(int=self.random.getrandbits(128)),
            instance_id=UUID(int=self.random.getrandbits(128)),
            extra_specs={"pci_passthrough:alias": alias_spec},
        )
        for _ in range(self.random.choice([1, 1, 2])):  # some callers repeat a claim that was served
            claim = self._insist(partial(self._call, request, enough))
            self.answers[request.claim_id].add(
                frozenset(f"{claim.host} {device.address}" for device in claim.devices)
            )
        return claim

    def _call(self, request: ClaimRequest, enough: threading.Event | None) -> Claim | None:
        self.begun.append(request.claim_id)
        try:
            return self.scheduler.claim(request)
        except ClaimRefused:
            self.troubles["refused"] += 1
            if enough is not None and enough.is_set():
                raise
            return None

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
                self.troubles["unanswered"] += 1
                continue
            if answer is not None:
                return answer
            time.sleep(PAUSE)
        raise AssertionError(f"there was no answer in {PATIENCE} s")
