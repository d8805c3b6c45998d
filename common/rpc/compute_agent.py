"""The client of the compute agents. The scheduler and the conductor use it to send steps."""

from __future__ import annotations

from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.versions import FIRST

_SINCE = {"prepare": "1.1", "unplug": "1.1"}


class ComputeAgentClient(Client):
    """Sends messages to the agent of a host; :meth:`at` names the host."""

    topic = "compute_agent"

    def send(self, step: Step) -> None:
        """Send a step. The agent answers to the conductor. A step that arrives twice is carried out once."""
        self._cast(step.action, step, since=_SINCE.get(step.action, FIRST))

    def report(self) -> None:
        """Ask for a report that is answered. The conductor asks when a sign of life does not fit."""
        self._cast("report", Nothing(), since="1.1")
