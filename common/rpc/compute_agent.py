"""The client of the compute agents. The scheduler and the conductor use it to send steps."""

from __future__ import annotations

from collections.abc import Sequence

from portclaim.common import log_context, tracing
from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import MOST_STEPS, Renewal, Renewed, Step, Steps
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.recovery_messages import UnknownClaim, UnknownClaims
from portclaim.common.rpc.versions import FIRST

_SINCE = {"prepare": "1.1", "unplug": "1.1"}


UNSIGNED = ("ping", "about", "unknown_claims")
"""Methods that need no signature: they change nothing."""


class ComputeAgentClient(Client):
    """Sends messages to the agent of a host; :meth:`at` names the host."""

    topic = "compute_agent"

    def send(self, step: Step) -> None:
        """Send a step. The agent answers to the conductor. A step that arrives twice is carried out once."""
        with tracing.continued(step.trace), log_context.about(request_id=step.request_id):
            self._cast(step.action, step, since=_SINCE.get(step.action, FIRST))

    def send_all(self, steps: Sequence[Step]) -> None:
        """Send several steps of one host, in as few messages as its agent can read. As :meth:`send`."""
        if len(steps) == 1 or not self.can_send("1.1"):
            self._send_singly(steps)
            return
        for begin in range(0, len(steps), MOST_STEPS):
            several = Steps(steps=list(steps[begin : begin + MOST_STEPS]))
            parents = {step.claim_id: step.trace for step in several.steps}
            self._cast("take_steps", several, since="1.1", parents=parents)

    def report(self) -> None:
        """Ask for a report that is answered. The conductor asks when a sign of life does not fit."""
        self._cast("report", Nothing(), since="1.1")

    def renew(self, address: str) -> bool:
        """Allow a device of ``one_time_use`` to be handed out again. Answers whether it was used.

        Raises :class:`~portclaim.InvalidRequest` while a claim has the device.
        """
        return self._call("renew", Renewal(address=address), Renewed, since="1.1").renewed

    def unknown_claims(self) -> list[UnknownClaim]:
        """The claims that this host has devices for, and that the conductor does not know."""
        return self._call("unknown_claims", Nothing(), UnknownClaims, since="1.1").claims

    def _send_singly(self, steps: Sequence[Step]) -> None:
        """Send all that can be sent, whatever becomes of the others. Raises the last error."""
        failure: PortclaimError | None = None
        for step in steps:
            try:
                self.send(step)
            except PortclaimError as error:
                failure = error
        if failure is not None:
            raise failure
