"""A real browser, a real web server and a real PostgreSQL."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.integration.conftest import database_url, fleet
from tests.support.browser import chromium
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, http_api

__all__ = ["database_url", "fleet"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a process; each test has a profile of its own in it."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    """The API of a fleet of three hosts, of which a few devices are held."""
    for number in range(1, 4):
        fleet.host(f"compute-{number}", ports=4, vfs=8)
    fleet.attached(fleet.claim("nic-pf:1"))
    fleet.attached(fleet.claim("nic-vf:3"))
    with http_api(fleet, database_url) as api:
        yield api
