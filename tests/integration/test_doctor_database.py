"""``portclaim doctor`` and a real PostgreSQL that has trouble: settings, sessions, bloat, standbys."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from portclaim.cli.doctor import database
from portclaim.cli.main import main
from tests.support.concurrency import meanwhile, wait_until
from tests.support.services import as_ini
from tests.support.standby import Node, Pair

LOOKED_AT = {"database", "schema", "settings", "roles", "connections", "sessions", "bloat", "replication"}
NOT_A_SUPERUSER = (
    "CREATE ROLE services LOGIN",
    "GRANT pg_read_all_stats TO services",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO services",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO services",
)


class Server:
    """A server, and what the command says of it to services that have a role of their own."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self._file = directory / "doctor.conf"
        self.options: dict[str, dict[str, Any]] = {"DEFAULT": {"transport_url": "rabbit://127.0.0.1:1/"}}

    def findings(self) -> list[dict[str, str]]:
        """What is not ok with the database. There is no bus, and no agent."""
        url = self.node.url().replace("//postgres@", "//services@")
        self._file.write_text(as_ini({**self.options, "database": {"connection": url}}))
        arguments = ["--config-file", str(self._file), "doctor", "--no-rules", "--output", "json"]
        told = json.loads(CliRunner().invoke(main, arguments).stdout)
        assert {each["check"] for each in told} >= {"database", "schema", "settings", "connections"}
        return [each for each in told if each["check"] in LOOKED_AT and each["verdict"] != "ok"]

    def finding(self, verdict: str, check: str, *texts: str) -> str:
        """What to do about the only thing that is not ok."""
        findings = self.findings()
        assert len(findings) == 1, findings
        [found] = findings
        assert (found["verdict"], found["check"]) == (verdict, check)
        for text in texts:
            assert text in found["found"]
        return found["advice"]

    def is_healthy(self) -> bool:
        return self.findings() == []

    @contextmanager
    def transaction(self, statement: str = "SELECT 1", role: str = "postgres") -> Iterator[int]:
        """A session that has a transaction open; the id of its process."""
        engine = sa.create_engine(self.node.url().replace("//postgres@", f"//{role}@"), poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("SET application_name = 'a report'"))
            connection.execute(sa.text(statement))
            yield int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)
            connection.invalidate()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="portclaim-doctor-") as directory:
        Path(directory).chmod(0o755)  # root's server runs as another user
        yield Path(directory)


