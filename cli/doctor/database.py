"""PostgreSQL: its settings that are known to hurt, roles, room for connections, bloat and replication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from portclaim.cli.doctor.finding import Finding, ok, several, trouble, warning
from portclaim.common.db.schema_version import HEAD

if TYPE_CHECKING:
    from oslo_config import cfg

_CHECK = "database"
_PREPARE_ROLES = "portclaim db upgrade, as a role that may create roles, or: CREATE ROLE {role} NOLOGIN"
_BLOAT = 10_000  # dead rows, and more than living ones
_XID_AGE = 1_000_000_000  # PostgreSQL stops at two thousand million
_BUSY = 0.8  # of max_connections
_LONG = 60  # seconds of a transaction
_BEHIND = 60  # seconds of a standby

_SETTINGS: dict[str, tuple[str, str]] = {
    "fsync": ("trouble", "a crash of the machine can lose claims and break the database"),
    "full_page_writes": ("trouble", "a crash of the machine can break the database"),
    "autovacuum": ("trouble", "tables grow without end, and claims become slow"),
    "synchronous_commit": ("warning", "a crash can lose the claims of the last moment, which callers have"),
}
_STATE = sa.text("""
    SELECT current_setting('server_version') AS version,
           pg_is_in_recovery() AS standby,
           current_setting('max_connections')::integer
               - current_setting('superuser_reserved_connections')::integer AS most,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser, current_user AS role,
           (SELECT max(age(datfrozenxid)) FROM pg_database) AS xid_age,
           cast(extract(epoch FROM clock_timestamp()) AS double precision) AS clock
""")
_SESSIONS = sa.text("""
    SELECT pid, coalesce(nullif(application_name, ''), usename) AS who, state, wait_event_type,
           cast(extract(epoch FROM now() - coalesce(xact_start, state_change)) AS integer) AS seconds
      FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
       AND xact_start < now() - make_interval(secs => :long)
     ORDER BY xact_start
""")
_BLOATED = sa.text("""
    SELECT relname, n_live_tup AS live, n_dead_tup AS dead FROM pg_stat_user_tables
     WHERE schemaname = 'public' AND n_dead_tup > :bloat AND n_dead_tup > n_live_tup
     ORDER BY n_dead_tup DESC
""")
_ROLES = sa.text("SELECT rolname FROM pg_roles WHERE rolname IN ('portclaim_operator', 'portclaim_api')")
_STANDBYS = sa.text("""
    SELECT coalesce(application_name, client_addr::text) AS name, state, sync_state,
           cast(coalesce(extract(epoch FROM replay_lag), 0) AS double precision) AS lag
      FROM pg_stat_replication
""")
_IN_STEP = {"sync", "quorum"}
_WAITS = sa.text("""
    SELECT current_setting('synchronous_standby_names') <> ''
           AND current_setting('synchronous_commit') NOT IN ('off', 'local')
