"""What a message costs that a conductor refuses, beside one that it takes: CPU of all that handles it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import kombu

from bench import bus
from bench.bus import Running
from bench.inventory_agents import inventory
from bench.signing_clients import enrol, until_accepted
from bench.site import Site
from portclaim.common import config
from portclaim.common.db import migrate
from portclaim.common.rpc.bus_url import bus_url
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.host_exchange import AGENTS, ALL, exchange_of_host
from portclaim.common.rpc.transport import transport
from portclaim.common.trust.keys import PrivateKey, write
from portclaim.common.trust.signature import CONTEXT, KeySigner, of_host
from portclaim.services.compute_agent.conductor_link import ConductorLink
from tests.support.raw_agent import RawAgent, envelope

HOST = "sending"
METHOD = "report_inventory"
GOOD = "taken: a report that nothing has changed"
_CONDUCTOR = ("portclaim.services.conductor",)
_OTHER = "another"
_MINUTES_AGO = 600_000_000  # microseconds

Make = Callable[[], bytes]


def results(site: Site) -> Iterator[dict[str, Any]]:
    """CPU of one message of each kind: the good one first."""
    url = site.server.create_database("refused_messages")
    migrate.upgrade(url)
    key = PrivateKey.make()
    enrol(url, {HOST: key})
    good: float | None = None
    with ExitStack() as stack:
        broker = bus.one_node(stack)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write(directory / "services.pem", PrivateKey.make())
        for rate in (1_000_000, 1):
            trust = {
                "services_key_file": directory / "services.pem",
                "require": "all",
                "host_rate": rate,
                "cut_off_after": 0,
            }
            start = partial(bus.services, url, _CONDUCTOR, lambda _stack: broker, more={"trust": trust})
            running = site.running(("refused", rate), start)
            kinds = _read_ones(running, key) if rate > 1 else _dropped_ones(running, key)
            for name, topic_exchange, make in kinds:
                row = _measure(site, url, running, name, topic_exchange, make)
                good = good or row["together_ms"]
                yield {**row, "of_good": round(row["together_ms"] / good, 3)}
        site.stop()
    site.server.drop_database(url)


def _read_ones(running: Running, key: PrivateKey) -> Iterator[tuple[str, str | None, Make]]:
    """Messages that are read before they are refused, with the exchange for them."""
    agent_id, known = _known(running, key)
    signer = KeySigner(of_host(HOST), key)
    stranger = KeySigner(of_host(HOST), PrivateKey.make())
    body = {"host": HOST, "agent_id": str(agent_id), "digest": known}

    def signed(
        content: Mapping[str, Any], by: KeySigner = signer, *, sent: Mapping[str, Any] | None = None
    ) -> bytes:
        return envelope(METHOD, sent or content, by.sign("conductor", METHOD, content))

    def old() -> bytes:
        context = signer.sign("conductor", METHOD, body)
        context[CONTEXT]["number"] -= _MINUTES_AGO
        return envelope(METHOD, body, context)

    first = signer.sign("conductor", METHOD, body)
    yield GOOD, None, lambda: signed(body)
    yield "unsigned", None, lambda: envelope(METHOD, body)
    yield "signed by another host", None, lambda: signed(body | {"host": _OTHER})
    yield "signed with an unknown key", None, lambda: signed(body, stranger)
    yield "too old", None, old
    yield "altered after it was signed", None, lambda: signed(body, sent=body | {"digest": "other"})
    yield "sent again", None, lambda: envelope(METHOD, body, first)
    yield "signed, with fields that are not valid", None, lambda: signed(body | {"digest": 7})
    yield "no message of a client", None, lambda: b"\0" * 200


def _dropped_ones(running: Running, key: PrivateKey) -> Iterator[tuple[str, str | None, Make]]:
    """Messages that are more than the rate, through the exchange of the host: they are dropped unread."""
    exchange = exchange_of_host(HOST)
    with kombu.Connection(_bus_url(running).replace("rabbit", "amqp", 1)) as connection:
        channel: Any = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
        channel.exchange_bind(destination=AGENTS, source=exchange, routing_key=ALL)
    signer = KeySigner(of_host(HOST), key)
    body = {"host": HOST, "agent_id": str(uuid4()), "digest": "any"}
    message = envelope(METHOD, body, signer.sign("conductor", METHOD, body))
    yield "more than the rate: dropped unread", exchange, lambda: message


def _known(running: Running, key: PrivateKey) -> tuple[UUID, str]:
    """The host has reported; the id of its agent and the digest of its devices."""
    conf = config.load(["--config-file", running.file], "bench")
    client = transport(conf)
    agent_id, everything = uuid4(), inventory(1, 1)
    link = ConductorLink(ConductorClient(client, conf, signer=KeySigner(of_host(HOST), key)), HOST, agent_id)
    until_accepted(lambda: link.publish(everything, in_full=True))
    client.cleanup()
    return agent_id, everything.digest


def _measure(
    site: Site, url: str, running: Running, name: str, exchange: str | None, make: Make
) -> dict[str, Any]:
    count = 500 if site.options.short else 3000
    sender = RawAgent(_bus_url(running))
    meter = site.meter(url, **running.parts)
    _send(sender, make, 100, exchange)
    before = meter.read()
    _send(sender, make, count, exchange)
    after = meter.read()
    sender.close()
    cpu = {part: round((after[part] - before[part]) * 1000 / count, 4) for part in after}
    return {"name": name, "messages": count, "cpu_ms": cpu, "together_ms": round(sum(cpu.values()), 4)}


def _send(sender: RawAgent, make: Make, count: int, exchange: str | None) -> None:
    """Returns when all of them are handled. Each waits until the broker has taken it."""
    for _ in range(count):
        more = {} if exchange is None else {"exchange": exchange}
        sender.send("conductor", make(), **more)
    while sender.waiting("conductor"):
        time.sleep(0.01)
    time.sleep(0.2)  # what workers have in hand


def _bus_url(running: Running) -> str:
    conf = config.load(["--config-file", running.file], "bench")
    bus_url(conf)  # which registers the option
    return str(conf.transport_url)
