"""The claims that were refused last, with what they asked for and why.

A worker keeps them in memory until it writes them together with its counts. So a refusal writes nothing, and
a flood of refusals costs one write every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.claim_messages import ClaimRequest, ExplainRequest

MOST = 200
"""Refused claims that a worker keeps between two writes: the newest."""

KEPT = 1000
"""Refused claims that the database keeps of all workers: the newest."""

NAMES = 100
"""Hosts, or claims, that are kept of those that a request names."""

_MISSES = 5
_HOLDERS = 8  # instances that block a device
_LONGEST = 2000  # characters of a text
_READ = ("pci_passthrough:alias", "hw:pci_numa_affinity_policy", "group_policy")  # extra specs that matter
_FIELDS = tuple(ExplainRequest.model_fields)
_asked_of = attrgetter(*_FIELDS)
_SPECS = _FIELDS.index("extra_specs")
_NAMED = [_FIELDS.index(name) for name in ("hosts", "avoid_hosts", "near", "apart_from")]

Key = tuple[UUID, str | None]
"""A claim id, and the project that the claim was for."""


class Refused(NamedTuple):
    """A refused claim. ``at``: on the clock ``time.monotonic``. ``asked``: the fields of ExplainRequest."""

    at: float
    times: int
    instance_id: UUID
    reason: str
    message: str
    asked: list[Any]
    is_cut: bool
    explanation: Mapping[str, Any] | None


class RecentRefusals:
    """Keeps the newest. Not for several threads at once."""

    def __init__(self) -> None:
        self._refused: dict[Key, Refused] = {}

    def add(self, request: ClaimRequest, reason: str, error: Exception) -> None:
        """Keep a refused claim. The error itself is not kept: it holds all that its callers worked with."""
        key = request.claim_id, request.project
        earlier = self._refused.pop(key, None)  # so that it becomes the newest
        asked = list(_asked_of(request))
        is_cut = False
        for place in _NAMED:
            if asked[place] and len(asked[place]) > NAMES:
                asked[place] = asked[place][:NAMES]
                is_cut = True
        specs = request.extra_specs
        asked[_SPECS] = {name: specs[name][:_LONGEST] for name in _READ if name in specs}
        self._refused[key] = Refused(
            time.monotonic(),
            1 if earlier is None else earlier.times + 1,
            request.instance_id,
            reason,
            str(error)[:_LONGEST],
            asked,
            is_cut,
            error.kwargs.get("explanation") if isinstance(error, PortclaimError) else None,
        )
        self._forget()

    def take(self) -> dict[Key, Refused]:
        """All that is kept. It is kept no longer."""
        taken, self._refused = self._refused, {}
        return taken

    def put_back(self, taken: Mapping[Key, Refused]) -> None:
        """Keep what could not be written. It is older than what came since."""
        for key, newer in self._refused.items():
            if key in taken:
                self._refused[key] = newer._replace(times=newer.times + taken[key].times)
        self._refused = {key: old for key, old in taken.items() if key not in self._refused} | self._refused
        self._forget()

    def _forget(self) -> None:
        while len(self._refused) > MOST:
            del self._refused[next(iter(self._refused))]


def as_rows(refused: Mapping[Key, Refused]) -> list[dict[str, Any]]:
    """The refused claims as the function ``keep_refusals`` takes them."""
    now = time.monotonic()
    return [
        {
            "claim_id": str(claim_id),
            "project": project or "",
            "instance_id": str(each.instance_id),
            "ago": now - each.at,
            "times": each.times,
            "reason": each.reason,
            "message": each.message,
            "request": ExplainRequest(**dict(zip(_FIELDS, each.asked, strict=True))).model_dump(
                mode="json", exclude_defaults=True
            ),
            "is_cut": each.is_cut,
            "explanation": _shortened(each.explanation),
        }
        for (claim_id, project), each in refused.items()
    ]


def _shortened(explanation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not explanation:
        return None
    misses = [
        {**miss, "held_by": miss["held_by"][:_HOLDERS]} for miss in explanation.get("misses", ())[:_MISSES]
    ]
    return {**explanation, "misses": misses}
