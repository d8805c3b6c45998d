"""The client of the compute agents. The scheduler and the conductor use it to send steps."""

from __future__ import annotations

from portclaim.common.rpc.agent_messages import Renewal, Renewed, Step
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.versions import FIRST

_SINCE = {"prepare": "1.1", "unplug": "1.1"}


class ComputeAgentClient(Client):
    """Sends messages to the agent of a host; :meth:`at` names the host."""

    topic = "compute_agent"

    def send(self, step: Step) -> None:
        """Send a step. The agent answers to the conductor. A step that arrives twice is carried out once."""
        self._cast(step.action, step, since=_SINCE.get(step.action, FIRST))

    def renew(self, address: str) -> bool:
        """Allow a device of ``one_time_use`` to be handed out again. Answers whether it was used.

        Raises :class:`~portclaim.InvalidRequest` while a claim has the device.
        """
        return self._call("renew", Renewal(address=address), Renewed, since="1.1").renewed
