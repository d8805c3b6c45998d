"""A host and its services, while callers claim and release. Afterwards nothing is lost, nothing doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import ClaimNotFound, ClaimRefused, ServiceUnavailable
from tests.support.caller import PATIENCE, Callers
from tests.support.concurrency import wait_until
from tests.support.invariants import violations
from tests.support.measured_faults import MeasuredFaults
from tests.support.one_host import OneHost, one_host
from tests.support.services import Options, Services

_NOT_ENDED = sa.text("SELECT count(*) FROM claims WHERE status <> 'released'")


class UnderLoad:
    """``fault``: measures a fault that ends with a ``with`` block."""

    def __init__(
        self, fleet: OneHost, services: Services, record: Callable[[str, object], None], database: sa.Engine
    ) -> None:
        self.fleet = fleet
        self.services = services
        self.callers = Callers(fleet)
        self.fault = MeasuredFaults(self.callers, record)
        self._database = database
        self._unanswered: list[UUID] = []

    def nobody_can_claim(self) -> None:
        """A claim is not confirmed, and from then on those of the callers are not.

        It gets no answer, or it is refused, if all VFs are held by what was claimed before.
        """
        for _ in range(2):
            before = len(self.callers.claimed)
            self._unanswered.append(claim_id := uuid4())
            with pytest.raises((ServiceUnavailable, ClaimRefused)):
                self.fleet.claim("vf:1", claim_id=claim_id)
        assert len(self.callers.claimed) == before

    def nothing_is_lost(self) -> None:
        """Every answer was true, every claim has ended, and no device went to two claims at a time."""
        self.callers.end()
        self._release_unanswered()
        with self._database.connect() as connection:
            known = set(connection.scalars(sa.text("SELECT id FROM claims")))
            assert self.callers.claimed <= known, "an answered claim is lost"
            assert self.callers.released == self.callers.claimed, "a claim was never released"
            wait_until(lambda: connection.scalar(_NOT_ENDED) == 0, "all claims have ended", PATIENCE)
            assert self.fleet.held() | self.fleet.prepared() == set()
            assert handed_out_twice(self.fleet.effects()) == []
            assert violations(connection) == []

    def _release_unanswered(self) -> None:
        """They may have been made all the same."""
        for claim_id in self._unanswered:
            with suppress(ClaimNotFound):
                self.fleet.scheduler.release(claim_id)


@contextmanager
def under_load(
    directory: Path,
    transport_url: str,
    database_url: str,
    options: Options,
    record: Callable[[str, object], None],
) -> Iterator[UnderLoad]:
    """Start the services and the callers. ``options``: of the services and of the callers.

    ``record``: keeps a property of the test's report, as pytest's ``record_property`` does.
    """
    services = Services(directory, transport_url, database_url)
    database = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with one_host(services, directory, more=options) as fleet:
        fleet.start_agent()
        fleet.wait_for_report()
        load = UnderLoad(fleet, services, record, database)
        try:
            yield load
        finally:
            load.callers.end()
        services.end()


def handed_out_twice(effects: Sequence[tuple[str, str]]) -> list[str]:
    """The devices that a guest got while another had them. ``effects``: ``attach`` or ``detach``, address."""
    held: set[str] = set()
    twice = []
    for action, address in effects:
        if action == "detach":
            held.discard(address)
        elif address in held:
            twice.append(address)
        else:
            held.add(address)
    return twice
