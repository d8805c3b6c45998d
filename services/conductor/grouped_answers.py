"""Answers of one host that come at the same time, recorded together."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from portclaim.common.group_commit import GroupCommit
from portclaim.common.rpc.agent_messages import MOST_STEPS, StepAnswer, StepResult, StepResults
from portclaim.services.conductor import lifecycle


class GroupedAnswers:
    """Records answers as :func:`lifecycle.step_done` does. Threads may share one, and should."""

    def __init__(self, engine: sa.Engine, guest_within: float) -> None:
        self._engine = engine
        self._guest_within = guest_within
        self._are_recorded = GroupCommit(self._record, MOST_STEPS, _are_of_one_agent)

    def step_done(self, result: StepResult) -> None:
        """See :func:`lifecycle.step_done`."""
        if not self._are_recorded(result):
            lifecycle.step_done(self._engine, result, self._guest_within)

    def _record(self, results: Sequence[StepResult]) -> list[bool]:
        """Whether each answer is recorded. For the others, :func:`lifecycle.step_done` knows why not."""
        if len(results) == 1:
            lifecycle.step_done(self._engine, results[0], self._guest_within)
            return [True]
        # Only the first answer for a claim: a second one is answered when that one is recorded.
        first = {result.claim_id: result for result in reversed(results)}
        together = StepResults(
            host=results[0].host,
            agent_id=results[0].agent_id,
            answers=[StepAnswer(**result.model_dump(include=_ANSWER)) for result in first.values()],
        )
        refused = set(lifecycle.steps_done(self._engine, together, self._guest_within))
        return [first[each.claim_id] is each and each.claim_id not in refused for each in results]


_ANSWER = set(StepAnswer.model_fields)


def _are_of_one_agent(one: StepResult, other: StepResult) -> bool:
    return (one.host, one.agent_id) == (other.host, other.agent_id)
