"""Is there room on the disk for what the agent records?"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from portclaim.common.pci.address import PciAddress

LEAST = 4 * 2**20
"""Bytes. A step writes some kilobytes, and SQLite's write-ahead log grows to about 4 MB."""


def no_room(state_path: Path, devices: Collection[PciAddress]) -> Mapping[PciAddress, str]:
    """All devices with the reason, if the agent could not record that it hands one over.

    Else none. A claim would wait for a step that cannot begin.
    """
    disk = os.statvfs(state_path)
    if disk.f_bavail * disk.f_frsize >= LEAST:
        return {}
    reason = f"less than {LEAST // 2**20} MiB are free in {state_path}: the agent cannot record a handover"
    return dict.fromkeys(devices, reason)
