"""A claim's life cycle: an agent's answer to a step changes it, and an agent asks which claims are live."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.rpc.agent_messages import (
    WITH_SETTINGS,
    Holding,
    Holdings,
    HoldingsRequest,
    StepDevice,
    StepResult,
    StepResults,
)

_ANSWER = PreparedStatement(
    "answer_step",
    """
    SELECT answer_step(:host::text, :agent_id::uuid, :claim_id::uuid, :step::integer,
                       :done::boolean, :reason::text)
    """,
)

_PREPARED = PreparedStatement(
    "answer_prepared",
    """
    SELECT answer_prepared(:host::text, :agent_id::uuid, :claim_id::uuid, :step::integer,
                           :guest_within::double precision)
    """,
)

_ANSWERS = PreparedStatement(
    "answer_steps",
    """
    SELECT claim_id::text
      FROM answer_steps(:host::text, :agent_id::uuid, CAST(:claim_ids::text[] AS uuid[]), :steps::integer[],
                        :outcomes::text[], :reasons::text[], :guest_within::double precision) AS claim_id
    """,
)

# An agent of release 0.2.0 would attach the devices of a claimed or allocated claim without their network
# settings. It does nothing for a status that it does not know.
_HOLDINGS = sa.text("""
    SELECT c.id AS claim_id, c.instance_id, c.step, c.attach,
           c.status || CASE WHEN c.status = 'releasing' OR count(cd.network_settings) = 0 THEN ''
                            ELSE :suffix END AS status,
           awaited_action(c.id, c.step) AS awaited,
           (SELECT traceparent FROM outbox o WHERE (o.claim_id, o.step) = (c.id, c.step)) AS traceparent,
           jsonb_agg(jsonb_build_object(
               'address', d.address, 'dev_type', d.dev_type, 'vendor_id', p.vendor_id,
               'product_id', p.product_id, 'parent_address', pf.address,
               'network_settings', cd.network_settings) ORDER BY d.id) AS devices
      FROM claims c
      JOIN pci_devices d ON d.claim_id = c.id
      JOIN pools p ON p.id = d.pool_id
      LEFT JOIN claim_devices cd ON (cd.claim_id, cd.device_id) = (c.id, d.id)
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE c.compute_node_id = host_of_agent(:host, :agent_id) AND c.live
     GROUP BY c.id
     ORDER BY c.created_at, c.id
""")

_CHECK_NUMBER = sa.text("SELECT check_number(:host, :number)")

_ENDED = sa.text("SELECT id FROM claims WHERE id = ANY(:found) AND NOT live ORDER BY id")


def step_done(engine: sa.Engine, result: StepResult, guest_within: float) -> None:
    """Change the claim as the agent's answer says. The same answer again changes nothing.

    A prepared claim expires after ``guest_within`` seconds, unless its request says otherwise; 0: never.

    Raises ``ClaimNotFound``, ``StaleStep``, ``InvalidRequest`` for a step not sent yet, ``UnknownHost``,
    ``HostOwnedByAnotherAgent``.
    """
    facts = {
        "host": result.host,
        "agent_id": str(result.agent_id),
        "claim_id": str(result.claim_id),
        "step": result.step,
    }
    with as_errors(host=result.host, claim_id=result.claim_id, step=result.step):
        if result.outcome == "prepared":
            _PREPARED.value(engine, facts | {"guest_within": guest_within})
        else:
            done = result.outcome == "done"
            _ANSWER.value(engine, facts | {"done": done, "reason": result.reason})


def steps_done(engine: sa.Engine, results: StepResults, guest_within: float) -> list[UUID]:
    """:func:`step_done` for several steps, in one commit. Answers the claims whose answers it would refuse.

    Raises ``UnknownHost``, ``HostOwnedByAnotherAgent``.
    """
    answers = results.answers
    facts = {
        "host": results.host,
        "agent_id": str(results.agent_id),
        "claim_ids": [str(answer.claim_id) for answer in answers],
        "steps": [answer.step for answer in answers],
        "outcomes": [answer.outcome for answer in answers],
        "reasons": [answer.reason for answer in answers],
        "guest_within": guest_within,
    }
    with as_errors(host=results.host):
        return [UUID(claim_id) for (claim_id,) in _ANSWERS.rows(engine, facts)]


def holdings(connection: sa.Connection, request: HoldingsRequest, number: int | None = None) -> Holdings:
    """The live claims of a host, and which of the claims that its agent found have ended.

    ``number`` is that of the request's signature, if it has one. Raises ``UnknownHost``,
    ``HostOwnedByAnotherAgent``, and ``NotAuthorized`` if a later message of the host was recorded before.
    """
    asked = {"host": request.host, "agent_id": request.agent_id, "suffix": WITH_SETTINGS}
    with as_errors(host=request.host):
        if number is not None:
            connection.execute(_CHECK_NUMBER, {"host": request.host, "number": number})
        # The live claims first: a claim that ends in between is then in both answers rather than in neither.
        rows = connection.execute(_HOLDINGS, asked).mappings().all()
    ended = connection.execute(_ENDED, {"found": request.found}).scalars().all()
    return Holdings(
        holdings=[
            Holding.model_validate({**row, "devices": [StepDevice.model_validate(d) for d in row["devices"]]})
            for row in rows
        ],
        ended=list(ended),
    )
