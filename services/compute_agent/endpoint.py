"""The endpoint of a compute agent: what services can have it do on its host."""

from __future__ import annotations

from collections.abc import Callable

from portclaim.common import log_context, tracing
from portclaim.common.errors import InvalidMessage
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Renewal, Renewed, Step, Steps
from portclaim.common.rpc.endpoint import Endpoint, exposed
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.recovery_messages import UnknownClaim, UnknownClaims
from portclaim.services.compute_agent.step_queue import Job, StepQueue


class ComputeAgentEndpoint(Endpoint):
    """What services call on this host; see :class:`portclaim.common.rpc.compute_agent.ComputeAgentClient`."""

    def __init__(
        self,
        queue: StepQueue,
        report: Callable[[], None],
        renew: Callable[[PciAddress], bool],
        unknown: Callable[[], list[UnknownClaim]],
    ) -> None:
        self._queue = queue
        self._report = report
        self._renew = renew
        self._unknown = unknown

    @exposed(Step)
    def prepare(self, step: Step) -> None:
        self._put("prepare", step)

    @exposed(Step)
    def attach(self, step: Step) -> None:
        self._put("attach", step)

    @exposed(Step)
    def unplug(self, step: Step) -> None:
        self._put("unplug", step)

    @exposed(Step)
    def detach(self, step: Step) -> None:
        self._put("detach", step)

    @exposed(Steps)
    def take_steps(self, several: Steps) -> None:
        for step in several.steps:
            self._put(step.action, step)

    @exposed(Nothing)
    def report(self, _nothing: Nothing) -> None:
        self._report()

    @exposed(Renewal)
    def renew(self, which: Renewal) -> Renewed:
        return Renewed(renewed=self._renew(PciAddress.parse(which.address)))

    @exposed(Nothing)
    def unknown_claims(self, _nothing: Nothing) -> UnknownClaims:
        return UnknownClaims(claims=self._unknown())

    def _put(self, action: str, step: Step) -> None:
        if step.action != action:
            raise InvalidMessage(f"{action}: the step says {step.action}", method=action)
        self._queue.put(Job(step.traced(tracing.of_claim(step.claim_id), log_context.request_id())))
