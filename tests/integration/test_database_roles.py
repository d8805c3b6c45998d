"""Each service works with a user of its own, and a test tries everything that each must not do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from portclaim.cli import database
from portclaim.cli.main import main
from portclaim.common.db import grants, migrate
from tests.support import postgresql
from tests.support.one_host import HOST, one_host
from tests.support.services import Services, as_ini

SERVICES = ("conductor", "scheduler", "api", "metrics", "operator")


@pytest.fixture
def granted(database_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The URL of a user for each role. A role belongs to the whole server, so the users do too."""
    file = tmp_path / "owner.conf"
    file.write_text(as_ini({"database": {"connection": database_url}}))

    def portclaim(*words: str) -> None:
        done = CliRunner().invoke(main, ["--config-file", str(file), *words])
        assert done.exit_code == 0, done.output

    portclaim("db", "grant")
    portclaim("db", "grant")  # it can be repeated
    name = sa.make_url(database_url).database
    engine = sa.create_engine(database_url)
    users = {role: f"{name}_{role}" for role in SERVICES}
    for role, user in users.items():
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE USER {user}"))
        portclaim("db", "grant", role, user)
    yield {
        role: sa.make_url(database_url).set(username=user).render_as_string(hide_password=False)
        for role, user in users.items()
    }
    with engine.begin() as connection:
        for user in users.values():
            connection.execute(sa.text(f"DROP USER {user}"))
    engine.dispose()


def test_the_command_knows_all_roles() -> None:
    assert database.ROLES == grants.ROLES


def test_services_work_with_their_own_users(
    service_process: Services, tmp_path: Path, granted: dict[str, str]
) -> None:
    service_process.database_urls = {role: granted[role] for role in ("conductor", "scheduler")}
    with one_host(service_process, tmp_path) as host:
        agent = host.start_agent()
        for alias in ("vf:2", "pf:1"):
            claim = host.claim(alias).claim_id
            host.wait_for(claim, "allocated")
            host.scheduler.release(claim)
            host.wait_for(claim, "released")
        waits = [host.claim("pf:1", wait=60).claim_id for _ in range(2)]
        for each in waits:
            host.wait_for(each, "allocated")
            host.scheduler.release(each)
            host.wait_for(each, "released")
        host.scheduler.drain(HOST, "a new power supply", who="me")
        host.scheduler.undrain(HOST)
        agent.kill()
        host.scheduler.retry()
    for process in service_process.processes:
        assert "permission denied" not in process.log


WRITES = {
    "host_keys": "INSERT INTO host_keys (host, key_id, public_key)"
    " VALUES ('h', 'k', decode(repeat('00', 32), 'hex'))",
    "tokens": "INSERT INTO api_tokens (name, role, sha256) VALUES ('me', 'operator', '\\x00')",
    "enrolments": "INSERT INTO host_enrolments (host, sha256, expires_at) VALUES ('h', '\\x00', now())",
    "revocation": "UPDATE host_keys SET revoked_at = NULL",
    "devices": "UPDATE pci_devices SET address = '0000:00:00.0'",
    "device_is_free": "UPDATE pci_devices SET status = 'available', claim_id = NULL",
    "host": "INSERT INTO compute_nodes (host, agent_id) VALUES ('h', gen_random_uuid())",
    "agent": "UPDATE compute_nodes SET agent_id = gen_random_uuid()",
    "drained": "UPDATE compute_nodes SET disabled_reason = NULL",
    "claims": "DELETE FROM claims",
    "quotas": "UPDATE project_quotas SET max_pfs = NULL",
    "history": "UPDATE claim_events SET cause = ''",
    "history_is_gone": "DELETE FROM claim_events",
    "audit": "UPDATE audit_events SET who = ''",
    "audit_is_gone": "DELETE FROM audit_events",
    "cursors": "UPDATE event_cursors SET last_id = 0",
    "schema": "UPDATE alembic_version SET version_num = '0001'",
    "table": "CREATE TABLE mine ()",
    "function": "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "drop": "DROP TABLE claims",
    "role": "CREATE ROLE mine",
    "superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "file": "COPY pools TO '/tmp/mine'",
    "program": "COPY pools TO PROGRAM 'true'",
    "read_tokens": "SELECT sha256 FROM api_tokens",
    "read_enrolments": "SELECT sha256 FROM host_enrolments",
    "read_passwords": "SELECT rolpassword FROM pg_authid",
}
MAY = {
    "conductor": {
        "host_keys",
        "devices",
        "device_is_free",
        "host",
        "agent",
        "claims",
        "quotas",
        "history_is_gone",
        "cursors",
        "read_enrolments",
    },
    "scheduler": {"device_is_free", "drained", "claims", "quotas"},
    "api": {"tokens", "quotas", "read_tokens"},
    "operator": set(),
    "metrics": set(),
}


@pytest.mark.parametrize("role", SERVICES)
def test_a_service_cannot_do_what_it_need_not(granted: dict[str, str], role: str) -> None:
    engine = sa.create_engine(granted[role], poolclass=sa.NullPool)
    done = set()
    for name, statement in WRITES.items():
        with engine.connect() as connection:
            try:
                connection.execute(sa.text(statement.replace(":", r"\:")))
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "pgcode", None) == "42501":
                    continue
            done.add(name)
            connection.rollback()
    assert done == MAY[role]


def test_no_function_has_the_rights_of_its_owner(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        found = connection.scalars(
            sa.text("SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace")
        ).all()
    engine.dispose()
    assert found == []


def test_an_owner_that_cannot_create_roles_upgrades_too() -> None:
    url = postgresql.create_database(template="template0")
    name = sa.make_url(url).database
    engine = sa.create_engine(url)
    owner = f"{name}_owner"
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"CREATE USER {owner}"))
            connection.execute(sa.text(f"ALTER DATABASE {name} OWNER TO {owner}"))
            connection.execute(sa.text(f"ALTER SCHEMA public OWNER TO {owner}"))
        own = sa.make_url(url).set(username=owner).render_as_string(hide_password=False)
        migrate.upgrade(own)
        migrate.upgrade(own)
    finally:
        engine.dispose()
        postgresql.drop_database(url)
        postgresql._administer(f"DROP USER {owner}")
