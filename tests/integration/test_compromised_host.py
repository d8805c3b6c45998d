"""Somebody has all that a compute node has: its user at the broker and its key. Other hosts do not notice.

Raw AMQP: what no client of ours would send.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import amqp
import kombu
import pytest

from portclaim.common.rpc.host_exchange import AGENTS, exchange_of_host
from portclaim.common.rpc.transport import EXCHANGE
from portclaim.common.trust.signature import CONTEXT
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet
from tests.support.raw_agent import RawAgent, envelope, signer_of
from tests.support.secured_site import EVIL, HONEST, SecuredSite, facts_of, report_of


@pytest.fixture
def site(secured_site: Callable[[], SecuredSite]) -> SecuredSite:
    return secured_site()


@pytest.fixture
def evil(site: SecuredSite) -> Iterator[RawAgent]:
    agent = site.evil_agent()
    yield agent
    agent.close()


def test_it_can_neither_speak_for_another_host_nor_repeat_what_was_said(
    site: SecuredSite, evil: RawAgent, fleet: Fleet
) -> None:
    before = facts_of(fleet, HONEST)
    claim = site.hosts[HONEST].claim("vf:1", hosts=[HONEST])
    site.hosts[HONEST].wait_for(claim.claim_id, "allocated")

    evil.cast("report_inventory", report_of(HONEST))
    site.has_refused("foreign-host")
    evil.send("conductor", envelope("report_inventory", report_of(HONEST)))
    site.has_refused("unsigned")
    answer = {
        "host": HONEST,
        "agent_id": str(uuid4()),
        "claim_id": str(claim.claim_id),
        "step": 1,
        "outcome": "failed",
        "reason": "forged",
    }
    evil.cast("step_done", answer)

    stolen = signer_of(HONEST, site.key_of_evil())  # its own key under another name
    body = report_of(HONEST)
    evil.send(
        "conductor", envelope("report_inventory", body, stolen.sign("conductor", "report_inventory", body))
    )
    site.has_refused("unknown-key")

    own = report_of(EVIL)
    signed = evil.signer.sign("conductor", "report_inventory", own)
    evil.send("conductor", envelope("report_inventory", own | {"devices": None}, signed))
    site.has_refused("altered")
    for other in ("step_done", "holdings"):
        evil.send("conductor", envelope(other, own, signed))
    old = {CONTEXT: signed[CONTEXT] | {"number": signed[CONTEXT]["number"] - 10**12}}
    evil.send("conductor", envelope("report_inventory", own, old))
    site.has_refused("stale")
    life = {"host": EVIL, "agent_id": str(uuid4()), "digest": "any"}
    sent = evil.cast("show_life", life, topic="conductor_life", to="conductor")
    evil.send("conductor_life", sent)
    site.has_refused("replayed")
    evil.send("conductor", envelope("report_inventory", own, {CONTEXT: {"signer": 7}}))
    site.has_refused("malformed-signature")

    assert site.hosts[HONEST].scheduler.show(claim.claim_id).status == "allocated"
    site.hosts[HONEST].scheduler.release(claim.claim_id)
    site.hosts[HONEST].wait_for(claim.claim_id, "released")
    assert facts_of(fleet, HONEST) == before
    assert "Traceback" not in site.conductor.log


def test_the_broker_refuses_whatever_is_not_its_own(site: SecuredSite) -> None:
    claim = {"claim_id": str(uuid4()), "who": "me", "reason": "why not"}
    body = envelope("release", claim)
    for topic, exchange in (
        ("scheduler", EXCHANGE),
        ("scheduler_operators", EXCHANGE),
        (f"compute_agent.{HONEST}", EXCHANGE),
        (f"compute_agent.{HONEST}", ""),
        ("conductor", ""),
        ("conductor", EXCHANGE),
        ("conductor", AGENTS),
        ("conductor", exchange_of_host(HONEST)),
        ("scheduler", exchange_of_host(EVIL)),
        ("claim.allocated", "portclaim.events"),
    ):
        raw = RawAgent(site.url_of_evil)
        with pytest.raises(amqp.exceptions.AccessRefused):
            raw.send(topic, body, exchange=exchange)
        raw.close()

    def refuse(act: Any) -> None:
        with (
            kombu.Connection(site.url_of_evil.replace("rabbit", "amqp", 1)) as connection,
            pytest.raises(amqp.exceptions.AccessRefused),
        ):
            act(connection.channel())

    queues = ("conductor", "conductor_reports", "conductor_life", "scheduler", f"compute_agent.{HONEST}")
    for queue in queues:
        refuse(lambda channel, queue=queue: channel.basic_get(queue))
        refuse(lambda channel, queue=queue: channel.queue_delete(queue))
        refuse(lambda channel, queue=queue: channel.queue_purge(queue))
    own_exchange = exchange_of_host(EVIL)
    exchanges = (EXCHANGE, AGENTS, exchange_of_host(HONEST), own_exchange, "portclaim.events", "mine")
    for exchange in exchanges:
        refuse(lambda channel, exchange=exchange: channel.exchange_delete(exchange))
        refuse(lambda channel, exchange=exchange: channel.exchange_declare(exchange, "topic"))
    own = f"compute_agent.{EVIL}"
    for key in ("conductor", "#", f"compute_agent.{HONEST}", "compute_agent.*"):

        def bind(channel: Any, key: str = key) -> None:
            channel.queue_declare(own, auto_delete=False)
            channel.queue_bind(own, EXCHANGE, key)

        refuse(bind)
    for act in ("exchange_bind", "exchange_unbind"):
        refuse(lambda channel, act=act: getattr(channel, act)(AGENTS, own_exchange, "#"))
        refuse(lambda channel, act=act: getattr(channel, act)(EXCHANGE, own_exchange, "#"))
    refuse(lambda channel: channel.queue_declare("reply_host-node-1/00"))
    refuse(lambda channel: channel.queue_declare(own + ".more"))
    site.claims_go_on()


def test_a_claimer_cannot_do_what_only_operators_may(site: SecuredSite, fleet: Fleet) -> None:
    before = facts_of(fleet, HONEST)
    body = {"host": HONEST, "reason": "why not"}
    claimer = RawAgent(str(site.granted("claimer")["transport_url"]))
    with pytest.raises(amqp.exceptions.AccessRefused):
        claimer.send("scheduler_operators", envelope("drain", body))
    claimer.close()
    claimer = RawAgent(str(site.granted("claimer")["transport_url"]))
    claimer.send("scheduler", envelope("drain", body))
    wait_until(lambda: "(not-allowed): drain" in site.scheduler.log, "the drain is refused")
    claimer.close()
    operator = RawAgent(str(site.granted("operator")["transport_url"]))
    operator.send("scheduler_operators", envelope("drain", body))
    wait_until(lambda: facts_of(fleet, HONEST) != before, "an operator drains the host")
    operator.close()
    site.portclaim("broker", "revoke", "operator")


POISON = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"{}",
    b"[" * 100_000,
    b'{"oslo.version": "2.0"}',
    b'{"oslo.version": "9.0", "oslo.message": "{}"}',
    b'{"oslo.version": "2.0", "oslo.message": 7}',
    b'{"oslo.version": "2.0", "oslo.message": "' + b"[" * 100_000 + b'"}',
    b'{"oslo.version": "2.0", "oslo.message": "' + b"1" * 100_000 + b'"}',
]
CALLS: list[dict[str, Any]] = [
    {"method": None},
    {"method": 7},
    {"method": "__init__"},
    {"method": "no_such_method", "_timeout": 1, "_msg_id": "a", "_reply_q": "reply_none"},
    {"method": "ping", "args": []},
    {"method": "ping", "args": {"self": 1}},
    {"method": "ping", "args": {"_context": 1}},
    {"method": "ping", "version": {}},
    {"method": "ping", "version": "1.99999999"},
    {"method": "ping", "namespace": "other"},
    {"method": "ping", "_msg_id": {}, "_reply_q": []},
    {"method": "ping", "_msg_id": "a", "_reply_q": "compute_agent.node-1"},
    {"method": "ping", "_unique_id": {}},
    {"method": "ping", "_context_self": 1},
    {"method": "enrol", "args": {"host": "a\0b", "public_key": "0" * 64, "proof": "0" * 64}},
    {"method": "enrol", "args": {"host": HONEST, "public_key": "0" * 64, "proof": "0" * 64}},
    {"method": "services_keys", "args": {"nonce": 7}},
]


def test_poison_leaves_a_line_and_no_traceback(site: SecuredSite, evil: RawAgent) -> None:
    for topic in ("conductor", "conductor_reports", "conductor_life"):
        for body in POISON:
            evil.send(topic, body)
        for call in CALLS:
            text = json.dumps({"_unique_id": uuid4().hex, **call})
            evil.send(topic, json.dumps({"oslo.version": "2.0", "oslo.message": text}).encode())
        evil.send(topic, envelope("ping", {}), headers={"compression": "application/x-bz2"})
        big = report_of(EVIL, devices=[{}] * 1_000_000)
        evil.cast("report_inventory", big, topic=topic, to="conductor")
    site.claims_go_on()
    site.has_refused("bad-envelope")
    lines = site.conductor.log.splitlines()
    assert "Traceback" not in site.conductor.log
    assert sum("bad-envelope" in line for line in lines) <= 3  # one for each queue


def test_what_is_made_at_random_changes_nothing(site: SecuredSite, evil: RawAgent, fleet: Fleet) -> None:
    """Good messages of a host, with bytes and values changed. The seed makes them the same in every run."""
    before = facts_of(fleet, HONEST)
    chance = random.Random(19)
    answers = {"host": EVIL, "agent_id": str(uuid4()), "answers": []}
    good = [
        ("report_inventory", report_of(EVIL, devices=[{"address": "0000:01:00.0"}])),
        ("steps_done", answers),
        ("holdings", {"host": EVIL, "agent_id": str(uuid4()), "found": [str(uuid4())]}),
        ("enrol", {"host": HONEST, "public_key": "0" * 64, "proof": "0" * 64}),
        ("show_life", {"host": EVIL, "agent_id": str(uuid4()), "digest": "d"}),
    ]
    odd: list[Any] = [None, True, -1, 2**70, 1e308, "", "\0", "\ud800", [], {}, [[[]]], "x" * 10_000]
    for number in range(1500):
        method, body = chance.choice(good)
        body = dict(body)
        body[chance.choice([*body, "more"])] = chance.choice(odd)
        topic = ("conductor", "conductor_reports", "conductor_life")[number % 3]
        message = bytearray(envelope(method, body, evil.signer.sign("conductor", method, body)))
        for _ in range(chance.choice([0, 0, 1, 5])):
            message[chance.randrange(len(message))] = chance.randrange(256)
        evil.send(topic, bytes(message))
    site.claims_go_on()
    assert facts_of(fleet, HONEST) == before
    assert "Traceback" not in site.conductor.log
