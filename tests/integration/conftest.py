"""Fixtures for tests against real PostgreSQL, real RabbitMQ and real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portclaim.cli.broker import URL
from tests.chaos import privacy
from tests.chaos.network import Network
from tests.support import postgresql, rabbitmq
from tests.support.bus import Bus
from tests.support.fleet import Fleet
from tests.support.secured_site import SecuredSite
from tests.support.services import Services


@pytest.fixture
def database_url() -> Iterator[str]:
    """The URL of this test's own migrated database."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    """A fleet on that database, still without hosts; see `Fleet`. After the test no rule may be broken."""
    fleet = Fleet(database_url)
    try:
        yield fleet
        assert fleet.faults() == []
    finally:
        fleet.close()


@pytest.fixture
def empty_database_url() -> Iterator[str]:
    """The URL of this test's own database without any table."""
    url = postgresql.create_database(template="template0")
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def rabbit_url() -> Iterator[str]:
    """The transport URL of this test's own virtual host."""
    broker = rabbitmq.shared_broker()
    url = broker.create_virtual_host()
    yield url
    broker.delete_virtual_host(url)


@pytest.fixture(scope="session")
def network() -> Network:
    """Hosts for the servers of a cluster. `make chaos-ha` gives the run a private network, where it can."""
    if not privacy.has_network():
        pytest.skip(privacy.why_not())
    return Network(["mq-1", "mq-2", "mq-3", "db-1", "db-2"])


@pytest.fixture
def bus(rabbit_url: str, tmp_path: Path) -> Iterator[Bus]:
    """A caller's connection to that virtual host."""
    bus = Bus(rabbit_url, tmp_path)
    yield bus
    bus.close()


@pytest.fixture
def service_process(tmp_path: Path, rabbit_url: str, database_url: str) -> Iterator[Services]:
    """Starts services as processes, on this test's own virtual host and database; see `Services`."""
    services = Services(tmp_path, rabbit_url, database_url)
    yield services
    services.end()


@pytest.fixture
def secured_site(
    service_process: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SecuredSite]]:
    """Makes a site where everybody has a user of their own at the broker; see `SecuredSite`."""
    broker = rabbitmq.shared_broker()
    login = f"{rabbitmq.USER}:{rabbitmq.PASSWORD}"
    monkeypatch.setenv(URL, f"http://{login}@127.0.0.1:{broker.management}")
    made: list[SecuredSite] = []

    def make(**options: int) -> SecuredSite:
        made.append(SecuredSite(service_process, tmp_path, **options))
        return made[-1]

    yield make
    service_process.end()  # in good order, while they have their users
    service_process.processes.clear()
    for site in made:
        site.end()
