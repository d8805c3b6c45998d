"""Pause a simulated hypervisor, so that a claim can be shown before its devices are attached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portclaim.services.compute_agent.drivers.simulated import FAULTS


@contextmanager
def paused_hypervisor(hypervisor: Path) -> Iterator[None]:
    """Until the end of the block, no device is attached on the host with this hypervisor directory.

    The driver reads its file of faults before it acts. Here this file is a named pipe. Its reader is blocked
    until something is written: an empty list of faults.
    """
    pipe = hypervisor / FAULTS
    try:
        try:
            os.mkfifo(pipe, 0o600)
            yield
        finally:
            _resume(pipe)
    finally:
        _resume(pipe)  # again, if Ctrl-C interrupted it: a pipe that stays blocks its reader forever


def _resume(pipe: Path) -> None:
    if pipe.exists():
        with pipe.open("r+b", buffering=0) as end:  # both ends, because writing alone would wait for a reader
            pipe.unlink()
            end.write(b"[]")
