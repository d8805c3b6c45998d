"""Wherever Ctrl-C finds the demo, nobody in it waits for what will not come."""

from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from portclaim.cli.demo import contention, gate
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.compute_agent.drivers.simulated import FAULTS
from tests.support.concurrency import meanwhile
from tests.support.interruption import at_every_moment

# Who waits for ever is shown with all threads, and does not hold up the others.
pytestmark = pytest.mark.timeout(60, method="thread")


class NothingLeft:
    """A scheduler that refuses."""

    def claim(self, _request: ClaimRequest) -> Claim:
        raise ClaimRefused("no host can serve this")


def test_no_client_waits_at_the_start_for_one_that_does_not_come() -> None:
    scheduler = cast(SchedulerClient, NothingLeft())

    def fight() -> None:
        clients = [UUID(int=number) for number in range(3)]
        contention.Contention(scheduler, ["nic-pf:1"] * 3, clients, [], to_serve=0).run(lambda *_: None)

    assert at_every_moment(fight, contention) > 0


def test_the_gate_holds_nobody_for_ever(tmp_path: Path) -> None:
    readers = []

    def look() -> None:
        with gate.hypervisor_waits(tmp_path):
            readers.append(meanwhile((tmp_path / FAULTS).read_bytes))

    assert at_every_moment(look, gate) > 0
    assert not (tmp_path / FAULTS).exists()
    for reader in readers:
        reader.exception()  # returns when it has come through, or too late to find the gate
