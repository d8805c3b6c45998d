"""Ctrl-C at any moment: no thread of the demo waits forever."""

from pathlib import Path
from typing import cast
from uuid import UUID

import pytest

from portclaim.cli.demo import contention, paused_hypervisor
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.compute_agent.drivers.simulated import FAULTS
from tests.support.concurrency import meanwhile
from tests.support.interruption import at_every_moment

# A thread that waits forever is shown with all others, and does not block the other tests.
pytestmark = pytest.mark.timeout(60, method="thread")


class NothingLeft:
    """A scheduler that refuses."""

    def claim(self, _request: ClaimRequest) -> Claim:
        raise ClaimRefused("no host can serve this")


def test_no_client_waits_forever_for_a_client_that_never_started() -> None:
    scheduler = cast(SchedulerClient, NothingLeft())

    def compete() -> None:
        clients = [UUID(int=number) for number in range(3)]
        contention.Contention(scheduler, ["nic-pf:1"] * 3, clients, [], to_serve=0).run(lambda *_: None)

    assert at_every_moment(compete, contention) > 0


def test_a_paused_hypervisor_blocks_no_reader_forever(tmp_path: Path) -> None:
    readers = []

    def look() -> None:
        with paused_hypervisor.paused_hypervisor(tmp_path):
            readers.append(meanwhile((tmp_path / FAULTS).read_bytes))

    assert at_every_moment(look, paused_hypervisor) > 0
    assert not (tmp_path / FAULTS).exists()
    for reader in readers:
        reader.exception()  # returns when the reader has read, or came too late to find the pipe
