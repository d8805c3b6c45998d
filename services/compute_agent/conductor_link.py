"""The agent's calls to the conductor."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from portclaim.common.rpc.agent_messages import Holdings, InventoryReport, Step, StepResult
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.ledger import Ending


class ConductorLink:
    """Calls the conductor as the agent of one host. Raises what :class:`ConductorClient` raises."""

    def __init__(self, conductor: ConductorClient, host: str, agent_id: UUID) -> None:
        self.host = host
        self._agent_id = agent_id
        self._conductor = conductor

    def publish(self, inventory: Inventory, *, in_full: bool) -> bool:
        """Report the inventory, or only its digest. Answers whether the conductor wants it in full."""
        report = InventoryReport(
            host=self.host,
            agent_id=self._agent_id,
            digest=inventory.digest,
            devices=inventory.devices if in_full else None,
            numa_cells=inventory.numa_cells if in_full else [],
        )
        return self._conductor.report_inventory(report).resend

    def answer(self, step: Step, ending: Ending) -> None:
        """Answer a step."""
        result = StepResult(
            host=self.host,
            agent_id=self._agent_id,
            claim_id=step.claim_id,
            step=step.step,
            outcome=ending.outcome,
            reason=ending.reason,
        )
        self._conductor.step_done(result)

    def holdings(self, found: Collection[UUID]) -> Holdings:
        """The live claims of this host, and which of those ``found`` on it have ended."""
        return self._conductor.holdings(self.host, self._agent_id, found)
