"""The client of the conductor. Compute agents use it to report their inventory and to answer steps."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from portclaim.common.rpc.agent_messages import (
    Holdings,
    HoldingsRequest,
    InventoryAnswer,
    InventoryReport,
    StepResult,
)
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.fields import Nothing


class ConductorClient(Client):
    """Calls the conductor. Any of its workers answers."""

    topic = "conductor"

    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        """Report the devices of a host. Raises ``HostOwnedByAnotherAgent``; then nothing has changed."""
        return self._call("report_inventory", report, InventoryAnswer)

    def step_done(self, result: StepResult) -> None:
        """Answer a step. Raises ``StaleStep`` if a later step has replaced it, and ``ClaimNotFound``."""
        self._call("step_done", result, Nothing)

    def holdings(self, host: str, agent_id: UUID, found: Collection[UUID] = ()) -> Holdings:
        """The live claims of ``host``, and which of ``found`` have ended.

        Raises ``UnknownHost``, ``HostOwnedByAnotherAgent``.
        """
        request = HoldingsRequest(host=host, agent_id=agent_id, found=list(found))
        return self._call("holdings", request, Holdings)