""")
_SLOTS = sa.text("SELECT slot_name FROM pg_replication_slots WHERE NOT active")
_PREPARED = sa.text("SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - interval '5 min'")


def has_schema(connection: sa.Connection) -> bool:
    return bool(connection.scalar(sa.text("SELECT to_regclass('public.alembic_version') IS NOT NULL")))


def check(connection: sa.Connection, conf: cfg.ConfigOpts) -> Iterator[Finding]:
    state = connection.execute(_STATE).mappings().one()
    yield from _schema(connection)
    if state["standby"]:
        yield trouble(
            _CHECK,
            "[database] connection reaches a standby, which takes no claims",
            "add target_session_attrs=read-write to [database] connection",
        )
    else:
        yield ok(_CHECK, f"PostgreSQL {state['version']} answers")
    yield from _settings(connection)
    yield from _roles(connection, state)
    yield from _connections(state, conf)
    if state["xid_age"] > _XID_AGE:
        yield trouble(
            _CHECK,
            f"the oldest transaction id is {state['xid_age']} transactions old; PostgreSQL stops at 2^31",
            "run VACUUM (FREEZE) as its owner, and find what holds autovacuum up",
        )
    yield from _sessions(connection)
    for row in connection.execute(_BLOATED, {"bloat": _BLOAT}):
        yield warning(
            "bloat",
            f"{row.relname} has {row.dead} dead rows beside {row.live}",
            f"VACUUM {row.relname}, and end transactions that are open for long",
        )
    yield from _replication(connection)


def _schema(connection: sa.Connection) -> Iterator[Finding]:
    found = None
    if has_schema(connection):
        found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if found is None or found < HEAD:
        has = "no schema" if found is None else f"schema {found}"
        yield trouble(
            "schema", f"the database has {has}, and this release needs {HEAD}", "portclaim db upgrade"
        )
    elif found > HEAD:
        yield warning(
            "schema",
            f"the database has schema {found}, which is newer than this release's {HEAD}",
            "finish the upgrade: install the newer release here too",
        )
    else:
        yield ok("schema", f"schema {found}")


def _settings(connection: sa.Connection) -> Iterator[Finding]:
    query = sa.text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    off = {row.name for row in connection.execute(query, {"names": list(_SETTINGS)}) if row.setting == "off"}
    for name in sorted(off):
        verdict, why = _SETTINGS[name]
        make = trouble if verdict == "trouble" else warning
        yield make(
            "settings", f"{name} is off: {why}", f"ALTER SYSTEM SET {name} = on, and reload PostgreSQL"
        )
    if not off:
        yield ok("settings", f"{', '.join(_SETTINGS)} are on")


def _roles(connection: sa.Connection, state: Any) -> Iterator[Finding]:
    there = {row.rolname for row in connection.execute(_ROLES)}
    for role in sorted({"portclaim_operator", "portclaim_api"} - there):
        yield warning("roles", f"the role {role} is missing", _PREPARE_ROLES.format(role=role))
    if state["superuser"]:
        yield warning(
            "roles",
            f"the services connect as the superuser {state['role']}",
            "give them a role of their own that owns the schema, and no more",
        )
    elif len(there) == 2:
        yield ok("roles", f"portclaim_operator and portclaim_api are there; the services are {state['role']}")


def _connections(state: Any, conf: cfg.ConfigOpts) -> Iterator[Finding]:
    scheduler = conf.scheduler.workers * (conf.rpc.threads + 2)
    conductor = conf.conductor.workers * (conf.rpc.threads + 9)
    wanted = scheduler + conductor
    if state["connections"] > _BUSY * state["most"]:
        yield trouble(
            "connections",
            f"{state['connections']} of {state['most']} connections are in use",
            "raise max_connections of PostgreSQL, or run fewer workers",
        )
    elif wanted > state["most"]:
        yield warning(
            "connections",
            f"the workers of this configuration may open {wanted} connections, and PostgreSQL allows "
            f"{state['most']}",
            "raise max_connections of PostgreSQL, or lower [rpc] threads or the number of workers",
        )
    else:
        yield ok("connections", f"{state['connections']} of {state['most']} are in use")


def _sessions(connection: sa.Connection) -> Iterator[Finding]:
    for row in connection.execute(_SESSIONS, {"long": _LONG}):
        if row.state.startswith("idle in transaction"):
            yield warning(
                "sessions",
                f"{row.who} (process {row.pid}) has left a transaction open for {row.seconds} s",
                f"end it: SELECT pg_terminate_backend({row.pid})",
            )
        elif row.wait_event_type == "Lock":
            yield warning(
                "sessions",
                f"{row.who} (process {row.pid}) waits for a lock since {row.seconds} s",
                f"see who has it: SELECT pg_blocking_pids({row.pid})",
            )
        else:
            yield warning(
                "sessions",
                f"{row.who} (process {row.pid}) has a transaction that runs for {row.seconds} s. Dead rows "
                "stay until it ends",
                f"wait for it, or end it: SELECT pg_terminate_backend({row.pid})",
            )


def _waits_for_a_standby(connection: sa.Connection) -> bool:
    return bool(connection.scalar(_WAITS))


def _replication(connection: sa.Connection) -> Iterator[Finding]:
    found = connection.execute(_STANDBYS).all()
    standbys = [row for row in found if row.state is not None]
    if len(standbys) < len(found):
        yield warning(
            "replication",
            "this role may not see how far the standbys are",
            "GRANT pg_read_all_stats TO the role in [database] connection",
        )
    elif _waits_for_a_standby(connection) and not any(row.sync_state in _IN_STEP for row in standbys):
        yield trouble(
            "replication",
            "PostgreSQL waits for a standby at each commit (synchronous_standby_names), and none is there: "
            "no claim can be made",
            "start the standby. If it will not come back: ALTER SYSTEM RESET synchronous_standby_names, and "
            "reload PostgreSQL",
        )
    for row in standbys:
        if row.state != "streaming" or row.lag > _BEHIND:
            yield warning(
                "replication",
                f"standby {row.name} is {row.state}, {row.lag:.0f} s behind",
                "read its log; a fail-over to it now would lose what it has not got",
            )
    if slots := [row.slot_name for row in connection.execute(_SLOTS)]:
        yield warning(
            "replication",
            f"nobody reads from replication slots {several(slots)}: PostgreSQL keeps its log for them until "
            "the disk is full",
            "start the standby, or: SELECT pg_drop_replication_slot(NAME)",
        )
    if prepared := [row.gid for row in connection.execute(_PREPARED)]:
        yield warning(
            "sessions",
            f"prepared transactions {several(prepared)} are open. Dead rows stay until they end",
            "ROLLBACK PREPARED, or COMMIT PREPARED",
        )
    good = [row.name for row in standbys if row.state == "streaming" and row.lag <= _BEHIND]
    if good:
        yield ok("replication", f"standbys in step: {several(good)}")
