"""Messages and requests made at random: nothing ends, nothing changes, nobody sees a traceback.

``make fuzz SEED=7 COUNT=100000`` is the long form: so many messages, and a tenth as many requests.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import amqp
import kombu
import pytest

from portclaim.common import config
from portclaim.common.db import tokens
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.transport import EXCHANGE, transport
from portclaim.services.api.app import create_app
from tests.support import rabbitmq
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet
from tests.support.fuzz import Fuzzer, operations
from tests.support.one_host import ALIASES, HOST, OneHost
from tests.support.services import ServiceProcess, Services

COUNT = int(os.environ.get("PORTCLAIM_FUZZ", "400"))
SEED = int(os.environ.get("PORTCLAIM_FUZZ_SEED", "19"))
IS_LONG = COUNT >= 10_000
PATIENCE = 600.0 if IS_LONG else 60.0
AHEAD = 200  # messages that may wait in the queues
REPLIES = "reply_fuzz"
QUEUES = (
    *("conductor", "conductor_reports", "conductor_life", "scheduler", "scheduler_operators"),
    f"compute_agent.{HOST}",
)
# What live agents and callers change whatever is sent: when a host was seen, and how many were refused.
PASSING = {"last_seen", "last_number"}
COUNTED = {"refusals", "refusal_counts"}


@pytest.mark.timeout(3600)
def test_nothing_that_is_made_at_random_has_an_effect(
    service_process: Services, fleet: Fleet, bus: Bus, rabbit_url: str, tmp_path: Path
) -> None:
    [port] = rabbitmq.free_ports(1)
    services = [
        service_process("conductor"),
        service_process("scheduler", {"pci": {"alias": ALIASES}}),
        service_process("api", {"api": {"port": port}}),
    ]
    conf = config.load(["--config-file", str(bus.config_file)], "test")
    agent = ComputeAgentClient(transport(conf), conf, server=HOST)
    state = tmp_path / "state"
    state.mkdir()
    host = OneHost(service_process, bus.scheduler, agent, state, guests="any")
    services.append(host.start_agent())
    kept = host.claim("vf:1")
    host.wait_for(kept.claim_id, "allocated")
    host.wait_for_report()
    with fleet.engine.begin() as connection:
        token = tokens.create(connection, "fuzz", "operator", None)
    paths = list(operations(create_app(None).openapi()))
    before, workers = contents(fleet), [each.workers for each in services]

    fuzzer = Fuzzer(SEED, HOST, REPLIES)
    memory: list[dict[str, int]] = []
    with kombu.Connection(rabbit_url.replace("rabbit", "amqp", 1)) as connection:
        channel: Any = connection.channel()
        channel.queue_declare(REPLIES, auto_delete=False)
        for number in range(COUNT):
            topic, body = fuzzer.call()
            channel.basic_publish(kombu_message(body), exchange=EXCHANGE, routing_key=topic)
            if number % 10 == 0:
                ask(port, fuzzer.http(paths, token))
            if number % 100 == 99:
                wait_until(lambda: waiting(channel) < AHEAD, "the messages are read", PATIENCE)
                see_replies(channel)
            if number in {COUNT // 4, COUNT // 2, COUNT - 1}:
                memory.append({each.name: resident(each) for each in services})
        wait_until(lambda: waiting(channel) == 0, "all messages are read", PATIENCE)
        host.wait_for_report()
        assert changes(before, contents(fleet)) == []
        ended = host.claim("vf:1")
        host.wait_for(ended.claim_id, "allocated")
        host.scheduler.release(ended.claim_id)
        host.wait_for(ended.claim_id, "released")
        see_replies(channel)

    assert [each.workers for each in services] == workers
    assert host.scheduler.show(kept.claim_id).status == "allocated"
    for each in services:
        assert "Traceback" not in each.log, each.name
    assert redelivered(rabbit_url) == 0
    sys.stdout.write(f"{COUNT} messages, {COUNT // 10} requests, seed {SEED}; memory in MB: {memory}\n")
    if IS_LONG:
        assert all(memory[-1][name] < memory[0][name] * 1.2 + 10 for name in memory[0]), memory


def kombu_message(body: bytes) -> Any:
    return amqp.Message(body, content_type="application/json", content_encoding="utf-8")


def waiting(channel: Any) -> int:
    return sum(channel.queue_declare(queue, passive=True).message_count for queue in QUEUES)


def see_replies(channel: Any) -> None:
    """No answer says where in our source something happened."""
    while (answer := channel.basic_get(REPLIES, no_ack=True)) is not None:
        text = answer.body if isinstance(answer.body, str) else bytes(answer.body).decode()
        assert "Traceback" not in text
        assert ".py" not in text, text


def ask(port: int, request: bytes) -> None:
    """Send what may be a request. Whatever the answer says, it is no fault of the server."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status = answer.split(b" ", 2)[1:2]
    assert not status or not status[0].startswith(b"5"), (request[:500], answer[:500])
    assert b"Traceback" not in answer


def contents(fleet: Fleet) -> dict[str, list[dict[str, Any]]]:
    return {
        table: sorted((strip(row) for _, _, row in rows), key=str)
        for table, rows in fleet.contents().items()
        if table not in COUNTED
    }


def strip(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in PASSING}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any]]:
    """Rows that have come or gone."""
    return [
        (table, row)
        for table in before
        for row in [*before[table], *after[table]]
        if (row in before[table]) != (row in after[table])
    ]


def resident(service: ServiceProcess) -> int:
    """The memory of a service's workers in MB."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in service.workers]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20


def redelivered(rabbit_url: str) -> int:
    """How many messages the broker has given out more than once, and still has."""
    virtual_host = rabbit_url.rpartition("/")[2]
    queues = rabbitmq.shared_broker().manage("GET", f"queues/{virtual_host}")
    return sum(queue.get("message_stats", {}).get("redeliver", 0) for queue in queues)
