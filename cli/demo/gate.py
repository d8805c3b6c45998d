"""Hold a simulated hypervisor up for as long as somebody looks at what has been claimed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.compute_agent.drivers.simulated import FAULTS


@contextmanager
def hypervisor_waits(hypervisor: Path) -> Iterator[None]:
    """Let no device be attached on this host before the end of the block.

    The driver reads its faults before it acts. Here they come through a named pipe, which holds
    their reader until somebody writes: that there are none.
    """
    pipe = hypervisor / FAULTS
    os.mkfifo(pipe, 0o600)
    try:
        yield
    finally:
        end = os.open(pipe, os.O_RDWR)  # both ends, so that it waits for no reader
        os.write(end, b"[]")
        pipe.unlink()
        os.close(end)
