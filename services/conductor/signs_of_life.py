"""Signs of life of agents: noted in memory as they come, and recorded together."""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.errors import PortclaimError
from portclaim.common.metrics.catalogue import SIGNS_OF_LIFE
from portclaim.common.rpc.agent_messages import SignOfLife
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.trust.caller import caller

LOG = logging.getLogger(__name__)

_RECORD = PreparedStatement(
    "record_signs_of_life",
    """
    SELECT record_signs_of_life(:hosts::text[], :agent_ids::text[]::uuid[], :digests::text[],
                                :numbers::bigint[])
    """,
)


class SignsOfLife:
    """The latest sign of life of each host that has not been recorded yet. Threads may share it.

    What is noted here is lost with the process. The next sign of life comes soon.
    """

    def __init__(self, engine: sa.Engine, agents: ComputeAgentClient) -> None:
        self._engine = engine
        self._agents = agents
        self._lock = threading.Lock()
        self._noted: dict[str, tuple[SignOfLife, int | None]] = {}

    def note(self, sign: SignOfLife) -> None:
        with self._lock:
            self._noted[sign.host] = sign, caller().number

    def record(self) -> bool:
        """Record what has been noted. Agents whose sign does not fit what the database has are asked for a
        report: that one tells them what is wanted of them. Answers False: no work is left.
        """
        with self._lock:
            signs, self._noted = list(self._noted.values()), {}
        SIGNS_OF_LIFE.count(by=len(signs))
        if signs:
            facts = {
                "hosts": [sign.host for sign, _ in signs],
                "agent_ids": [str(sign.agent_id) for sign, _ in signs],
                "digests": [sign.digest for sign, _ in signs],
                "numbers": [number for _, number in signs],
            }
            for host in _RECORD.value(self._engine, facts):
                self._ask_for_report(host)
        return False

    def _ask_for_report(self, host: str) -> None:
        try:
            self._agents.at(host).report()
        except PortclaimError as error:
            LOG.warning("host %s could not be asked for a report: %s", host, error)
