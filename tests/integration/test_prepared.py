"""Prepared statements: each is a transaction of its own, and is repeated if its connection is dead."""

from collections.abc import Iterator
from typing import Any

import psycopg2.extensions
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import ServiceUnavailable
from tests.support.concurrency import at_once
from tests.support.postgresql import create_database, drop_database

SUM = PreparedStatement("sum", "SELECT :a::integer + :b::integer + :a")
SESSION = PreparedStatement("session", "SELECT pg_backend_pid()")
ENDING = PreparedStatement("ending", "SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = connect(database_url, pool_size=4)
    yield engine
    engine.dispose()


def end_sessions(database_url: str) -> None:
    """End all sessions, as a restart or a fail-over does."""
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def test_parameters_are_passed_by_name_and_unknown_ones_are_ignored(engine: sa.Engine) -> None:
    assert SUM.value(engine, {"b": 5, "a": 1, "c": 7}) == 7
    assert SUM.rows(engine, {"a": 2, "b": 1}) == [(5,)]


def test_a_statement_is_prepared_once_in_each_session(engine: sa.Engine) -> None:
    sessions = set(at_once([lambda: SESSION.value(engine, {})] * 16))
    assert len(sessions) <= 4
    with engine.connect() as connection:
        named = connection.execute(sa.text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
    assert named == 1


def test_a_statement_is_a_transaction_of_its_own(engine: sa.Engine) -> None:
    transaction = PreparedStatement("transaction", "SELECT pg_current_xact_id()")
    assert transaction.value(engine, {}) != transaction.value(engine, {})
    with engine.begin() as connection:  # other statements on the same sessions share a transaction
        first = connection.execute(sa.text("SELECT pg_current_xact_id()")).scalar_one()
        assert connection.execute(sa.text("SELECT pg_current_xact_id()")).scalar_one() == first


def test_an_error_of_the_statement_is_raised_and_the_session_stays_in_use(engine: sa.Engine) -> None:
    session = SESSION.value(engine, {})
    with pytest.raises(exc.DBAPIError, match="out of range"):
        SUM.value(engine, {"a": 2**31 - 1, "b": 1})
    assert SESSION.value(engine, {}) == session


def test_lost_connections_are_replaced_without_an_error(engine: sa.Engine, database_url: str) -> None:
    before = at_once([lambda: SESSION.value(engine, {})] * 16)
    end_sessions(database_url)
    after = at_once([lambda: SESSION.value(engine, {})] * 16)
    assert all(isinstance(session, int) for session in after), after
    assert not set(before) & set(after)


def test_a_lost_connection_that_psycopg2_reports_as_open_is_replaced(database_url: str) -> None:
    """psycopg2 may then raise a plain DatabaseError and still report the connection as open."""
    lost: list[object] = []

    class Connection(psycopg2.extensions.connection):
        """Loses its first statement."""

        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            if not lost and self.autocommit:
                lost.append(self)
                raise psycopg2.DatabaseError("server closed the connection unexpectedly")
            return super().cursor(*args, **kwargs)

    engine = sa.create_engine(database_url, connect_args={"connection_factory": Connection})
    assert SUM.value(engine, {"a": 1, "b": 5}) == 7
    assert lost
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection not in lost
    engine.dispose()


READ_ONLY = sa.text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
WRITE = "INSERT INTO written VALUES (1) RETURNING 1"


def test_connections_to_a_former_primary_are_replaced(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE written (number integer)"))
    for write in (
        lambda: PreparedStatement("write", WRITE).value(engine, {}),
        lambda: in_transaction(engine, lambda connection: connection.execute(sa.text(WRITE)).scalar_one()),
    ):
        before = SESSION.value(engine, {})
        with engine.begin() as connection:
            connection.execute(READ_ONLY)
        assert write() == 1
        assert SESSION.value(engine, {}) != before


def test_a_transaction_that_takes_too_long_is_done_again_on_another_connection(database_url: str) -> None:
    engine = connect(database_url, pool_size=2, answer_within=1.0)
    sessions: list[int] = []

    def sleep_once(connection: sa.Connection) -> str:
        sessions.append(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
        connection.execute(sa.text("SELECT pg_sleep(600)" if len(sessions) == 1 else "SELECT 1"))
        return "done"

    assert in_transaction(engine, sleep_once) == "done"
    assert len(set(sessions)) == 2
    engine.dispose()


def test_a_connection_that_was_detached_may_be_kept(database_url: str) -> None:
    engine = connect(database_url, pool_size=1, answer_within=0.5)
    with engine.connect() as kept:
        kept.detach()
        kept.execute(sa.text("SELECT pg_sleep(1.5)"))
    engine.dispose()


def test_a_statement_that_always_ends_its_session_raises_service_unavailable(engine: sa.Engine) -> None:
    with pytest.raises(ServiceUnavailable):
        ENDING.value(engine, {})
    assert SESSION.value(engine, {})


def test_a_full_disk_raises_service_unavailable_and_the_session_stays_in_use(engine: sa.Engine) -> None:
    session = SESSION.value(engine, {})
    with engine.begin() as connection:
        connection.execute(
            sa.text("""
                CREATE FUNCTION write_much() RETURNS integer LANGUAGE plpgsql AS $$
                BEGIN
                    RAISE EXCEPTION 'could not extend file: no space left on device'
                        USING ERRCODE = 'disk_full';
                END $$
            """)
        )
    with pytest.raises(ServiceUnavailable, match="no space left on device"):
        PreparedStatement("write_much", "SELECT write_much()").value(engine, {})
    with pytest.raises(ServiceUnavailable, match="no space left on device"):
        in_transaction(engine, lambda connection: connection.execute(sa.text("SELECT write_much()")))
    assert SESSION.value(engine, {}) == session


def test_a_missing_database_raises_service_unavailable() -> None:
    url = create_database()
    engine = connect(url, pool_size=4)
    SESSION.value(engine, {})
    drop_database(url)
    with pytest.raises(ServiceUnavailable):
        SESSION.value(engine, {})
