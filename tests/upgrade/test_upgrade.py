"""An upgrade from the last release, while services of both versions run and claims are under way."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.db import migrate
from portclaim.common.db.schema_version import HEAD
from portclaim.common.errors import ClaimRefused, InvalidConfiguration
from portclaim.common.rpc.claim_messages import ClaimRequest, DeviceFilter
from portclaim.common.rpc.move_messages import MoveRequest
from portclaim.common.rpc.network_settings import DeviceNetworkSettings
from portclaim.common.rpc.operator_messages import HostFilter
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.dump import schema_of
from tests.support.invariants import violations
from tests.support.services import ServiceProcess, Services, as_ini
from tests.upgrade.releases import UPGRADE, releases, run_in

ALIASES = [
    '{"name": "pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}',
    '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}',
]
HOSTS = ("node-1", "node-2", "node-3")
TABLES = sa.text("""
    SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1
""")


class Site:
    """A fleet of three simulated hosts, whose services each run the code of one version."""

    def __init__(self, old: Services, new: Services, bus: Bus, engine: sa.Engine, directory: Path) -> None:
        self.old = old
        self.new = new
        self.scheduler = bus.scheduler
        self.bus = bus
        self.engine = engine
        self._directory = directory

    def start(self, version: Services, service: str) -> ServiceProcess:
        return version(service, {"pci": {"alias": ALIASES}})

    def start_agent(self, version: Services, host: str, **simulated: object) -> ServiceProcess:
        state = self._directory / host
        state.mkdir(exist_ok=True)
        options: dict[str, dict[str, object]] = {
            "DEFAULT": {"host": host, "state_path": state},
            "pci": {"device_spec": json.dumps({"vendor_id": "8086"})},
            "compute_agent": {"sysfs_root": state / "sys"},
            "simulated": {"ports": 2, "vfs_per_port": 4, "accelerators": 0, **simulated},
        }
        return version("compute_agent", options)

    def request(self, alias: str, host: str, wait: int | None = None) -> ClaimRequest:
        specs = {"pci_passthrough:alias": alias}
        return ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs=specs, hosts=[host], wait=wait)

    def claim(self, alias: str, host: str, status: str, wait: int | None = None) -> UUID:
        claim_id = self.scheduler.claim(self.request(alias, host, wait)).claim_id
        self.until(claim_id, status)
        return claim_id

    def until(self, claim_id: UUID, status: str) -> None:
        wait_until(lambda: self.scheduler.show(claim_id).status == status, f"the claim is {status}")

    def rows(self) -> dict[str, int]:
        with self.engine.connect() as connection:
            return {
                table: connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))
                for table in connection.scalars(TABLES).all()
            }


class Load(threading.Thread):
    """Claims, waits until the agent has attached, releases, waits until it is detached; again and again."""

    def __init__(self, site: Site, host: str) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.host = host
        self.cycles = 0
        self.error: BaseException | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                claim_id = self.site.claim("vf:1", self.host, "allocated")
                self.site.scheduler.release(claim_id)
                self.site.until(claim_id, "released")
                self.cycles += 1
        except BaseException as error:
            self.error = error

    def go_on(self, cycles: int = 3) -> None:
        """Return after so many more cycles."""
        goal = self.cycles + cycles
        wait_until(lambda: self.cycles >= goal or self.error, f"{self.host} gets more claims")
        assert self.error is None, self.error

    def end(self) -> None:
        self.ending.set()
        self.join()
        assert self.error is None, self.error


@pytest.fixture
def site(tmp_path: Path, rabbit_url: str, empty_database_url: str, bus: Bus) -> Iterator[Site]:
    tree = releases()[-1].unpack(tmp_path)
    run_in(tree, UPGRADE, empty_database_url)
    for version in ("old", "new"):
        (tmp_path / f"{version}-services").mkdir()
    old = Services(tmp_path / "old-services", rabbit_url, empty_database_url, tree)
    new = Services(tmp_path / "new-services", rabbit_url, empty_database_url)
    engine = sa.create_engine(empty_database_url)
    try:
        yield Site(old, new, bus, engine, tmp_path)
    finally:
        new.end()
        old.end()
        engine.dispose()


def test_claims_go_on_and_the_schema_becomes_that_of_a_new_database(site: Site, database_url: str) -> None:
    conductor, scheduler = site.start(site.old, "conductor"), site.start(site.old, "scheduler")
    agents = {host: site.start_agent(site.old, host) for host in HOSTS}
    wait_until(lambda: len(site.scheduler.hosts(HostFilter()).hosts) == len(HOSTS), "all hosts have reported")
    wait_until(lambda: len(site.scheduler.devices(DeviceFilter()).devices) == 30, "their devices are known")

    # One claim in each state, so that every table has rows.
    held = [site.claim("pf:1", "node-1", "allocated") for _ in range(2)]
    waiting = site.claim("pf:1", "node-1", "waiting", wait=600)
    source = site.claim("vf:1", "node-3", "allocated")
    target = uuid4()
    site.scheduler.move(MoveRequest(source_claim_id=source, claim_id=target, hosts=["node-2"]))
    site.until(target, "allocated")
    agents.pop("node-3").stop()
    unanswered = site.claim("vf:1", "node-3", "claimed")
    with site.engine.connect() as open_transaction:
        make_a_gap(site, open_transaction)
        before = site.rows()
        assert [table for table, rows in before.items() if rows == 0] == []

        load = Load(site, "node-2")
        load.start()
        load.go_on()
        refuse_rewrites(site)
        migrate.upgrade(site.engine.url.render_as_string(hide_password=False))
        load.go_on()
        after = site.rows()
        assert {table: rows for table, rows in before.items() if after[table] < rows} == {}
        allow_rewrites(site)

    new_conductor, new_scheduler = site.start(site.new, "conductor"), site.start(site.new, "scheduler")
    load.go_on(10)  # with both versions of each
    scheduler.stop()
    conductor.stop()
    load.go_on()
    agents.pop("node-2").stop()
    site.start_agent(site.new, "node-2")
    load.go_on()
    load.end()

    # What was under way goes on.
    site.start_agent(site.new, "node-3")
    site.until(unanswered, "allocated")
    site.scheduler.complete_move(target)
    site.until(source, "released")
    site.scheduler.release(held[0])
    site.until(waiting, "allocated")

    with site.engine.connect() as connection:
        assert violations(connection) == []
    upgraded, fresh = Counter(schema_of(str(site.engine.url))), Counter(schema_of(database_url))
    assert upgraded - fresh == Counter()
    assert fresh - upgraded == Counter()
    assert new_conductor.running
    assert new_scheduler.running


def refuse_rewrites(site: Site) -> None:
    """A rewrite of a table is not MVCC-safe: a statement that waited for it finds the table empty."""
    with site.engine.begin() as connection:
        connection.execute(
            sa.text("""
                CREATE FUNCTION refuse_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS $$
                BEGIN
                    RAISE 'the migration rewrites table %', pg_event_trigger_table_rewrite_oid()::regclass;
                END $$
            """)
        )
        connection.execute(
            sa.text("CREATE EVENT TRIGGER no_rewrite ON table_rewrite EXECUTE FUNCTION refuse_rewrite()")
        )


def allow_rewrites(site: Site) -> None:
    with site.engine.begin() as connection:
        connection.execute(sa.text("DROP EVENT TRIGGER no_rewrite"))
        connection.execute(sa.text("DROP FUNCTION refuse_rewrite()"))


def make_a_gap(site: Site, open_transaction: sa.Connection) -> None:
    """Use up an id of an event, and have the gap stay: a transaction from before it was found is open."""
    open_transaction.execute(sa.text("SELECT pg_current_xact_id()"))
    with site.engine.begin() as connection:
        connection.execute(sa.text("SELECT nextval('claim_events_id_seq')"))
    site.claim("vf:1", "node-2", "allocated")
    wait_until(lambda: site.rows()["event_gaps"], "the publisher has found the gap")


def test_an_old_agent_never_serves_a_claim_without_the_network_settings_that_it_asks_for(
    site: Site, empty_database_url: str
) -> None:
    """An agent of release 0.2.0 takes the place of a newer one, while such a claim has a VF of its host."""
    migrate.upgrade(empty_database_url)
    site.new("conductor", {"conductor": {"expire_after": 5.0, "resend_after": 0.5}})
    site.start(site.new, "scheduler")
    host = HOSTS[0]
    new = site.start_agent(site.new, host, network_settings=True)
    wait_until(lambda: site.scheduler.hosts(HostFilter()).hosts, "the agent has reported")
    new.stop()
    settings = [DeviceNetworkSettings(mac="52:54:00:00:00:01")]
    asked = site.request("vf:1", host).model_copy(update={"network_settings": settings})
    claim_id = site.scheduler.claim(asked).claim_id
    site.start_agent(site.old, host)
    site.until(claim_id, "expired")
    assert "not prepared" in str(site.scheduler.show(claim_id).reason)
    again = site.request("vf:1", host).model_copy(update={"network_settings": settings})
    with pytest.raises(ClaimRefused):
        site.scheduler.claim(again)
    site.claim("vf:1", host, "allocated")


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidConfiguration, match=r"schema 9999, which this version .* does not know"):
        migrate.upgrade(database_url)
    engine.dispose()


@pytest.mark.parametrize("service", ["conductor", "scheduler"])
def test_a_service_does_not_start_on_an_older_schema(
    service: str, empty_database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text(
        as_ini({"DEFAULT": {"transport_url": "fake://"}, "database": {"connection": empty_database_url}})
    )

    def refusal() -> str:
        command = [sys.executable, "-m", f"portclaim.services.{service}", "--config-file", str(file)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 1
        return run.stderr

    remedy = f"this version needs schema {HEAD}: run `portclaim db upgrade` first"
    assert f"portclaim-{service}: the database has no schema, and {remedy}" in refusal()
    migrate.upgrade(empty_database_url)
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    engine.dispose()
    assert f"portclaim-{service}: the database has schema 0000, and {remedy}" in refusal()


def test_an_upgrade_waits_for_a_service_that_holds_a_table_and_never_makes_it_fail(
    empty_database_url: str, tmp_path: Path
) -> None:
    """The service holds one table and then needs another, which the upgrade may hold."""
    run_in(releases()[-1].unpack(tmp_path), UPGRADE, empty_database_url)
    engine = sa.create_engine(empty_database_url)
    with engine.connect() as service, ThreadPoolExecutor(1) as pool:
        service.execute(sa.text("SELECT count(*) FROM claim_events"))
        upgrading = pool.submit(migrate.upgrade, empty_database_url)
        with engine.connect() as observer:
            waits = sa.text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'claim_events'::regclass"
            )
            wait_until(lambda: observer.scalar(waits), "the upgrade waits for the table")
        service.execute(sa.text("SELECT count(*) FROM claims"))  # no deadlock
        service.rollback()
        assert upgrading.result(timeout=60)[1] == HEAD
    engine.dispose()


def test_an_upgrade_has_all_tables_before_it_changes_one(empty_database_url: str, tmp_path: Path) -> None:
    """So an upgrade that has to give up has done no work, however large the tables are."""
    run_in(releases()[-1].unpack(tmp_path), UPGRADE, empty_database_url)
    engine = sa.create_engine(empty_database_url)
    holders = sa.text("""
        SELECT relation::regclass::text FROM pg_locks
         WHERE granted AND mode = 'AccessExclusiveLock' AND database = (SELECT oid FROM pg_database
                                                                         WHERE datname = current_database())
           AND pid IN (SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'claims'::regclass)
    """)
    with engine.connect() as service, ThreadPoolExecutor(1) as pool:
        service.execute(sa.text("SELECT FROM claims"))
        upgrading = pool.submit(migrate.upgrade, empty_database_url)
        with engine.connect() as observer:
            held: list[str] = []
            wait_until(lambda: held.extend(observer.scalars(holders)) or held, "the upgrade waits for claims")
        assert "pci_devices" not in held
        service.execute(sa.text("SELECT FROM pci_devices"))
        service.rollback()
        assert upgrading.result(timeout=60)[1] == HEAD
    engine.dispose()
