"""Faults of RabbitMQ and of PostgreSQL."""

import signal

from tests.chaos import privacy
from tests.chaos.faults import Fault
from tests.chaos.site import Site


class RestartRabbitMQ(Fault):
    """A clean stop and a crash in turn."""

    name = "RabbitMQ restarted"

    def inject(self) -> None:
        self.site.rabbitmq.restart(self.random.choice([signal.SIGTERM, signal.SIGKILL]))


class CloseConnections(Fault):
    name = "connections of RabbitMQ closed"
    is_brief = True

    def inject(self) -> None:
        self.site.rabbitmq.close_connections()


class RestartPostgreSQL(Fault):
    name = "PostgreSQL restarted"

    def inject(self) -> None:
        self.site.postgresql.restart()


class TerminateBackends(Fault):
    name = "backends of PostgreSQL terminated"
    is_brief = True

    def inject(self) -> None:
        self.site.postgresql.terminate_backends()


class FillDisk(Fault):
    name = "disk of PostgreSQL full"
    seconds = 3.0

    @classmethod
    def why_not(cls, _site: Site) -> str | None:
        return None if privacy.has_mounts() else f"no disk can be mounted: {privacy.why_not()}"

    def inject(self) -> None:
        self.site.postgresql.fill_disk()

    def heal(self) -> None:
        self.site.postgresql.free_disk()


class BlockPublishers(Fault):
    """An alarm of RabbitMQ: memory or disk. It takes no message until the alarm is over."""

    name = "memory or disk alarm of RabbitMQ"
    seconds = 4.0

    def inject(self) -> None:
        self.site.rabbitmq.raise_alarm(self.random.choice(["memory", "disk"]))

    def heal(self) -> None:
        self.site.rabbitmq.clear_alarms()


class EmptyRabbitMQ(Fault):
    """As if its machine was lost, and a new one was set up: no queues, no exchanges, no messages."""

    name = "RabbitMQ lost with all queues, and new"

    def inject(self) -> None:
        self.site.rabbitmq.replace()


class ForgetName(Fault):
    """Connections that are open go on. The fault closes them, so that all must look the name up."""

    name = "name of RabbitMQ not found by DNS"
    seconds = 4.0

    @classmethod
    def why_not(cls, site: Site) -> str | None:
        return None if site.names else f"/etc/hosts cannot be replaced: {privacy.why_not()}"

    def inject(self) -> None:
        assert self.site.names is not None
        self.site.names.forget()
        self.site.rabbitmq.close_connections()

    def heal(self) -> None:
        assert self.site.names is not None
        self.site.names.know()
