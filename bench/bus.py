"""A private RabbitMQ with services on it, each in worker processes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.fleet import ALIASES
from portclaim.cli.supervisor import supervise
from tests.support.rabbitmq import Broker, free_ports, start_rabbitmq
from tests.support.services import as_ini

WORKERS = 2
"""Processes of each service."""

PORTCLAIM = ("portclaim.services.scheduler", "portclaim.services.conductor")
API = "portclaim.services.api"
ECHO = ("bench.echo", "bench.peers.kombu_echo")


class Running(NamedTuple):
    """``file``: the configuration, for clients too. ``parts``: the process id of each, by its short name."""

    file: str
    parts: Mapping[str, int | tuple[int, ...]]


class RunningBroker(NamedTuple):
    """``options``: what the section [oslo_messaging_rabbit] needs for it."""

    url: str
    pids: tuple[int, ...]
    options: Mapping[str, object]


StartBroker = Callable[[ExitStack], RunningBroker]


def one_node(stack: ExitStack) -> RunningBroker:
    """A node with classic queues."""
    return shared_node(stack)(stack)


def shared_node(stack: ExitStack) -> StartBroker:
    """A node with classic queues for several sets of services: each gets a virtual host of its own."""
    processes, facts = start_rabbitmq(os.getpid())
    for process in processes:
        stack.callback(process.stop)
    node = Broker(**facts)
    return lambda _stack: RunningBroker(node.create_virtual_host(), (processes[0].pid,), {})


@contextmanager
def services(
    database_url: str,
    modules: Sequence[str] = PORTCLAIM,
    start_broker: StartBroker = one_node,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> Iterator[Running]:
    """These modules as services, and RabbitMQ, for a ``with`` block. ``more``: other options."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = start_broker(stack)
        parts: dict[str, int | tuple[int, ...]] = {"rabbitmq": broker.pids}
        file = directory / "bench.conf"
        options: dict[str, Mapping[str, object]] = {
            "DEFAULT": {
                "transport_url": broker.url,
                "state_path": directory,
            },
            "database": {"connection": database_url},
            "pci": {"alias": ALIASES},
            # The fleet of a benchmark has no agents that report, nor anyone to send a step to. Claims
            # that were built in wait for ever.
            "conductor": {
                "workers": WORKERS,
                "agent_down_after": 1e9,
                "resend_after": 1e6,
                "expire_after": 1e6,
            },
            "scheduler": {"workers": WORKERS},
            "api": {"workers": WORKERS, "port": free_ports(1)[0]},
            "oslo_messaging_rabbit": broker.options,
        }
        for section, values in (more or {}).items():
            options[section] = {**options.get(section, {}), **values}
        file.write_text(as_ini(options))
        for module in modules:
            name = module.rpartition(".")[2]
            process = supervise(
                *(sys.executable, "-m", module, "--config-file", file),
                ready=rf"portclaim-{name.replace('_', '-')} ready",
                log=directory / f"{name}.log",
                owner=os.getpid(),
            )
            stack.callback(process.stop)
            parts[name] = process.pid
        yield Running(str(file), parts)