@pytest.fixture(scope="module")
def pair(directory: Path) -> Iterator[Pair]:
    pair = Pair(directory)
    try:
        for statement in NOT_A_SUPERUSER:
            pair.primary.tell(statement)
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def server(pair: Pair, tmp_path: Path) -> Server:
    return Server(pair.primary, tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction is long from its first moment."""
    monkeypatch.setattr(database, "_LONG", 0)


def test_a_healthy_server_has_nothing(server: Server) -> None:
    assert server.findings() == []


@pytest.mark.parametrize(
    ("setting", "verdict", "why"),
    [
        ("full_page_writes", "trouble", "can break the database"),
        ("autovacuum", "trouble", "tables grow without end"),
        ("synchronous_commit", "warning", "a crash can lose the claims of the last moment"),
    ],
)
def test_settings_that_hurt(server: Server, setting: str, verdict: str, why: str) -> None:
    server.node.set(**{setting: "off"})
    try:
        advice = server.finding(verdict, "settings", f"{setting} is off", why)
        assert f"ALTER SYSTEM SET {setting} = on" in advice
        server.node.set(**{setting: "on"})
        assert server.findings() == []
    finally:
        server.node.set(**{setting: None})


@pytest.mark.usefixtures("at_once")
class TestSessions:
    def test_a_transaction_that_was_left_open(self, server: Server) -> None:
        with server.transaction() as process:
            advice = server.finding(
                "warning", "sessions", f"a report (process {process})", "has left a trans"
            )
            server.node.tell(advice.partition(": ")[2])
            wait_until(server.is_healthy, "the session has ended")

    def test_a_statement_that_runs_for_long(self, server: Server) -> None:
        sleeping = meanwhile(lambda: server.node.ask("SELECT pg_sleep(600)"))
        running = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
        wait_until(lambda: server.node.ask(running), "it runs")
        [(process,)] = server.node.ask(running)
        advice = server.finding("warning", "sessions", f"(process {process})", "a transaction that runs for")
        server.node.tell(advice.partition("end it: ")[2])
        assert sleeping.exception(60) is not None
        wait_until(server.is_healthy, "the statement has ended")

    def test_a_session_that_waits_for_a_lock(self, server: Server) -> None:
        lock = "LOCK TABLE claims IN ACCESS EXCLUSIVE MODE"
        with server.transaction(lock) as holder:
            waiting = meanwhile(lambda: server.node.ask("SELECT count(*) FROM claims"))
            blocked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: server.node.ask(blocked), "it waits")
            [(process,)] = server.node.ask(blocked)
            with server.node.connected() as connection:
                found = list(database._sessions(connection))
            [waits] = [each for each in found if "waits for a lock" in each.found]
            assert f"(process {process})" in waits.found
            assert server.node.ask(waits.advice.partition(": ")[2]) == [([holder],)]
        assert waiting.result(60) == [(0,)]
        wait_until(server.is_healthy, "nobody waits")


def test_dead_rows_that_nobody_clears(server: Server) -> None:
    node = server.node
    node.tell("CREATE TABLE ballast (id integer) WITH (autovacuum_enabled = off)")
    try:
        node.tell("INSERT INTO ballast SELECT generate_series(1, 10001)")
        node.tell("DELETE FROM ballast")
        wait_until(lambda: not server.is_healthy(), "the statistics say so")
        advice = server.finding("warning", "bloat", "ballast has 10001 dead rows beside 0")
        assert advice.startswith("VACUUM ballast, ")
        node.tell("VACUUM ballast")
        wait_until(server.is_healthy, "the table is clear")
    finally:
        node.tell("DROP TABLE ballast")


def test_too_many_connections(server: Server) -> None:
    engine = sa.create_engine(server.node.url(), pool_size=100)
    opened = [engine.connect() for _ in range(85)]
    try:
        advice = server.finding("trouble", "connections", "of 97 connections are in use")
        assert "raise max_connections" in advice
    finally:
        for each in opened:
            each.close()
        engine.dispose()
    wait_until(server.is_healthy, "the connections are closed")


def test_workers_that_would_open_too_many(server: Server) -> None:
    server.options["scheduler"] = {"workers": 30}
    advice = server.finding("warning", "connections", "the workers of this configuration may open")
    assert "lower [rpc] threads" in advice


class TestReplication:
    def test_a_standby_that_falls_behind(
        self, pair: Pair, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_BEHIND", 0.2)
        pair.standby.tell("SELECT pg_wal_replay_pause()")
        try:

            def is_seen() -> bool:
                pair.primary.tell("CREATE TABLE IF NOT EXISTS more (id integer)")
                pair.primary.tell("INSERT INTO more VALUES (1)")
                return any(each["check"] == "replication" for each in server.findings())

            wait_until(is_seen, "the lag is seen", 60)
            with pair.primary.connected() as connection:
                [behind] = list(database._replication(connection))
            assert behind.verdict == "warning"
            assert "standby walreceiver is streaming" in behind.found
            assert "would lose" in behind.advice
        finally:
            pair.standby.tell("SELECT pg_wal_replay_resume()")
            monkeypatch.undo()
            pair.primary.tell("DROP TABLE more")
        wait_until(server.is_healthy, "the standby is in step")

    def test_a_slot_that_nobody_reads(self, server: Server) -> None:
        server.node.tell("SELECT pg_create_physical_replication_slot('forgotten')")
        advice = server.finding("warning", "replication", "forgotten", "until the disk is full")
        server.node.tell(f"SELECT {advice.partition('SELECT ')[2].replace('NAME', repr('forgotten'))}")
        assert server.findings() == []

    def test_a_role_that_may_not_see_it(self, server: Server) -> None:
        server.node.tell("REVOKE pg_read_all_stats FROM services")
        try:
            advice = server.finding("warning", "replication", "may not see")
            assert "GRANT pg_read_all_stats" in advice
        finally:
            server.node.tell("GRANT pg_read_all_stats TO services")
        assert server.findings() == []

    def test_a_connection_to_the_standby(self, pair: Pair, tmp_path: Path) -> None:
        advice = Server(pair.standby, tmp_path).finding("trouble", "database", "reaches a standby")
        assert "target_session_attrs=read-write" in advice

    def test_a_standby_that_is_gone(self, pair: Pair, server: Server) -> None:
        pair.standby.kill()
        seen = "SELECT count(*) FROM pg_stat_replication"
        wait_until(lambda: server.node.ask(seen) == [(0,)], "the primary has noticed")
        advice = server.finding("trouble", "replication", "none is there", "no claim can be made")
        assert "ALTER SYSTEM RESET synchronous_standby_names" in advice
        pair.standby.start(ready="ready to accept read-only connections")
        wait_until(server.is_healthy, "the standby is back")


def test_fsync_off(directory: Path, tmp_path: Path) -> None:
    """On a server of its own, because a flag of the others says that it is on."""
    node = Node(directory / "alone")
    node.make()
    try:
        for statement in NOT_A_SUPERUSER:
            node.tell(statement)
        server = Server(node, tmp_path)
        assert server.findings() == []
        node.kill()
        node.start("--fsync=off")
        assert "ALTER SYSTEM SET fsync = on" in server.finding("trouble", "settings", "fsync is off")
    finally:
        node.stop()
