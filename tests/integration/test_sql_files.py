"""The SQL files: PostgreSQL's own parser reads each, and plpgsql_check reads the body of each function."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pglast
import pytest
import sqlalchemy as sa
from pglast import ast

from portclaim.cli.embedded import start_postgresql
from portclaim.common.db import migrate
from portclaim.common.db.migrate import REPEATABLE, SQL, TABLES
from tests.support.engines import run_owner, skip_without

ROOT = Path(__file__).parents[2]
FILES = [TABLES, *REPEATABLE]
PLPGSQL_CHECK = sorted(Path("/usr/share/postgresql").glob("*/extension/plpgsql_check.control"))

# Functions that return a trigger are checked with each table that they are a trigger of.
FAULTS = """
    SELECT f.oid::regprocedure::text AS function, c.lineno, c.statement, c.level, c.message
      FROM pg_proc f
      JOIN pg_language l ON l.oid = f.prolang AND l.lanname = 'plpgsql'
      LEFT JOIN pg_trigger t ON t.tgfoid = f.oid
     CROSS JOIN LATERAL plpgsql_check_function_tb(
           f.oid, coalesce(t.tgrelid, 0)::regclass, newtable => t.tgnewtable, fatal_errors => false,
           performance_warnings => false, extra_warnings => true) c
     WHERE f.pronamespace = 'public'::regnamespace
"""


def text_of(name: str) -> str:
    return (SQL / f"{name}.sql").read_text()


def functions_of(name: str) -> list[str]:
    """The functions that a file creates."""
    return [
        statement.stmt.funcname[-1].sval
        for statement in pglast.parse_sql(text_of(name))
        if isinstance(statement.stmt, ast.CreateFunctionStmt)
    ]


def test_every_file_is_loaded() -> None:
    assert {path.stem for path in SQL.glob("*.sql")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_parser_of_postgresql_accepts_every_file(name: str) -> None:
    assert pglast.parse_sql(text_of(name))


@pytest.mark.parametrize("name", REPEATABLE)
def test_every_file_can_be_loaded_again(name: str) -> None:
    """Loading it again does not fail and changes no data."""
    for statement in pglast.parse_sql(text_of(name)):
        match statement.stmt:
            case ast.CreateFunctionStmt() | ast.CreateTrigStmt() as made:
                assert made.replace, statement
            case ast.ViewStmt() | ast.DropStmt() | ast.CommentStmt() | ast.GrantStmt() | ast.DoStmt():
                pass
            case other:
                raise AssertionError(f"{name}.sql: {other}")


def test_each_function_is_defined_once() -> None:
    count = Counter(function for name in FILES for function in functions_of(name))
    assert [function for function, times in count.items() if times > 1] == []


def test_every_function_that_python_calls_is_defined(database_url: str) -> None:
    """A function that Python calls, like ``claim_on_one_port``, is defined in one of the files."""
    ours = {function for name in FILES for function in functions_of(name)}
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        known = ours | set(
            connection.scalars(
                sa.text("SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace")
            )
        )
    engine.dispose()
    python = [*ROOT.glob("services/**/*.py"), *ROOT.glob("common/**/*.py")]
    call = re.compile(r"(?:SELECT|claim=\"\"\"|THEN) ?([a-z_]+)\(")
    called = {name for path in python for name in call.findall(path.read_text())} - {"coalesce", "cast"}
    assert {"claim_on_one_port", "answer_step", "drain_port", "enqueue_claim"} <= called
    assert called <= known


@pytest.fixture(scope="module")
def checked_database() -> Iterator[sa.Engine]:
    """The schema in a PostgreSQL that has plpgsql_check."""
    if not PLPGSQL_CHECK:
        skip_without("PostgreSQL with plpgsql_check", "tests/support/install-servers, as root on Debian")
    release = PLPGSQL_CHECK[-1].parents[1].name
    server, url = start_postgresql(run_owner(), Path(f"/usr/lib/postgresql/{release}/bin"))
    engine = sa.create_engine(url)
    try:
        migrate.upgrade(url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE EXTENSION plpgsql_check"))
        yield engine
    finally:
        engine.dispose()
        server.stop()


def test_plpgsql_check_finds_no_fault_in_any_function(checked_database: sa.Engine) -> None:
    with checked_database.connect() as connection:
        assert connection.execute(sa.text(FAULTS)).all() == []


def test_plpgsql_check_finds_a_missing_column(checked_database: sa.Engine) -> None:
    with checked_database.connect() as connection:
        connection.execute(sa.text("ALTER TABLE waiting_claims RENAME queued_at TO since"))
        faults = connection.execute(sa.text(FAULTS)).all()
    assert [fault.function for fault in faults] == ["expire_waiting(uuid)"]
    assert "queued_at does not exist" in faults[0].message
