"""The fixtures of the integration tests, on real engines."""

from tests.integration.conftest import bus, database_url, empty_database_url, rabbit_url

__all__ = ["bus", "database_url", "empty_database_url", "rabbit_url"]
