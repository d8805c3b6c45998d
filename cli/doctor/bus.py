"""The message bus, and whether the services answer on it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from portclaim.cli.doctor.finding import Finding, not_checked, ok, trouble, warning
from portclaim.common.errors import InvalidConfiguration, PortclaimError

if TYPE_CHECKING:
    from portclaim.cli.session import Session
    from portclaim.common.rpc.client import Client

_LONG_QUEUE = 100  # messages


def check(session: Session) -> Iterator[Finding]:
    from portclaim.common.events import broker

    if broker.is_within_this_process(session.conf):
        yield not_checked(
            "bus",
            "it is within the process of portclaim serve: its services and agents cannot be asked from here",
            "set PORTCLAIM_URL and PORTCLAIM_TOKEN: then the API is asked whether they answer",
        )
        return
    try:
        queues = _queues(session.conf)
    except InvalidConfiguration as error:
        yield trouble("bus", error.message, "correct [DEFAULT] transport_url")
        return
    except OSError as error:
        yield trouble(
            "bus",
            f"no broker answers: {error}",
            "see whether RabbitMQ runs, and whether [DEFAULT] transport_url is right",
        )
        return
    yield ok("bus", "the broker answers")
    yield from _services(session, queues)


def _queues(conf: Any) -> dict[str, tuple[int, int]]:
    """Messages and consumers of each service's queue. Raises OSError if no broker answers."""
    from kombu.exceptions import KombuError

    from portclaim.common.events import broker

    connection = broker.connection(conf, heartbeat=False)
    try:
        with connection:
            broker.reach(connection)
            return {topic: _length(connection, topic) for topic in ("scheduler", "conductor")}
    except (*broker.faults(connection), KombuError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _length(connection: Any, queue: str) -> tuple[int, int]:
    channel = connection.channel()
    try:
        declared = channel.queue_declare(queue, passive=True)
    except connection.channel_errors:  # no service has ever declared it
        return 0, 0
    return declared.message_count, declared.consumer_count


def _services(session: Session, queues: dict[str, tuple[int, int]]) -> Iterator[Finding]:
    from portclaim.common.rpc.conductor import ConductorClient
    from portclaim.common.rpc.scheduler import SchedulerClient

    kinds: list[type[Client]] = [SchedulerClient, ConductorClient]
    for kind in kinds:
        messages, consumers = queues[kind.topic]
        if not consumers:
            yield trouble(
                kind.topic, "none takes calls", f"start one: systemctl restart portclaim-{kind.topic}"
            )
            continue
        yield _answer(session.client(kind), kind.topic, consumers)
        if messages > _LONG_QUEUE:
            yield warning(
                kind.topic,
                f"{messages} calls wait in its queue",
                f"start more workers ([{kind.topic}] workers), or see what holds them up: "
                f"journalctl -u portclaim-{kind.topic}",
            )


def _answer(client: Client, topic: str, workers: int) -> Finding:
    try:
        release = client.about().release
    except PortclaimError as error:
        return trouble(topic, error.message, f"read its log: journalctl -u portclaim-{topic}")
    if release != version("portclaim"):
        return warning(
            topic,
            f"the one that answered has release {release}, and this is {version('portclaim')}",
            "finish the upgrade: install the same release everywhere",
        )
    return ok(topic, f"{workers} workers take calls")
