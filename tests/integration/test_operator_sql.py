"""docs/operator-sql.md says the truth, and its role sees the views and can do nothing else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from tests.support.fleet import Fleet
from tests.support.operator_page import PAGE, ROLE, examples, psql, seed

VIEWS = {
    "pf_vf_tree",
    "pool_totals",
    "hosts",
    "claims_now",
    "waiting",
    "moves",
    "awaited_steps",
    "device_history",
    "event_backlog",
    "quotas",
    "refusals",
    "recent_refusals",
    "audit",
}


@pytest.fixture
def operator(fleet: Fleet) -> Iterator[sa.Connection]:
    """A session of somebody who has that role and no other."""
    with fleet.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"SET SESSION AUTHORIZATION {ROLE}"))
        yield connection
        connection.execute(sa.text("RESET SESSION AUTHORIZATION"))


def relations(fleet: Fleet, kind: str) -> set[str]:
    return {
        name
        for (name,) in fleet.sql(
            "SELECT relname::text FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = :kind",
            kind=kind,
        )
    }


def test_every_statement_has_the_answer_that_the_page_shows(fleet: Fleet, database_url: str) -> None:
    seed(fleet)
    shown = examples(PAGE.read_text())
    assert len(shown) == PAGE.read_text().count("```sql")
    for sql, answer in shown:
        assert psql(database_url, sql) == answer, (
            f"{sql}\nDocument anew: python -m tests.support.operator_page"
        )


def test_the_seeded_fleet_is_sound(fleet: Fleet) -> None:
    seed(fleet)
    assert fleet.faults() == []


def test_every_column_of_every_view_is_explained(fleet: Fleet) -> None:
    explained: dict[str, list[str]] = {}
    for section in PAGE.read_text().split("\n### "):
        view = section.partition("\n")[0]
        if view in VIEWS:
            rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
            explained[view] = [column for row in rows for column in re.findall(r"`(\w+)`", row)]
    columns = fleet.sql(
        "SELECT table_name::text, column_name::text FROM information_schema.columns"
        " WHERE table_name = ANY(:views)",
        views=list(VIEWS),
    )
    assert sorted((view, column) for view in explained for column in explained[view]) == sorted(columns)


def test_the_role_reads_the_views_and_no_table(fleet: Fleet, operator: sa.Connection) -> None:
    assert relations(fleet, "v") == VIEWS
    for view in VIEWS:
        operator.execute(sa.text(f"SELECT * FROM {view}"))
    for table in relations(fleet, "r") | {"pg_authid"}:
        with denied():
            operator.execute(sa.text(f"SELECT * FROM {table}"))


def test_the_role_changes_nothing(fleet: Fleet, operator: sa.Connection) -> None:
    seed(fleet)
    before = fleet.contents()
    for relation in VIEWS | relations(fleet, "r"):
        for statement in (
            f"INSERT INTO {relation} DEFAULT VALUES",
            f"DELETE FROM {relation}",
            f"TRUNCATE {relation}",
            f"DROP TABLE {relation}",
            f"ALTER TABLE {relation} RENAME TO mine",
        ):
            with denied():
                operator.execute(sa.text(statement))
    for statement in (
        "UPDATE pf_vf_tree SET status = 'available'",
        "UPDATE pci_devices SET claim_id = NULL",
        "CREATE TABLE mine (id int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE mine",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user",
        "COPY pf_vf_tree TO PROGRAM 'cat'",
    ):
        with denied():
            operator.execute(sa.text(statement))
    assert fleet.contents() == before


def test_the_role_calls_no_function_of_ours(fleet: Fleet, operator: sa.Connection) -> None:
    ours = fleet.sql(
        "SELECT p.oid::regprocedure::text, has_function_privilege(:role, p.oid, 'EXECUTE')"
        " FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace",
        role=ROLE,
    )
    assert [name for name, allowed in ours if allowed] == []


@contextmanager
def denied() -> Iterator[None]:
    """PostgreSQL refuses: for want of a privilege, or because no view can be changed in that way at all."""
    with pytest.raises(sa.exc.DBAPIError) as caught:
        yield
    insufficient_privilege, wrong_object_type, not_updatable = "42501", "42809", "55000"
    assert caught.value.orig.pgcode in {insufficient_privilege, wrong_object_type, not_updatable}
