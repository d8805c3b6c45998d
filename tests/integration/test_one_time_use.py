"""``one_time_use``: a device that was given back is not handed out before an operator renews it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import DeviceFilter
from tests.support.concurrency import wait_until
from tests.support.one_host import HOST, OneHost, one_host
from tests.support.services import Services

PROGRAM = Path(sys.executable).with_name("portclaim")
CARD = {"vendor_id": "10de", "one_time_use": "yes"}


@pytest.fixture
def fleet(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    """A host with one card for one-time use."""
    with one_host(service_process, tmp_path) as fleet:
        fleet.pci = {"device_spec": json.dumps(CARD), "report_in_placement": True}
        yield fleet


def renew(fleet: OneHost, address: str) -> subprocess.CompletedProcess[str]:
    bus = {"OS_DEFAULT__TRANSPORT_URL": fleet.transport_url}
    command = [str(PROGRAM), "host", "renew", HOST, "--device", address]
    return subprocess.run(
        command, env=os.environ | bus, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_device_is_used_once_until_it_is_renewed(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    fleet.wait_for_report()
    claim = fleet.claim("gpu:1")
    [card] = claim.devices
    fleet.wait_for(claim.claim_id, "allocated")
    held = renew(fleet, card.address)
    assert held.returncode == 1
    assert "release its claim first" in held.stderr

    fleet.scheduler.release(claim.claim_id)
    fleet.wait_for(claim.claim_id, "released")
    [device] = fleet.scheduler.devices(DeviceFilter(host=HOST)).devices
    assert device.status == "unavailable"
    assert device.reason == f"used once: portclaim host renew {HOST} --device {card.address}"
    with pytest.raises(ClaimRefused):
        fleet.claim("gpu:1")

    agent.kill()
    fleet.start_agent()
    fleet.wait_for_report()
    assert fleet.statuses() == {card.address: "unavailable"}

    done = renew(fleet, card.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{card.address} of {HOST} may be handed out again\n"
    wait_until(lambda: fleet.statuses() == {card.address: "available"}, "the card is available")
    assert renew(fleet, card.address).stdout.endswith("was not used: nothing to do\n")
    fleet.wait_for(fleet.claim("gpu:1").claim_id, "allocated")
