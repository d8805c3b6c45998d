"""What holds for the engine's callers over RPC holds over HTTP: one claim per id, fairness, legal orders.

The tests are those of the engine. Here the fleet's callers speak HTTP to a real API, with the command line's
client.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration import test_linearizability as linearizability
from tests.integration import test_waiting_fairness as fairness
from tests.integration.test_claim_races import (
    after_reading_free_devices,
    test_a_device_that_has_become_another_kind_is_not_taken,
    test_a_device_that_has_become_the_requested_kind_is_found,
    test_a_pf_and_a_vf_that_has_moved_to_it_are_not_both_taken,
    test_a_vf_that_has_moved_to_a_held_port_is_not_taken,
    test_callers_that_waited_for_a_claim_that_was_rolled_back_get_one_claim,
)
from tests.integration.test_claims import TestAtOnce, TestOncePerId
from tests.support.fleet import Fleet
from tests.support.http_api import called_over_http

__all__ = [
    "TestAtOnce",
    "TestOncePerId",
    "after_reading_free_devices",
    "test_a_device_that_has_become_another_kind_is_not_taken",
    "test_a_device_that_has_become_the_requested_kind_is_found",
    "test_a_pf_and_a_vf_that_has_moved_to_it_are_not_both_taken",
    "test_a_vf_that_has_moved_to_a_held_port_is_not_taken",
    "test_callers_that_waited_for_a_claim_that_was_rolled_back_get_one_claim",
]


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    """A fleet that is called over HTTP, still without hosts. After the test no rule may be broken."""
    fleet = Fleet(database_url)
    try:
        with called_over_http(fleet, database_url):
            yield fleet
        assert fleet.faults() == []
    finally:
        fleet.close()


class WaitingOverHttp(fairness.Waiting):
    """The same events; claims and releases come over HTTP."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self._http = ExitStack()
        self._http.enter_context(called_over_http(self.fleet, database_url))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self._http.close()


def test_every_waiting_claim_is_served_whatever_others_claim(database_url: str) -> None:
    fairness.run(lambda: WaitingOverHttp(database_url))


def test_the_answers_to_all_threads_have_a_legal_order(fleet: Fleet) -> None:
    linearizability.TestThreads().test_the_answers_to_all_threads_have_a_legal_order(fleet, seed=0)
