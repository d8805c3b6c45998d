"""Tell a host's compute agent what to do. Its answer goes to the conductor."""

from __future__ import annotations

from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.client import Client


class ComputeAgentClient(Client):
    """Reaches the agent of the host that ``server`` names."""

    topic = "compute_agent"

    def send(self, step: Step) -> None:
        """Cast a step; a step that arrives twice is done once."""
        self._cast(step.action, step)
