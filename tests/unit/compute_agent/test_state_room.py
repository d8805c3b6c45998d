"""A host whose agent cannot record a handover offers nothing."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.state_room import LEAST, no_room

DEVICES = [PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:02:00.0")]


@pytest.mark.parametrize(("free", "offered"), [(LEAST - 4096, False), (LEAST, True)])
def test_without_room_no_device_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, offered: bool
) -> None:
    disk = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    problems = no_room(tmp_path, DEVICES)
    assert list(problems) == ([] if offered else DEVICES)
    assert all(f"less than 4 MiB are free in {tmp_path}" in reason for reason in problems.values())
