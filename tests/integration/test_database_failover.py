"""A PostgreSQL primary with a synchronous standby: when the primary is lost, services use the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import wait_until
from tests.support.invariants import violations
from tests.support.one_host import OneHost, one_host
from tests.support.services import Services
from tests.support.standby import Pair

LIMITS = {"database": {"answer_within": 3.0}, "rpc": {"timeout": 5.0}}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with TemporaryDirectory(prefix="portclaim-pair-") as directory:
        pair = Pair(Path(directory))
        yield pair
        pair.stop()


@pytest.fixture
def fleet(pair: Pair, rabbit_url: str, tmp_path: Path) -> Iterator[OneHost]:
    services = Services(tmp_path, rabbit_url, pair.url)
    with one_host(services, tmp_path, more=LIMITS) as fleet:
        fleet.start_agent()
        fleet.wait_for_report()
        yield fleet
        services.end()


class Caller(threading.Thread):
    """Claims a VF, releases it, and so on; it remembers every claim that it was told about."""

    def __init__(self, fleet: OneHost) -> None:
        super().__init__()
        self._fleet = fleet
        self._ending = threading.Event()
        self.answered: list[UUID] = []

    def run(self) -> None:
        while not self._ending.is_set():
            claim_id = uuid4()
            claim = partial(self._fleet.claim, "vf:1", claim_id=claim_id, instance_id=uuid4())
            self._persist(claim, claim_id)
            self._persist(partial(self._fleet.scheduler.release, claim_id), claim_id)

    def _persist(self, call: Callable[[], Claim], claim_id: UUID) -> None:
        while not self._ending.is_set():
            try:
                call()
            except ServiceUnavailable:  # called again, as a caller does
                continue
            self.answered.append(claim_id)
            return

    def wait_for_answers(self) -> None:
        """Wait until two more claims were answered, so one was asked for after this call."""
        before = len(self.answered)
        wait_until(lambda: len(self.answered) >= before + 2, "claims are answered")

    def end(self) -> None:
        self._ending.set()
        self.join()


@pytest.fixture
def caller(fleet: OneHost) -> Iterator[Caller]:
    caller = Caller(fleet)
    caller.start()
    yield caller
    caller.end()


def test_a_lost_primary_takes_no_answered_claim_with_it(pair: Pair, caller: Caller) -> None:
    caller.wait_for_answers()
    pair.primary.kill()
    pair.promote()
    caller.wait_for_answers()
    _nothing_is_lost(pair, caller)


def test_a_primary_that_hangs_holds_nobody_up_for_longer_than_the_limit(pair: Pair, caller: Caller) -> None:
    caller.wait_for_answers()
    pair.primary.pause()
    pair.promote()
    caller.wait_for_answers()
    _nothing_is_lost(pair, caller)


def test_a_primary_without_its_standby_confirms_no_claim(pair: Pair, fleet: OneHost, caller: Caller) -> None:
    caller.wait_for_answers()
    pair.standby.kill()
    before = len(caller.answered)
    with pytest.raises(ServiceUnavailable):
        fleet.claim("vf:1")
    assert len(caller.answered) <= before + 1  # one may have been on its way
    pair.join()
    caller.wait_for_answers()
    _nothing_is_lost(pair, caller)


def _nothing_is_lost(pair: Pair, caller: Caller) -> None:
    caller.end()
    known = {claim_id for (claim_id,) in pair.primary.ask("SELECT id FROM claims")}
    assert set(caller.answered) <= known
    with pair.primary.connected() as connection:
        assert violations(connection) == []
