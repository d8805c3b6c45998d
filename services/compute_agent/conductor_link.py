"""The agent's calls to the conductor."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from portclaim.common import tracing
from portclaim.common.errors import NotAuthorized, ServiceUnavailable, UnsupportedVersion
from portclaim.common.rpc.agent_messages import (
    MOST_STEPS,
    Holdings,
    InventoryReport,
    SignOfLife,
    Step,
    StepAnswer,
    StepResult,
    StepResults,
)
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.ledger import Ending
from portclaim.services.compute_agent.trust import HostTrust

SURE_FOR = 600.0
"""For so many seconds after an answer of the conductor, an agent is sure that it is still the host's.

An agent that is not the host's any more is asked for a report. So this decides only when an agent notices
that nobody hears it. Up to half of it is left out at random: ten thousand agents do not call at once.
"""


class ConductorLink:
    """Calls the conductor as the agent of one host. Raises what :class:`ConductorClient` raises.

    It remembers the last inventory that the conductor has accepted, so that the next report says only what
    has changed. Nothing of that is kept when the agent restarts: then it asks whether the conductor has this
    inventory, and reports it in full if not.
    """

    def __init__(
        self, conductor: ConductorClient, host: str, agent_id: UUID, trust: HostTrust | None = None
    ) -> None:
        self.host = host
        self._agent_id = agent_id
        self._conductor = conductor
        self._trust = trust
        self._accepted: Inventory | None = None
        self._sure_until = -math.inf

    def publish(self, inventory: Inventory, *, in_full: bool) -> bool:
        """Report the inventory, or only its digest. Answers whether the conductor wants it in full.

        In full: the conductor has accepted it when this returns. The messages say no more than the conductor
        does not know. Raises :class:`InventoryTooLarge`.
        """
        self._make_ready()
        if not in_full:
            return not self._has_shown_life(inventory) and self._is_refused(self._report(inventory))
        inventory.check_size()
        if self._accepted is not None:
            is_accepted = self._publish_changes(inventory, self._accepted)
        else:
            is_accepted = not self._is_refused(self._report(inventory))
        if not is_accepted:
            everything = {"devices": inventory.devices, "numa_cells": inventory.numa_cells}
            self._is_refused(self._report(inventory).model_copy(update=everything))
        self._accepted = inventory
        return False

    def doubt(self) -> None:
        """Report by a call next time: the conductor has something to say."""
        self._sure_until = -math.inf

    def answer(self, step: Step, ending: Ending) -> None:
        """Answer a step, and return when the answer is recorded."""
        with tracing.continued(step.trace):
            self._conductor.step_done(self._result(step, ending))

    def cast_answers(self, ended: Sequence[tuple[Step, Ending]]) -> None:
        """Answer steps, each of another claim, that the conductor sends again until it has an answer."""
        if len(ended) == 1 or not self._conductor.can_take_several_answers():
            for step, ending in ended:
                with tracing.continued(step.trace):
                    self._conductor.cast_step_done(self._result(step, ending))
            return
        for begin in range(0, len(ended), MOST_STEPS):
            answers: list[StepAnswer] = [_answer(*each) for each in ended[begin : begin + MOST_STEPS]]
            self._conductor.cast_steps_done(
                StepResults(host=self.host, agent_id=self._agent_id, answers=answers),
                {step.claim_id: step.trace for step, _ in ended},
            )

    def holdings(self, found: Collection[UUID]) -> Holdings:
        """The live claims of this host, and which of those ``found`` on it have ended."""
        self._make_ready()
        self.doubt()
        with self._heeding():
            answer = self._conductor.holdings(self.host, self._agent_id, found)
        self._be_sure()
        return answer

    def _make_ready(self) -> None:
        if self._trust is not None:
            self._trust.ready(self._conductor)

    @contextmanager
    def _heeding(self) -> Iterator[None]:
        try:
            yield
        except NotAuthorized as error:
            if self._trust is not None:
                self._trust.heed(error)
            raise

    def _result(self, step: Step, ending: Ending) -> StepResult:
        return StepResult(host=self.host, agent_id=self._agent_id, **_answer(step, ending).model_dump())

    def _publish_changes(self, inventory: Inventory, accepted: Inventory) -> bool:
        """Was it enough to report what has changed?

        Not if the conductor has another inventory than the accepted one, nor if it is of a release that has
        no such reports.
        """
        if not self._conductor.can_report_changes():
            return False
        changed, removed = inventory.changes_since(accepted)
        changes = {
            "devices": changed,
            "removed": removed,
            "numa_cells": inventory.numa_cells,
            "base_digest": accepted.digest,
        }
        try:
            return not self._is_refused(self._report(inventory).model_copy(update=changes))
        except UnsupportedVersion:
            return False

    @property
    def is_in_doubt(self) -> bool:
        """Is the next report a call in any case?"""
        return time.monotonic() > self._sure_until

    def _be_sure(self) -> None:
        self._sure_until = time.monotonic() + SURE_FOR * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _has_shown_life(self, inventory: Inventory) -> bool:
        """Show life without waiting for an answer, if that is enough."""
        if self.is_in_doubt:
            return False
        sign = SignOfLife(host=self.host, agent_id=self._agent_id, digest=inventory.digest)
        try:
            self._conductor.show_life(sign)
        except (ServiceUnavailable, UnsupportedVersion):
            return False
        return True

    def _report(self, inventory: Inventory) -> InventoryReport:
        return InventoryReport(host=self.host, agent_id=self._agent_id, digest=inventory.digest)

    def _is_refused(self, report: InventoryReport) -> bool:
        """Send a report. Does the conductor want all devices instead?"""
        self.doubt()
        with self._heeding():
            wants_all = self._conductor.report_inventory(report).resend
        if wants_all:
            self._accepted = None
        else:
            self._be_sure()
        return wants_all


def _answer(step: Step, ending: Ending) -> StepAnswer:
    return StepAnswer(claim_id=step.claim_id, step=step.step, outcome=ending.outcome, reason=ending.reason)
