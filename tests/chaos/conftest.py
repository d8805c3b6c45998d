"""The fixtures of the integration tests: real PostgreSQL, real RabbitMQ, real processes."""

from tests.integration.conftest import bus, database_url, fleet, rabbit_url, service_process

__all__ = ["bus", "database_url", "fleet", "rabbit_url", "service_process"]
