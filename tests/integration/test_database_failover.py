"""A PostgreSQL primary with a synchronous standby: services go on when one of them is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos import privacy
from tests.chaos.network import Network
from tests.support.concurrency import wait_until
from tests.support.one_host import ALIASES
from tests.support.standby import Node, Pair
from tests.support.under_load import UnderLoad, under_load

HOSTS = ["db-1", "db-2"]
LIMITS = {"database": {"answer_within": 3.0}, "rpc": {"timeout": 5.0}}
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Each server is on a host of its own, where the run has a private network."""
    with TemporaryDirectory(prefix="portclaim-pair-") as directory:
        Path(directory).chmod(0o755)  # root's server runs as another user
        if privacy.has_network():
            one, other = map(request.getfixturevalue("network").place, HOSTS)
            pair = Pair(Path(directory), places=(one, other))
        else:
            pair = Pair(Path(directory))
        yield pair
        pair.stop()


@pytest.fixture
def load(
    pair: Pair, rabbit_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[UnderLoad]:
    with under_load(tmp_path, rabbit_url, pair.url, LIMITS, record_property) as load:
        yield load


def test_a_lost_primary_takes_no_answered_claim_with_it(pair: Pair, load: UnderLoad) -> None:
    with load.fault("primary of PostgreSQL killed"):
        pair.primary.kill()
        pair.promote()
    load.nothing_is_lost()


def test_services_fail_over_and_back(pair: Pair, load: UnderLoad) -> None:
    first = pair.primary
    for _ in range(2):
        with load.fault("primary of PostgreSQL killed, and made the standby of the other"):
            pair.primary.kill()
            pair.promote()
            pair.join()
    assert pair.primary is first
    load.nothing_is_lost()


def test_a_primary_that_hangs_and_wakes_up_confirms_no_claim(pair: Pair, load: UnderLoad) -> None:
    old = pair.primary
    with load.fault("primary of PostgreSQL hangs, and goes on until it is fenced") as fault:
        old.pause()
        pair.promote()
        fault.is_survived()
        old.resume()
        _confirms_nothing_until_it_is_fenced(old, load)
    load.nothing_is_lost()


@pytest.mark.skipif(not privacy.has_network(), reason=privacy.why_not())
def test_a_primary_that_was_cut_off_confirms_no_claim(pair: Pair, network: Network, load: UnderLoad) -> None:
    old = pair.primary
    with load.fault("network of PostgreSQL's primary cut, until it is back and fenced") as fault:
        network.cut(HOSTS[0])
        pair.promote()
        fault.is_survived()
        network.heal(HOSTS[0])
        _confirms_nothing_until_it_is_fenced(old, load)
    load.nothing_is_lost()


def test_a_primary_without_its_standby_confirms_no_claim(pair: Pair, load: UnderLoad) -> None:
    with load.fault("standby of PostgreSQL killed"):
        pair.standby.kill()
        load.nobody_can_claim()
        pair.join()
    load.nothing_is_lost()


def test_claims_wait_for_a_standby_that_hangs(pair: Pair, load: UnderLoad) -> None:
    with load.fault("standby of PostgreSQL hangs"):
        pair.standby.pause()
        load.nobody_can_claim()
        pair.standby.resume()
    load.nothing_is_lost()


def test_a_standby_that_lags_has_every_answered_claim_when_it_is_promoted(
    pair: Pair, load: UnderLoad
) -> None:
    """It has written down what the primary committed, and has not replayed it yet."""
    with load.fault("primary of PostgreSQL killed while its standby lags"):
        pair.standby.tell("SELECT pg_wal_replay_pause()")
        load.callers.wait_for_answers()
        behind = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"
        assert pair.standby.ask(behind) == [(True,)]
        pair.primary.kill()
        pair.promote()
    load.nothing_is_lost()


def _confirms_nothing_until_it_is_fenced(old: Node, load: UnderLoad) -> None:
    """The old primary runs beside the new one. One scheduler knows it only; others may go back to it."""
    load.services.database_urls["scheduler"] = old.url()
    misled = load.services("scheduler", {"pci": {"alias": ALIASES}, **LIMITS})
    wait_until(lambda: old.ask(WAITING) == [(True,)], "a claim waits on the old primary")
    old.kill()
    misled.kill()
