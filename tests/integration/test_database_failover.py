"""A PostgreSQL primary with a synchronous standby: when the primary is lost, services use the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from portclaim.common.errors import ServiceUnavailable
from tests.support.caller import Caller
from tests.support.invariants import violations
from tests.support.one_host import OneHost, one_host
from tests.support.services import Services
from tests.support.standby import Pair

LIMITS = {"database": {"answer_within": 3.0}, "rpc": {"timeout": 5.0}}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with TemporaryDirectory(prefix="portclaim-pair-") as directory:
        Path(directory).chmod(0o755)  # root's server runs as another user
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
