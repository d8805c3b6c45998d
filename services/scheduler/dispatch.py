"""Send the steps of claims to their agents, right after the commit that wrote the steps.

A step that is not sent here, because the service ends or the broker does not answer, is sent later by a
conductor's relay.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from portclaim.common import log_context, tracing
from portclaim.common.errors import PortclaimError
from portclaim.common.metrics.catalogue import CLAIM_PHASES, STEPS_NOT_CAST
from portclaim.common.rpc.agent_messages import Step, StepAction, StepDevice
from portclaim.common.rpc.claim_messages import Claim

LOG = logging.getLogger(__name__)

Send = Callable[[str, Sequence[Step]], None]
"""Sends steps to the agent of a host."""

_STEP: dict[tuple[str, str], StepAction] = {
    ("claimed", "auto"): "attach",
    ("claimed", "on-call"): "prepare",
    ("prepared", "auto"): "attach",
    ("releasing", "auto"): "detach",
    ("releasing", "on-call"): "detach",
}
"""The step that a claim's status and its attach mode call for."""

_STEP_FIELDS = set(StepDevice.model_fields)
_GIVES_BACK = {"unplug", "detach"}  # without network settings: an agent of any release can do these


class _Asked(NamedTuple):
    """Claims whose steps are to be sent, since when, and in which trace."""

    claims: Sequence[Claim]
    at: float
    trace: str | None
    request_id: str


class Dispatcher(threading.Thread):
    """Sends the steps of claims in a thread of its own, so that no caller waits for the broker to take them.

    Steps for one host that come while others are sent are sent together.
    """

    def __init__(self, send: Send) -> None:
        super().__init__(name="dispatcher of steps", daemon=True)
        self._send = send
        self._claims: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()

    def dispatch(self, claims: Sequence[Claim]) -> None:
        """Send the steps that the claims' statuses call for, soon."""
        self._claims.put(_Asked(claims, time.perf_counter(), tracing.current(), log_context.request_id()))

    def run(self) -> None:
        is_ending = False
        while not is_ending:
            asked = [self._claims.get()]
            while not self._claims.empty():
                asked.append(self._claims.get())
            is_ending = None in asked
            several = [each for each in asked if each is not None]
            try:
                claims = [claim for each in several for claim in each.claims]
                origins = {claim.claim_id: each for each in several for claim in each.claims}
                dispatch_steps(claims, self._send, origins)
            except Exception:
                LOG.exception("steps were not sent and will be sent again")
            for each in several:
                CLAIM_PHASES.observe(time.perf_counter() - each.at, "cast")

    def end(self) -> None:
        """Send what is left, and return."""
        self._claims.put(None)
        if self.is_alive():
            self.join()


def dispatch_steps(claims: Iterable[Claim], send: Send, origins: Mapping[UUID, _Asked] | None = None) -> None:
    """Send the steps that the claims' statuses call for. Those for one host are sent together.

    ``origins``: who asked for them.
    """
    steps: dict[str, list[Step]] = {}
    for claim in claims:
        action = _STEP.get((claim.status, claim.attach))
        if action is not None and claim.host is not None:
            step = _step(claim, action)
            if origins is not None and (origin := origins.get(claim.claim_id)) is not None:
                step.traced(origin.trace, origin.request_id)
            steps.setdefault(claim.host, []).append(step)
    for host, of_host in steps.items():
        try:
            send(host, of_host)
        except PortclaimError as error:
            STEPS_NOT_CAST.count(by=len(of_host))
            LOG.warning(
                "steps for host %s were not sent and will be sent again, of claims %s: %s",
                host,
                ", ".join(str(step.claim_id) for step in of_host),
                error,
            )


def _step(claim: Claim, action: StepAction) -> Step:
    fields = _STEP_FIELDS - ({"network_settings"} if action in _GIVES_BACK else set())
    return Step(
        claim_id=claim.claim_id,
        step=claim.step,
        action=action,
        instance_id=claim.instance_id,
        # The fields were checked as the claim's.
        devices=[
            StepDevice.model_construct(**{name: getattr(device, name) for name in fields})
            for device in claim.devices
        ],
    )
