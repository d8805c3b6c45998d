"""A Nova cell on MariaDB says the same as one on PostgreSQL."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from portclaim.cli.nova.cell import read_cell
from portclaim.common.errors import InvalidConfiguration, ServiceUnavailable
from tests.nova import cell, mariadb
from tests.support.engines import skip_without


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    if not mariadb.is_installed():
        skip_without("MariaDB", "as root: apt-get install mariadb-server-core")
    server, url = mariadb.start_mariadb()
    yield url
    server.stop()


@pytest.fixture
def nova_url(server_url: str, empty_database_url: str) -> Iterator[str]:
    cell.load(empty_database_url)
    try:
        mariadb.copy_cell(empty_database_url, server_url)
        yield f"{server_url}nova"
    finally:
        with sa.create_engine(server_url, poolclass=sa.NullPool).connect() as connection:
            connection.execute(sa.text("DROP DATABASE IF EXISTS nova"))


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb"])
def test_it_is_read_as_from_postgresql(nova_url: str, empty_database_url: str, scheme: str) -> None:
    _, _, place = nova_url.partition("://")
    here, there = read_cell(f"{scheme}://{place}?charset=utf8"), read_cell(empty_database_url)
    assert here.instances == there.instances
    assert {host: set(devices) for host, devices in here.hosts.items()} == {
        host: set(devices) for host, devices in there.hosts.items()
    }
    assert sum(map(len, here.hosts.values())) == 41


def test_one_host(nova_url: str) -> None:
    assert list(read_cell(nova_url, ["node-1"]).hosts) == ["node-1"]


def test_a_database_that_is_no_cell(server_url: str) -> None:
    with sa.create_engine(server_url, poolclass=sa.NullPool).connect() as connection:
        connection.execute(sa.text("CREATE DATABASE other"))
    with pytest.raises(InvalidConfiguration, match="is not the database of a Nova cell"):
        read_cell(f"{server_url}other")


def test_a_database_that_does_not_exist(server_url: str) -> None:
    with pytest.raises((InvalidConfiguration, ServiceUnavailable), match="nothing"):
        read_cell(f"{server_url}nothing")
