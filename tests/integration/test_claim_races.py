"""Devices change between the moment a claim reads them and the moment it takes them.

The claim gets what it requested, or nothing.
"""

import logging
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import ClaimRefused
from tests.support.concurrency import meanwhile, wait_until_blocked
from tests.support.fleet import CONNECTX5, Fleet, pf, port_devices, vf
from tests.support.interference import after_each_statement
from tests.support.invariants import violations

Arrange = Callable[[Callable[[], object]], None]


@pytest.fixture
def after_reading_free_devices(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """Lets something happen right after the next read of the free devices."""

    def arrange(then: Callable[[], object]) -> None:
        looked = False

        def look(statement: str) -> None:
            nonlocal looked
            if not looked and statement.startswith("free_devices"):
                looked = True
                then()

        after_each_statement(monkeypatch, fleet.engine, look)

    return arrange


@pytest.fixture(autouse=True)
def _no_rule_is_broken(fleet: Fleet) -> None:
    yield
    with fleet.engine.connect() as connection:
        assert violations(connection) == []


def test_a_device_that_has_become_another_kind_is_not_taken(
    fleet: Fleet, after_reading_free_devices: Arrange
) -> None:
    host = fleet.host_of("h1", [*port_devices(0, 0), *port_devices(1, 0, CONNECTX5)])

    def change() -> None:
        host.add(*port_devices(1, 0))
        host.report()

    after_reading_free_devices(change)
    with pytest.raises(ClaimRefused):
        fleet.claim("any-pf:1,roce-pf:1")


def test_a_device_that_has_become_the_requested_kind_is_found(
    fleet: Fleet, after_reading_free_devices: Arrange
) -> None:
    host = fleet.host_of("h1", [*port_devices(0, 0), *port_devices(1, 0, CONNECTX5)])

    def change() -> None:
        host.add(*port_devices(0, 0, CONNECTX5), *port_devices(1, 0))
        host.report()

    after_reading_free_devices(change)
    first, second = fleet.claim("nic-pf:1,roce-pf:1").devices
    assert (first.address, second.address) == (pf(1), pf(0))


def test_a_vf_that_has_moved_to_a_held_port_is_not_taken(
    fleet: Fleet, after_reading_free_devices: Arrange
) -> None:
    host = fleet.host_of("h1", [*port_devices(0, 2), *port_devices(1, 0)])

    def change() -> None:
        assert fleet.claim("nic-pf:1").devices[0].address == pf(1)
        for number in range(2):
            host.change(vf(0, number), parent_address=pf(1))
        host.report()

    after_reading_free_devices(change)
    with pytest.raises(ClaimRefused):
        fleet.claim("nic-vf:1,nic-vf:1")


def test_a_pf_and_a_vf_that_has_moved_to_it_are_not_both_taken(
    fleet: Fleet, after_reading_free_devices: Arrange
) -> None:
    host = fleet.host_of("h1", [*port_devices(0, 0), *port_devices(1, 1)])

    def change() -> None:
        host.change(vf(1, 0), parent_address=pf(0))
        host.report()

    after_reading_free_devices(change)
    whole, slice_of_other = fleet.claim("nic-pf:1,nic-vf:1").devices
    assert (whole.address, slice_of_other.address, slice_of_other.parent_address) == (pf(1), vf(1, 0), pf(0))


def test_callers_that_waited_for_a_claim_that_was_rolled_back_get_one_claim(fleet: Fleet) -> None:
    """All callers go on at the same moment, with the same id, and each has chosen another port."""
    host = fleet.host("h1", ports=8, vfs=1)
    given_up = sa.text("""
        INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
        SELECT :claim_id, :claim_id, id, 'released', '{}', 1 FROM compute_nodes
    """)
    for _ in range(25):
        claim_id = uuid4()
        with fleet.engine.connect() as other:
            other.execute(given_up, {"claim_id": claim_id})
            calls = [meanwhile(partial(fleet.claim, "nic-pf:1", claim_id, claim_id)) for _ in range(8)]
            wait_until_blocked(fleet.engine, 8)
            other.rollback()
        claim, *others = [call.result() for call in calls]
        assert others == [claim] * 7
        host.failed(claim, "never mind")


def test_a_step_result_and_a_report_do_not_deadlock(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Both change the row of the host and the devices of two ports."""
    host = fleet.host("h1", ports=2, vfs=1)
    claim = fleet.claim("nic-pf:2")
    host.done(claim)
    host.lose(vf(0, 0), vf(1, 0))
    host.report()
    fleet.release(claim)
    host.add(*port_devices(0, 1), *port_devices(1, 1))
    with caplog.at_level(logging.INFO, "portclaim.common.db.transaction"):
        with fleet.engine.begin() as other:
            other.execute(sa.text(f"SELECT FROM pci_devices WHERE address = '{pf(1)}' FOR UPDATE"))
            answer = meanwhile(lambda: host.done(claim, step=2))
            wait_until_blocked(fleet.engine)
            report = meanwhile(host.report)
            wait_until_blocked(fleet.engine, 2)
        answer.result()
        report.result()
    assert caplog.messages == []
    assert set(fleet.status("h1").values()) == {"available"}


def test_a_step_result_does_not_ask_for_a_report_that_arrived_while_it_waited(fleet: Fleet) -> None:
    """The device was missing when the step result arrived; an earlier report then lists it again."""
    host = fleet.host("h1", vfs=2)
    claim = fleet.claim("nic-vf:1")
    host.lose(held := claim.devices[0].address)
    host.report()
    fleet.release(claim)
    host.add(*port_devices(0, vfs=2))
    with fleet.engine.begin() as other:
        other.execute(sa.text("SELECT FROM compute_nodes FOR UPDATE"))
        report = meanwhile(host.report)
        wait_until_blocked(fleet.engine)
        answer = meanwhile(lambda: host.done(claim, step=2))
        wait_until_blocked(fleet.engine, 2)
    answer.result()
    report.result()
    assert not host.sign_of_life().resend
    assert fleet.status("h1")[held] == "available"
