"""What a scheduler does at Placement for an instance: candidates, an allocation, and its end."""

from __future__ import annotations

import random
from collections import Counter, deque
from uuid import uuid4

from bench.crew import CYCLE, Do, Work
from bench.peers.placement_server import call


def claims(port: int, resource: str, limit: int) -> Work:
    """A cycle is GET /allocation_candidates, PUT /allocations/{consumer}, and DELETE.

    ``limit``: the most candidates to ask for. When another client was faster (409), it asks anew.
    """
    notes: Counter[str] = Counter()
    held: deque[str] = deque()

    def claim() -> None:
        while True:
            candidate = random.choice(_candidates(port, resource, limit))
            consumer = str(uuid4())
            body = {
                "allocations": candidate["allocations"],
                "project_id": "bench",
                "user_id": "bench",
                "consumer_generation": None,
                "consumer_type": "INSTANCE",
            }
            status, said = call(port, "PUT", f"/allocations/{consumer}", body)
            if status == 204:
                held.append(consumer)
                return
            assert status == 409, said
            notes["conflicts"] += 1

    def end() -> bool:
        if not held:
            return False
        status, said = call(port, "DELETE", f"/allocations/{held.popleft()}")
        assert status == 204, said
        return True

    return Work({CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}, notes)


def refused(port: int, resource: str) -> Do:
    """GET /allocation_candidates where nothing is free."""

    def ask() -> None:
        assert _candidates(port, resource, 1) == []

    return ask


def _candidates(port: int, resource: str, limit: int) -> list[dict[str, object]]:
    status, answer = call(port, "GET", f"/allocation_candidates?resources={resource}:1&limit={limit}")
    assert status == 200, answer
    return answer["allocation_requests"]
