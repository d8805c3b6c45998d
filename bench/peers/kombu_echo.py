"""``python -m bench.peers.kombu_echo``: an echo with kombu alone, no oslo.messaging. Also its client."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any
from uuid import uuid4

import kombu
from oslo_config import cfg

from bench.clients import request
from bench.crew import Do
from portclaim.common import config, service
from portclaim.common.rpc.transport import transport

QUEUE = "kombu-echo"
_TIMEOUT = 30.0


def calls(config_file: str, alias: str) -> Do:
    """Calls that carry what a claim's call carries, to a server that sends it back."""
    conf = config.load(["--config-file", config_file], "bench")
    channel = _connect(conf).channel()
    replies = kombu.Queue(f"reply-{uuid4().hex}", exclusive=True, auto_delete=True)
    producer = kombu.Producer(channel)
    answers: list[Any] = []
    connection = channel.connection.client
    consumer = kombu.Consumer(channel, [replies], no_ack=True, on_message=answers.append)
    consumer.consume()

    def call() -> None:
        producer.publish(
            request(alias).model_dump(mode="json"),
            routing_key=QUEUE,
            reply_to=replies.name,
            serializer="json",
        )
        while not answers:
            connection.drain_events(timeout=_TIMEOUT)
        answers.pop().decode()

    return call


class KombuEcho:
    """One worker: one thread, one channel, since nothing in it waits."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._stopped = threading.Event()

    def start(self) -> None:
        self._connection = _connect(self._conf)
        channel = self._connection.channel()
        self._producer = kombu.Producer(channel)
        self._consumer = kombu.Consumer(
            channel, [kombu.Queue(QUEUE)], on_message=self._answer, prefetch_count=16
        )
        self._consumer.consume()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._connection.release()

    def _work(self) -> None:
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=1.0)

    def _answer(self, message: kombu.Message) -> None:
        self._producer.publish(
            message.decode(), routing_key=message.properties["reply_to"], serializer="json"
        )
        message.ack()


def _connect(conf: cfg.ConfigOpts) -> kombu.Connection:
    transport(conf)  # registers the option; it does not connect
    return kombu.Connection(conf.transport_url.replace("rabbit://", "amqp://"))


def main() -> None:
    service.main("kombu-echo", KombuEcho, lambda conf: conf.scheduler.workers)


if __name__ == "__main__":
    main()
