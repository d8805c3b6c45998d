"""The client of the conductor. Compute agents use it to report their inventory and to answer steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from portclaim.common.rpc.agent_messages import (
    Holdings,
    HoldingsRequest,
    InventoryAnswer,
    InventoryReport,
    SignOfLife,
    StepResult,
    StepResults,
)
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.trust_messages import Enrolled, Enrolment, KeysRequest, Rotation, ServicesKeys

FULL_REPORTS = "conductor_reports"
"""The queue of full inventory reports. Answers to steps do not wait behind those of a thousand hosts."""

SIGNS_OF_LIFE = "conductor_life"
"""The queue of signs of life. They are read past the dispatcher, see :class:`~.collector.Collector`."""


UNSIGNED = ("ping", "about", "enrol", "services_keys")
"""Methods that need no signature: they tell nothing, or prove their sender themselves."""

UNSIGNED_WORK = ("enrol", "services_keys")
"""Those of them that cost the conductor something."""

CALLS = ("report_inventory", "holdings", "rotate_key")
"""Methods whose answer an agent awaits before it makes the next call."""


class ConductorClient(Client):
    """Calls the conductor. Any of its workers answers."""

    topic = "conductor"

    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        """Report the devices of a host. Raises ``HostOwnedByAnotherAgent``; then nothing has changed."""
        is_full = report.devices is not None and report.base_digest is None
        queue = FULL_REPORTS if is_full and self.can_send("1.1") else None
        return self._call("report_inventory", report, InventoryAnswer, queue=queue)

    def show_life(self, sign: SignOfLife) -> None:
        """Show that an agent lives. It is not answered: a conductor that cannot use it asks for a report.

        Raises ``ServiceUnavailable`` if no conductor takes signs of life: report the digest instead. Raises
        ``UnsupportedVersion``.
        """
        self._cast("show_life", sign, since="1.1", queue=SIGNS_OF_LIFE)

    def can_report_changes(self) -> bool:
        """Whether a report may have a ``base_digest``: a pin to an older version does not allow it."""
        return self.can_send("1.1")

    def step_done(self, result: StepResult) -> None:
        """Answer a step. Raises ``StaleStep`` if a later step has replaced it, and ``ClaimNotFound``."""
        self._call("step_done", result, Nothing)

    def cast_step_done(self, result: StepResult) -> None:
        """:meth:`step_done` without a reply, for a step that the conductor sends again until it is answered.

        Raises ``ServiceUnavailable`` if the broker does not take the message.
        """
        self._cast("step_done", result)

    def cast_steps_done(self, results: StepResults, parents: Mapping[UUID, str | None] | None = None) -> None:
        """:meth:`cast_step_done` for several steps, each of another claim.

        ``parents``: the traces of the claims. Raises ``ServiceUnavailable``, and ``UnsupportedVersion`` if a
        pin allows only single answers.
        """
        self._cast("steps_done", results, since="1.1", parents=parents)

    def can_take_several_answers(self) -> bool:
        """Whether a pin allows :meth:`cast_steps_done`."""
        return self.can_send("1.1")

    def holdings(self, host: str, agent_id: UUID, found: Collection[UUID] = ()) -> Holdings:
        """The live claims of ``host``, and which of ``found`` have ended.

        Raises ``UnknownHost``, ``HostOwnedByAnotherAgent``.
        """
        request = HoldingsRequest(host=host, agent_id=agent_id, found=list(found))
        return self._call("holdings", request, Holdings)

    def enrol(self, wanted: Enrolment) -> Enrolled:
        """Register a host's first key. Raises ``NotAuthorized``, and ``InvalidRequest``."""
        return self._call("enrol", wanted, Enrolled, since="1.1")

    def rotate_key(self, wanted: Rotation) -> None:
        """Register a host's next key. Raises ``NotAuthorized``, and ``InvalidRequest``."""
        self._call("rotate_key", wanted, Nothing, since="1.1")

    def services_keys(self, nonce: str) -> ServicesKeys:
        """The public keys of the services."""
        return self._call("services_keys", KeysRequest(nonce=nonce), ServicesKeys, since="1.1")
