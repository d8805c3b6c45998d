"""What somebody can send who has a host's credentials: any message, signed or not, by raw AMQP."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import kombu

from portclaim.common.rpc.transport import EXCHANGE
from portclaim.common.trust import keys
from portclaim.common.trust.keys import PrivateKey
from portclaim.common.trust.signature import KeySigner, Signer, Unsigned, of_host


def key_of(state: Path) -> PrivateKey:
    """The key that the agent has in its directory."""
    [key] = keys.read(state / "key.pem")
    return key


def signer_of(host: str, key: PrivateKey) -> KeySigner:
    return KeySigner(of_host(host), key)


def envelope(
    method: str,
    body: Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
    version: str = "1.1",
    **more: Any,
) -> bytes:
    """A call as oslo.messaging sends it."""
    content = {
        "method": method,
        "args": body,
        "version": version,
        "_unique_id": uuid4().hex,
        **{f"_context_{name}": value for name, value in (context or {}).items()},
        **more,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(content)}).encode()


class RawAgent:
    """A connection to the broker that sends what it likes, to ``exchange`` if nothing else is said."""

    def __init__(self, rabbit_url: str, signer: Signer | None = None, exchange: str = EXCHANGE) -> None:
        self._exchange = exchange
        options = {"confirm_publish": True}
        self.url = rabbit_url.replace("rabbit", "amqp", 1)
        self._connection = kombu.Connection(self.url, transport_options=options)
        self._producer = self._connection.Producer()
        self.signer = signer or Unsigned()

    def send(self, topic: str, body: bytes, *, exchange: str | None = None, **properties: Any) -> None:
        """Put a message into a queue. Returns when it is there."""
        self._producer.publish(
            body,
            exchange=self._exchange if exchange is None else exchange,
            routing_key=topic,
            content_type="application/json",
            content_encoding="utf-8",
            **properties,
        )

    def cast(
        self, method: str, body: Mapping[str, Any], *, topic: str = "conductor", to: str | None = None
    ) -> bytes:
        """Send a signed message, and answer it as it was sent."""
        message = envelope(method, body, self.signer.sign(to or topic, method, body))
        self.send(topic, message)
        return message

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return int(self._producer.channel.queue_declare(queue, passive=True).message_count)

    def close(self) -> None:
        self._connection.release()
