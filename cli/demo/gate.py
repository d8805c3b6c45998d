"""Hold a simulated hypervisor up for as long as somebody looks at what has been claimed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portclaim.services.compute_agent.drivers.simulated import FAULTS


@contextmanager
def hypervisor_waits(hypervisor: Path) -> Iterator[None]:
    """Let no device be attached on this host before the end of the block.

    The driver reads its faults before it acts. Here they come through a named pipe, which holds
    their reader until somebody writes: that there are none.
    """
    pipe = hypervisor / FAULTS
    try:
        try:
            os.mkfifo(pipe, 0o600)
            yield
        finally:
            _open(pipe)
    finally:
        _open(pipe)  # if Ctrl-C came in the middle of it; a half open gate would hold its reader for ever


def _open(pipe: Path) -> None:
    if pipe.exists():
        with pipe.open("r+b", buffering=0) as end:  # both ends, so that it waits for no reader
            pipe.unlink()
            end.write(b"[]")
