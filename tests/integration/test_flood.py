"""A host sends as much as it can. Others do not wait behind it."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import kombu
import pytest

from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.host_exchange import exchange_of_host
from tests.support.concurrency import wait_until
from tests.support.flooder import QUEUES
from tests.support.raw_agent import RawAgent, envelope
from tests.support.secured_site import EVIL, HONEST, SecuredSite, report_of

SECONDS = int(os.environ.get("PORTCLAIM_FLOOD", "0"))


def test_a_burst_leaves_room_for_others(secured_site: Callable[..., SecuredSite]) -> None:
    """Good messages, more than the rate, with invented queues for the answers."""
    site = secured_site(host_rate=50, cut_off_after=0)
    evil = site.evil_agent()
    for _ in range(3):
        for _ in range(300):
            body = report_of(EVIL, devices=None)
            context = evil.signer.sign("conductor", "report_inventory", body)
            asks = {"_msg_id": uuid4().hex, "_reply_q": f"reply_host-node-2/{uuid4().hex}"}
            evil.send("conductor", envelope("report_inventory", body, context, **asks))
            evil.cast("show_life", {"host": EVIL, "agent_id": "?"}, topic="conductor_life", to="conductor")
            evil.send("conductor", envelope("ping", {}, **asks))
        site.claims_go_on()
    evil.close()
    site.has_refused("too-many")
    assert "Traceback" not in site.conductor.log
    assert "is cut off" not in site.conductor.log


def test_a_host_that_floods_is_cut_off_until_an_operator_readmits_it(
    secured_site: Callable[..., SecuredSite],
) -> None:
    site = secured_site(host_rate=50)
    evil = site.evil_agent()
    assert all(is_routed(evil, queue) for queue in QUEUES)
    with flooding(site, bodies_of(evil)):
        wait_until(lambda: f"{EVIL} is cut off" in site.conductor.log, "the host is cut off")
        wait_until(lambda: not is_routed(evil, "conductor"), "the broker drops what it sends")
        assert not any(is_routed(evil, queue) for queue in QUEUES)
        site.claims_go_on()  # while the flood goes on
    assert site.cut_off() == {f"host-{EVIL}"}
    assert "Traceback" not in site.conductor.log

    site.portclaim("broker", "readmit", EVIL)
    assert all(is_routed(evil, queue) for queue in QUEUES)
    assert site.cut_off() == set()
    evil.close()


def test_an_honest_host_is_bounded_by_size_too(secured_site: Callable[..., SecuredSite]) -> None:
    """Few messages that are long count as many."""
    site = secured_site(host_rate=1, cut_off_after=0)
    evil = site.evil_agent()
    for _ in range(3):
        evil.send("conductor", b" " * (10 * 64 * 1024))
    site.has_refused("too-many")
    evil.close()


@pytest.mark.skipif(not SECONDS, reason="PORTCLAIM_FLOOD=SECONDS measures it: make flood")
def test_how_long_claims_take_beside_a_flood(secured_site: Callable[..., SecuredSite]) -> None:
    site = secured_site(host_rate=200)
    evil = site.evil_agent()
    site.claims_go_on()
    quiet = times_of_claims(site, SECONDS)
    show("quiet", quiet)
    with flooding(site, bodies_of(evil)):
        show("flood, from its first message", (onset := times_of_claims(site, SECONDS)), quiet)
        assert f"{EVIL} is cut off" in site.conductor.log
        show("flood, later", (later := times_of_claims(site, SECONDS)), quiet)
    show("quiet again", times_of_claims(site, SECONDS), quiet)
    evil.close()
    assert onset
    assert later


def bodies_of(evil: RawAgent) -> list[bytes]:
    """Signed and unsigned, new, old and broken."""
    report = report_of(EVIL, devices=None)
    context = evil.signer.sign("conductor", "report_inventory", report)
    return [
        envelope("report_inventory", report, context),
        envelope("report_inventory", report),
        envelope("ping", {}),
        b"\0" * 200,
    ]


@contextmanager
def flooding(site: SecuredSite, bodies: list[bytes]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.flooder", site.url_of_evil, exchange_of_host(EVIL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("".join(body.hex() + "\n" for body in bodies))
        process.stdin.close()
        assert process.stdout.readline() == "flooding\n"
        yield
        assert process.poll() is None, "the flood has ended by itself"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_routed(evil: RawAgent, queue: str) -> bool:
    """Whether a message of the host comes into a queue of the conductors. The broker returns it if not."""
    with kombu.Connection(evil.url, transport_options={"confirm_publish": True}) as connection:
        returned: list[Any] = []
        channel: Any = connection.channel()
        channel.events["basic_return"].add(lambda *reply: returned.append(reply))
        producer = connection.Producer(channel)
        producer.publish(b"", exchange=exchange_of_host(EVIL), routing_key=queue, mandatory=True)
        return not returned


def times_of_claims(site: SecuredSite, seconds: float) -> list[tuple[float, float]]:
    """Seconds until each claim is made, and until its devices are attached; one claim after the other."""
    honest = site.hosts[HONEST]
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        claim = honest.scheduler.claim(
            ClaimRequest(
                claim_id=uuid4(),
                instance_id=uuid4(),
                hosts=[HONEST],
                extra_specs={"pci_passthrough:alias": "vf:1"},
            )
        ).claim_id
        claimed = time.monotonic()
        honest.wait_for(claim, "allocated")
        times.append((claimed - begun, time.monotonic() - begun))
        honest.scheduler.release(claim)
        honest.wait_for(claim, "released")
    return times


def show(name: str, times: list[tuple[float, float]], quiet: list[tuple[float, float]] | None = None) -> None:
    words = [f"{name}: {len(times)} claims"]
    for number, what in enumerate(("claimed", "attached")):
        cuts = statistics.quantiles([each[number] for each in times], n=100, method="inclusive")
        words.append(f"{what} p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms")
        if quiet is not None:
            before = statistics.quantiles([each[number] for each in quiet], n=100, method="inclusive")
            words.append(f"(p50 x {cuts[49] / before[49]:.2f}, p99 x {cuts[98] / before[98]:.2f})")
    sys.stdout.write("; ".join(words) + "\n")
