"""A private RabbitMQ with scheduler, conductor and echo service on it, each in worker processes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.fleet import ALIASES
from portclaim.cli.supervisor import supervise
from tests.support.rabbitmq import Broker, start_rabbitmq
from tests.support.services import as_ini

WORKERS = 2
"""Processes of each service."""


@contextmanager
def services(database_url: str) -> Iterator[str]:
    """All of them up for the length of a ``with`` block; yields the configuration file, for clients too."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes, facts = start_rabbitmq(os.getpid())
        for process in processes:
            stack.callback(process.stop)
        file = directory / "bench.conf"
        file.write_text(
            as_ini(
                {
                    "DEFAULT": {
                        "transport_url": Broker(**facts).create_virtual_host(),
                        "state_path": directory,
                    },
                    "database": {"connection": database_url},
                    "pci": {"alias": ALIASES},
                    # The fleet of a benchmark has no agents that report, nor anyone to send a step to.
                    "conductor": {"workers": WORKERS, "agent_down_after": 1e9, "resend_after": 1e6},
                    "scheduler": {"workers": WORKERS},
                }
            )
        )
        for name in ("portclaim.services.scheduler", "portclaim.services.conductor", "bench.echo"):
            process = supervise(
                *(sys.executable, "-m", name, "--config-file", file),
                ready=rf"portclaim-{name.partition('.')[2]} ready",
                log=directory / f"{name}.log",
                owner=os.getpid(),
            )
            stack.callback(process.stop)
        yield str(file)
