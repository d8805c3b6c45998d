"""A private RabbitMQ node from the machine's own `rabbitmq-server`, on free ports, with its own port mapper.

It shares no name, port, file or epmd with another broker on the machine.
Virtual hosts, one per test, are made through its management interface, which answers in milliseconds where
`rabbitmqctl` starts an Erlang machine for each word.
"""

import base64
import json
import os
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from portclaim.cli.supervisor import SupervisedProcess, supervise
from tests.support.engines import shared, skip_without

SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server"))  # Debian's, others'
CONFIGURATION = """\
listeners.tcp.local = {address}:{amqp}
management.tcp.ip = {address}
management.tcp.port = {management}
management_agent.disable_metrics_collector = true
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
"""
USER = PASSWORD = "guest"  # RabbitMQ's own first user, who may come from the loopback address only


@dataclass(frozen=True)
class Broker:
    """Where the node listens."""

    amqp: int
    management: int
    address: str = "127.0.0.1"

    def create_virtual_host(self) -> str:
        """Make an empty virtual host and return its transport URL (`rabbit://...`)."""
        name = f"test-{uuid4().hex[:12]}"
        self.manage("PUT", f"vhosts/{name}")
        return f"rabbit://{USER}:{PASSWORD}@{self.address}:{self.amqp}/{name}"

    def delete_virtual_host(self, url: str) -> None:
        """Remove a virtual host with all of its queues and connections."""
        self.manage("DELETE", f"vhosts/{url.rpartition('/')[2]}")

    def connections(self, virtual_host: str = "/") -> list[str]:
        """The names of the connections to a virtual host."""
        listed = self.manage("GET", "connections")
        return [connection["name"] for connection in listed if connection["vhost"] == virtual_host]

    def close_connection(self, name: str) -> None:
        """Close a connection, if it is still there."""
        with suppress(urllib.error.HTTPError):
            self.manage("DELETE", f"connections/{quote(name, safe='')}")

    def manage(self, method: str, path: str, body: object = None) -> Any:
        """Call the management interface; answers its JSON, or None where it has nothing to say."""
        request = urllib.request.Request(f"http://{self.address}:{self.management}/api/{path}", method=method)
        credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def shared_broker() -> Broker:
    """The run's node. Skips the test where RabbitMQ is not installed."""
    if find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    return Broker(**shared("rabbitmq", start_rabbitmq))


def find_server() -> str | None:
    """The program itself, not Debian's wrapper in /usr/sbin, which insists on the system broker's user."""
    return next((path for path in SERVERS if path is not None and Path(path).exists()), None)


def start_rabbitmq(owner: int) -> tuple[list[SupervisedProcess], dict[str, Any]]:
    """Start a node that lives as long as the process `owner`; returns when it accepts connections."""
    directory = Path(tempfile.mkdtemp(prefix="portclaim-rabbitmq-"))
    broker, environment = prepare_node(directory)
    port_mapper = start_port_mapper(directory, environment, owner)
    # It is removed with the node. A clean shutdown would only take seconds.
    node = start_node(directory / "log", environment, owner, directory)
    socket.create_connection(("127.0.0.1", broker.amqp), timeout=10).close()
    return [node, port_mapper], asdict(broker)


def prepare_node(
    directory: Path, more: str = "", address: str = "127.0.0.1"
) -> tuple[Broker, dict[str, str]]:
    """Choose the ports of a node that keeps all it has in `directory`, and write its configuration, with
    `more` lines; answers where it will listen, and the environment that it needs."""
    amqp, management, distribution, epmd = free_ports(4)
    broker = Broker(amqp, management, address)
    configuration = CONFIGURATION.format(**asdict(broker)) + more.format(amqp=amqp)
    (directory / "rabbitmq.conf").write_text(configuration)
    (directory / "enabled_plugins").write_text("[rabbitmq_management].")
    return broker, {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),  # Erlang's cookie
        "ERL_CRASH_DUMP_SECONDS": "0",
        "ERL_EPMD_ADDRESS": address,
        "ERL_EPMD_PORT": str(epmd),
        "ERL_MAX_PORTS": "4096",
        "RABBITMQ_NODENAME": "portclaim@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ALLOW_INPUT": "1",  # the node takes the place of its start script ...
        "RABBITMQ_SERVER_START_ARGS": "-noinput",  # ... and still reads nothing
    }


def start_port_mapper(directory: Path, environment: Mapping[str, str], owner: int) -> SupervisedProcess:
    """In the foreground: one that the node starts itself would outlive it."""
    log = directory / "epmd.log"
    return supervise("epmd", "-d", ready="epmd running", log=log, environment=environment, owner=owner)


def start_node(
    log: Path, environment: Mapping[str, str], owner: int, directory: Path | None = None
) -> SupervisedProcess:
    """Start the node, new or as it was left; returns when it accepts connections. It is stopped by SIGKILL,
    and `directory` is removed after that."""
    return supervise(
        str(find_server()),
        ready="Server startup complete",
        log=log,
        directory=directory,
        stop_signal=signal.SIGKILL,
        environment=environment,
        owner=owner,
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody uses at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
