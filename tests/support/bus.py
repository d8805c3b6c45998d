"""A caller on the bus: the typed clients, and messages that these clients never send."""

from pathlib import Path
from typing import Any

import kombu
import oslo_messaging

from portclaim.common import config
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import EXCHANGE, transport
from portclaim.common.rpc.versions import FIRST
from tests.support.services import as_ini


class Bus:
    """A connection to a virtual host; ``timeout`` seconds for an answer, ``attempts`` times."""

    def __init__(self, rabbit_url: str, directory: Path, timeout: float = 60.0, attempts: int = 1) -> None:
        self.config_file = directory / "client.conf"
        self.config_file.write_text(
            as_ini(
                {"DEFAULT": {"transport_url": rabbit_url}, "rpc": {"timeout": timeout, "attempts": attempts}}
            )
        )
        conf = config.load(["--config-file", str(self.config_file)], "test")
        self._amqp_url = rabbit_url.replace("rabbit", "amqp", 1)
        self._transport = transport(conf)
        self._timeout = timeout
        self.scheduler = SchedulerClient(self._transport, conf)
        self.conductor = ConductorClient(self._transport, conf)

    def call(self, topic: str, method: str, version: str = FIRST, **fields: Any) -> Any:
        """Call with any fields, without the checks of the clients."""
        target = oslo_messaging.Target(topic=topic, version=version)
        client = oslo_messaging.get_rpc_client(self._transport, target, timeout=self._timeout)
        return client.call({}, method, **fields)

    def publish(self, topic: str, body: bytes, content_type: str = "application/json") -> None:
        """Put a message into the queue of a service, past oslo.messaging too. Returns once it is there."""
        options = {"confirm_publish": True}
        with kombu.Connection(self._amqp_url, transport_options=options) as connection:
            producer = connection.Producer()
            producer.publish(body, exchange=EXCHANGE, routing_key=topic, content_type=content_type)

    def consumers(self, topic: str) -> int:
        """How many workers take messages of this topic."""
        with kombu.Connection(self._amqp_url) as connection:
            declared = connection.channel().queue_declare(topic, passive=True)
            return int(declared.consumer_count)

    def close(self) -> None:
        self._transport.cleanup()
