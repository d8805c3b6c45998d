"""The queues of waiting claims, whose callers speak HTTP: the tests are those of the engine."""

from tests.integration.test_engine_over_http import fleet
from tests.integration.test_waiting import TestQueue, host

__all__ = ["TestQueue", "fleet", "host"]
