"""``portclaim import nova``: a cell that Nova has made is taken over as it is, and what is wrong is told."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from portclaim.cli.main import main
from portclaim.cli.nova.cell import read_cell
from portclaim.cli.nova.known import AWAITED
from portclaim.common.errors import ClaimRefused, HostIsAlive
from portclaim.common.rpc.agent_messages import DeviceReport
from portclaim.common.rpc.claim_messages import Claim, Device, DeviceFilter
from portclaim.common.rpc.operator_messages import ClaimFilter, HostFilter
from tests.nova import cell
from tests.support import postgresql
from tests.support.engines import skip_without
from tests.support.fleet import Fleet
from tests.support.services import as_ini

Import = Callable[..., dict[str, Any]]
ACCELERATOR = "0000:03:00.0"
PORTS = ("0000:01:00.0", "0000:02:00.0")
BOTH = {"0000:01:00.0": "VFs of it too: 0000:01:10.6", "0000:01:10.6": "its PF too: 0000:01:00.0"}
TABLES = (
    "compute_nodes",
    "pools",
    "pci_devices",
    "claims",
    "claim_devices",
    "claim_events",
    "device_events",
    "audit_events",
)


@pytest.fixture
def nova_url(empty_database_url: str) -> str:
    """The URL of a cell's database, as Nova has made it; see ``tests/nova/make_cell.py``."""
    cell.load(empty_database_url)
    return empty_database_url


@pytest.fixture
def run(fleet: Fleet, database_url: str, nova_url: str, tmp_path: Path) -> Callable[..., Result]:
    """Runs ``portclaim import nova`` with these options."""
    file = tmp_path / "portclaim.conf"
    file.write_text(as_ini({"database": {"connection": database_url}}))

    def run(*options: str, url: str = nova_url) -> Result:
        command = ["--config-file", str(file), "import", "nova", "--database", url, *options]
        return CliRunner().invoke(main, command)

    return run


@pytest.fixture
def import_(run: Callable[..., Result]) -> Import:
    """Imports the cell, or shows what that would do; answers what it says in JSON."""

    def import_(*options: str) -> dict[str, Any]:
        result = run("--output", "json", *options)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    return import_


def shape(reported: list[str] | None = None, **facts: Any) -> list[DeviceReport]:
    """What the agent of a host of the cell reports: two ports of four VFs, and an accelerator."""
    devices = []
    for bus, port in enumerate(PORTS, 1):
        about = {"vendor_id": "8086", "numa_node": 0} | facts
        devices.append(DeviceReport(address=port, dev_type="type-PF", product_id="1572", **about))
        devices += [
            DeviceReport(
                address=f"0000:{bus:02x}:10.{2 * number}",
                dev_type="type-VF",
                product_id="154c",
                parent_address=port,
                **about,
            )
            for number in range(4)
        ]
    gpu = {"address": ACCELERATOR, "dev_type": "type-PCI", "vendor_id": "10de", "product_id": "20b5"}
    devices.append(DeviceReport.model_validate(gpu))
    return [device for device in devices if reported is None or device.address in reported]


def without_vfs_of(port: str) -> list[DeviceReport]:
    """The same while a guest has this port whole."""
    return [device for device in shape() if device.parent_address != port]


def rows(fleet: Fleet) -> dict[str, list[Any]]:
    """Everything that an import may have written."""
    with fleet.engine.connect() as connection:
        return {
            name: [
                tuple(row) for row in connection.execute(sa.text(f"SELECT t::text FROM {name} t ORDER BY 1"))
            ]
            for name in TABLES
        }


def listed(fleet: Fleet, host: str) -> list[Device]:
    return fleet.scheduler.devices(DeviceFilter(host=host)).devices


def devices_of(fleet: Fleet, host: str) -> dict[str, tuple[str, str | None]]:
    return {device.address: (device.effective_status, device.reason) for device in listed(fleet, host)}


def claim_of(fleet: Fleet, host: str, instance: str) -> Claim:
    asked = ClaimFilter(host=host, instance_id=cell.instance_id(instance))
    [found] = fleet.scheduler.claims(asked).claims
    return fleet.scheduler.show(found.claim_id)


def addresses(claim: Claim) -> list[str]:
    return sorted(device.address for device in claim.devices)


def change(nova_url: str, statement: str, **facts: Any) -> None:
    """Something happens in Nova."""
    engine = sa.create_engine(nova_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        assert connection.execute(sa.text(statement), facts).rowcount > 0


class TestDryRun:
    def test_it_says_what_would_be_made_and_makes_nothing(
        self, run: Callable[..., Result], fleet: Fleet
    ) -> None:
        before = rows(fleet)
        shown = run("--dry-run")
        assert shown.exit_code == 0
        assert "4 hosts, 43 devices, 6 claims would be made; 3 differences" in shown.stdout
        assert rows(fleet) == before

    def test_its_json_is_that_of_the_import_without_ids_of_claims(self, import_: Import) -> None:
        would = import_("--dry-run")
        assert would.pop("dry_run")
        did = import_()
        assert not did.pop("dry_run")
        for claim in (claim for host in did["hosts"] for claim in host["new_claims"]):
            assert UUID(claim["claim_id"])
            claim["claim_id"] = None
        assert would == did
        assert [host["host"] for host in did["hosts"]] == ["node-1", "node-2", "node-3", "node-4"]


class TestClaims:
    @pytest.mark.parametrize(
        ("host", "instance", "held"),
        [
            ("node-1", "web", ["0000:01:10.4", "0000:01:10.6"]),
            ("node-1", "port", ["0000:01:10.2"]),
            ("node-1", "whole", ["0000:02:00.0"]),
            ("node-1", "starting", [ACCELERATOR]),
            ("node-2", "mixed", ["0000:01:10.4", "0000:01:10.6"]),
        ],
    )
    def test_what_nova_has_allocated_or_claimed_is_allocated_to_the_same_instance(
        self, import_: Import, fleet: Fleet, host: str, instance: str, held: list[str]
    ) -> None:
        import_()
        claim = claim_of(fleet, host, instance)
        assert (claim.status, claim.host, addresses(claim)) == ("allocated", host, held)
        assert claim.instance_id == cell.instance_id(instance)
        assert {device.status for device in claim.devices} == {"allocated"}

    def test_each_device_is_for_the_request_that_nova_took_it_for(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        claim = claim_of(fleet, "node-2", "mixed")
        asked = {device.address: device.request_index for device in claim.devices}
        assert asked == {"0000:01:10.6": 0, "0000:01:10.4": 1}
        tags = {device.address: device.tags for device in claim.devices}
        assert tags["0000:01:10.4"] == {"physical_network": "physnet1"}

    def test_no_agent_is_asked_to_do_anything(self, import_: Import, fleet: Fleet) -> None:
        import_()
        with fleet.engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM outbox")) == 0
        assert fleet.sent == []

    def test_the_history_says_where_a_claim_is_from(self, import_: Import, fleet: Fleet) -> None:
        import_()
        with fleet.engine.connect() as connection:
            causes = connection.scalars(sa.text("SELECT DISTINCT cause FROM claim_events")).all()
        assert causes == ["import from Nova"]

    def test_an_imported_claim_can_move_to_another_host(self, import_: Import, fleet: Fleet) -> None:
        """It asks there for what Nova was asked for."""
        import_()
        fleet.host_of("node-1", without_vfs_of(PORTS[1]))
        fleet.host_of("node-9", shape(tags={"physical_network": "physnet1"}))
        move = fleet.move(claim_of(fleet, "node-1", "port"))
        target = fleet.show(move.target)
        assert target.host == "node-9"
        assert [device.dev_type for device in target.devices] == ["type-VF"]


class TestFreeDevices:
    def test_they_are_not_given_out_before_the_agent_of_their_host_reports(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        assert devices_of(fleet, "node-4") == dict.fromkeys(
            [device.address for device in shape()], ("unavailable", AWAITED)
        )
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", hosts=["node-4"])
        fleet.host_of("node-4", shape())
        assert fleet.claim("nic-vf:1", hosts=["node-4"]).host == "node-4"

    def test_a_pf_that_nova_does_not_hand_out_is_there_for_its_vfs_and_not_offered(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        status, reason = devices_of(fleet, "node-2")[PORTS[0]]
        assert (status, reason) == ("unavailable", "no device_spec entry of its host matches it")

    def test_that_pf_has_its_product_id_when_its_agent_has_reported_and_no_vf_is_held(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        node = fleet.host_of("node-2", shape())
        for port in PORTS:
            node.change(port, offered=False)
        node.report()
        assert addresses(fleet.claim("nic-vf:2", hosts=["node-2"])) == ["0000:01:10.0", "0000:01:10.2"]
        [port] = [each for each in listed(fleet, "node-2") if each.address == PORTS[1]]
        assert port.product_id == "1572"
        [port] = [each for each in listed(fleet, "node-2") if each.address == PORTS[0]]
        assert port.product_id == "0000"
        for claim in fleet.scheduler.claims(ClaimFilter(host="node-2")).claims:
            fleet.leave(fleet.scheduler.show(claim.claim_id))
        node.report()
        [port] = [each for each in listed(fleet, "node-2") if each.address == PORTS[0]]
        assert port.product_id == "1572"

    def test_a_host_says_that_its_agent_has_never_reported(self, import_: Import, fleet: Fleet) -> None:
        import_()
        hosts = fleet.scheduler.hosts(HostFilter(host="node-1")).hosts
        assert [host.is_silent for host in hosts] == [True]


class TestDifferences:
    def test_a_pf_and_a_vf_of_it_that_are_both_in_use(self, import_: Import, fleet: Fleet) -> None:
        told = {each["address"]: each for each in import_()["differences"] if each["host"] == "node-3"}
        for address, what in BOTH.items():
            assert what in told[address]["reason"]
            status, reason = devices_of(fleet, "node-3")[address]
            assert status == "unavailable"
            assert what in str(reason)
        assert told["0000:01:10.6"]["instance_id"] == str(cell.instance_id("vf-of-both"))

    def test_a_device_whose_request_is_unknown(self, import_: Import, fleet: Fleet) -> None:
        [told] = [each for each in import_()["differences"] if each["address"] == PORTS[1]]
        assert told["host"] == "node-3"
        assert "unknown request" in told["reason"]
        status, reason = devices_of(fleet, "node-3")[PORTS[1]]
        assert status == "unavailable"
        assert "unknown request" in str(reason)

    def test_the_other_devices_of_these_instances_are_imported(self, import_: Import, fleet: Fleet) -> None:
        import_()
        assert addresses(claim_of(fleet, "node-3", "pf-of-both")) == [ACCELERATOR]

    def test_they_stay_unavailable_when_the_agent_reports_them_as_usable(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        fleet.host_of("node-3", shape())
        for address in (*BOTH, PORTS[1]):
            status, reason = devices_of(fleet, "node-3")[address]
            assert status == "unavailable"
            assert f"import from Nova: {address if address in PORTS else PORTS[0]}" in str(reason)

    def test_an_operator_puts_them_into_use_when_he_has_looked(self, import_: Import, fleet: Fleet) -> None:
        import_()
        fleet.host_of("node-3", shape())
        fleet.scheduler.undrain("node-3", PORTS[0])
        assert devices_of(fleet, "node-3")[PORTS[0]] == ("available", None)

    def test_an_instance_that_nova_has_deleted(self, import_: Import, fleet: Fleet, nova_url: str) -> None:
        gone = str(cell.instance_id("whole"))
        change(nova_url, "UPDATE instances SET deleted = id WHERE uuid = :gone", gone=gone)
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        assert told["instance_id"] == gone
        assert told["reason"] == "its instance is not in Nova any more"
        assert devices_of(fleet, "node-1")[PORTS[1]][0] == "unavailable"

    def test_a_device_that_the_host_does_not_show(self, import_: Import, fleet: Fleet) -> None:
        """The agent has reported before the import."""
        fleet.host_of("node-1", [device for device in shape() if device.address != ACCELERATOR])
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        assert (told["address"], told["reason"]) == (ACCELERATOR, "its host does not show it")
        assert told["instance_id"] == str(cell.instance_id("starting"))
        status, reason = devices_of(fleet, "node-1")[ACCELERATOR]
        assert status == "unavailable"
        assert "its host does not show it" in str(reason)

    def test_a_device_of_a_claim_that_the_host_does_not_show_when_its_agent_comes(
        self, import_: Import, fleet: Fleet
    ) -> None:
        import_()
        fleet.host_of("node-1", [each for each in without_vfs_of(PORTS[1]) if each.address != ACCELERATOR])
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        assert told["address"] == ACCELERATOR
        assert "its host does not show it" in told["reason"]
        assert claim_of(fleet, "node-1", "starting").status == "allocated"

    @pytest.mark.parametrize(
        ("set_", "note"),
        [
            ("vm_state = 'suspended'", "the instance is suspended"),
            ("task_state = 'migrating'", "Nova is changing the instance (migrating)"),
            ("host = 'node-4'", "the instance is on host node-4"),
        ],
    )
    def test_an_instance_to_look_at_first_is_noted_and_imported(
        self, import_: Import, fleet: Fleet, nova_url: str, set_: str, note: str
    ) -> None:
        change(nova_url, f"UPDATE instances SET {set_} WHERE uuid = :id", id=str(cell.instance_id("web")))
        [told] = import_()["notes"]
        assert told["reason"].startswith(note)
        assert told["instance_id"] == str(cell.instance_id("web"))
        assert claim_of(fleet, "node-1", "web").status == "allocated"


class TestAgain:
    def test_a_second_run_changes_nothing_and_tells_the_same_differences(
        self, run: Callable[..., Result], import_: Import, fleet: Fleet
    ) -> None:
        first = import_()
        after = rows(fleet)
        assert import_()["differences"] == first["differences"]
        assert run().stdout.splitlines()[-1] == "nothing to do; 3 differences"
        assert rows(fleet) == after

    def test_a_run_after_a_failure_does_what_is_left(self, run: Callable[..., Result], fleet: Fleet) -> None:
        with fleet.engine.begin() as connection:
            connection.execute(
                sa.text("""
                    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE disk_full USING MESSAGE = 'no space left'; END $$;
                    CREATE TRIGGER fail BEFORE INSERT ON compute_nodes
                       FOR EACH ROW WHEN (NEW.host = 'node-3') EXECUTE FUNCTION fail()
                """)
            )
        failed = run()
        assert failed.exit_code == 1
        assert "2 of 4 hosts are done" in failed.stderr
        assert "no space left" in failed.stderr
        assert devices_of(fleet, "node-3") == {}
        with fleet.engine.begin() as connection:
            connection.execute(sa.text("DROP TRIGGER fail ON compute_nodes"))
        assert "2 hosts, 22 devices, 1 claim made" in run().stdout
        assert "nothing to do" in run().stdout

    def test_each_imported_host_is_recorded_with_who_and_why(
        self, run: Callable[..., Result], fleet: Fleet
    ) -> None:
        recorded = "SELECT action, object, who, reason FROM audit ORDER BY at, object"
        run("--host", "node-1", "--dry-run")
        assert fleet.sql(recorded) == []
        run("--host", "node-1", "--who", "ann", "--reason", "the cell moves")
        assert fleet.sql(recorded) == [("import-host", "node-1", "ann", "the cell moves")]
        run("--who", "bob")
        imported = [row[1:3] for row in fleet.sql(recorded)]
        assert imported == [("node-1", "ann"), ("node-2", "bob"), ("node-3", "bob"), ("node-4", "bob")]

    def test_one_host_after_the_other(self, run: Callable[..., Result], fleet: Fleet) -> None:
        assert "1 host, 11 devices, 4 claims made" in run("--host", "node-1").stdout
        assert devices_of(fleet, "node-2") == {}
        assert "3 hosts, 32 devices, 2 claims made" in run().stdout

    def test_what_nova_gives_away_before_the_agent_comes_is_imported_too(
        self, import_: Import, fleet: Fleet, nova_url: str
    ) -> None:
        import_()
        change(
            nova_url,
            """
            UPDATE pci_devices d SET status = 'allocated', instance_uuid = port.instance_uuid,
                                     request_id = port.request_id
              FROM pci_devices port JOIN compute_nodes n ON n.id = port.compute_node_id
             WHERE n.host = 'node-1' AND port.address = '0000:01:10.2'
               AND d.compute_node_id = n.id AND d.address = '0000:01:10.0'
            """,
        )
        import_()
        assert addresses(claim_of(fleet, "node-1", "port")) == ["0000:01:10.0", "0000:01:10.2"]

    def test_what_nova_frees_before_the_agent_comes_is_told(
        self, import_: Import, fleet: Fleet, nova_url: str
    ) -> None:
        import_()
        free = "UPDATE pci_devices SET status = 'available', instance_uuid = NULL WHERE instance_uuid = :id"
        change(nova_url, free, id=str(cell.instance_id("port")))
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        claim = claim_of(fleet, "node-1", "port")
        assert told["reason"].endswith(f"portclaim release --force {claim.claim_id}")
        assert fleet.force(claim).status == "released"
        assert [each for each in import_()["differences"] if each["host"] == "node-1"] == []


class TestWhenTheAgentHasCome:
    @pytest.fixture
    def node(self, import_: Import, fleet: Fleet) -> Any:
        """A host that was imported and whose agent reports."""
        import_()
        return fleet.host_of("node-1", without_vfs_of(PORTS[1]))

    @pytest.mark.usefixtures("node")
    def test_claims_stay_allocated_and_the_rest_is_given_out(self, fleet: Fleet) -> None:
        assert {claim_of(fleet, "node-1", name).status for name in ("web", "port", "whole", "starting")} == {
            "allocated"
        }
        assert devices_of(fleet, "node-1")["0000:01:10.0"] == ("available", None)
        assert addresses(fleet.claim("nic-vf:1", hosts=["node-1"])) == ["0000:01:10.0"]
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1", hosts=["node-1"])

    def test_it_is_told_to_hold_what_its_guests_have(self, node: Any) -> None:
        held = {device.address for holding in node.holdings() for device in holding.devices}
        assert held == {"0000:01:10.2", "0000:01:10.4", "0000:01:10.6", PORTS[1], ACCELERATOR}
        assert {(holding.status, holding.awaited) for holding in node.holdings()} == {("allocated", None)}

    def test_a_release_takes_effect(self, node: Any, fleet: Fleet) -> None:
        fleet.leave(claim_of(fleet, "node-1", "whole"))
        node.devices = {device.address: device for device in shape()}
        node.report()
        assert devices_of(fleet, "node-1")[PORTS[1]] == ("available", None)
        with pytest.raises(HostIsAlive):
            fleet.force(claim_of(fleet, "node-1", "web"))

    @pytest.mark.usefixtures("node")
    def test_a_claim_that_was_released_is_not_made_again(self, import_: Import, fleet: Fleet) -> None:
        """Nova's database still says that the instance has the device."""
        fleet.leave(claim_of(fleet, "node-1", "port"))
        before = rows(fleet)
        import_()
        assert rows(fleet) == before
        with fleet.engine.begin() as connection:  # nor when its history is pruned
            for table in ("claim_events", "claim_devices"):
                connection.execute(
                    sa.text(f"DELETE FROM {table} WHERE claim_id IN (SELECT id FROM claims WHERE NOT live)")
                )
            connection.execute(sa.text("DELETE FROM claims WHERE NOT live"))
        before = rows(fleet)
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        assert told["reason"].endswith("not taken over")
        assert rows(fleet) == before


class TestBackAndAgain:
    """Nova gets its hosts back, and they are taken over once more."""

    def test_a_host_that_was_removed_is_imported_as_new(
        self, import_: Import, fleet: Fleet, run: Callable[..., Result]
    ) -> None:
        import_()
        node = fleet.host_of("node-1", without_vfs_of(PORTS[1]))
        first = claim_of(fleet, "node-1", "web")
        fleet.falls_silent("node-1")
        fleet.scheduler.remove_host("node-1", "ann", "back to Nova", force=True)
        assert fleet.show(first).status == "released"
        assert "0 hosts" not in run("--host", "node-1").stdout
        again = fleet.scheduler.claims(ClaimFilter(host="node-1", statuses=["allocated"])).claims
        assert len(again) == 4
        assert first.claim_id not in {claim.claim_id for claim in again}
        assert "nothing to do" in run("--host", "node-1").stdout
        fleet.scheduler.undrain("node-1")
        node.report()
        assert devices_of(fleet, "node-1")["0000:01:10.0"] == ("available", None)
        assert {holding.status for holding in node.holdings()} == {"allocated"}


class TestWhenTheAgentCameFirst:
    def test_devices_that_it_sees_in_guests_get_their_claims(self, import_: Import, fleet: Fleet) -> None:
        node = fleet.host_of("node-1", without_vfs_of(PORTS[1]))
        for address in (PORTS[1], "0000:01:10.4"):
            node.change(address, unusable_reason="in instance x, not attached by Portclaim")
        node.report()
        import_()
        assert addresses(claim_of(fleet, "node-1", "whole")) == [PORTS[1]]
        assert addresses(claim_of(fleet, "node-1", "web")) == ["0000:01:10.4", "0000:01:10.6"]
        assert devices_of(fleet, "node-1")["0000:01:10.0"] == ("available", None)
        before = rows(fleet)
        import_()
        assert rows(fleet) == before

    def test_a_device_that_portclaim_has_given_to_another_instance_stays_there(
        self, import_: Import, fleet: Fleet
    ) -> None:
        fleet.host_of("node-1", without_vfs_of(PORTS[1]))
        claim = fleet.claim("nic-vf:4")
        told = {
            each["address"]: each["reason"] for each in import_()["differences"] if each["host"] == "node-1"
        }
        assert told == dict.fromkeys(
            ("0000:01:10.2", "0000:01:10.4", "0000:01:10.6"), f"claim {claim.claim_id} holds it"
        )
        assert fleet.show(claim).status == "claimed"

    def test_a_device_of_another_kind_than_nova_says(self, import_: Import, fleet: Fleet) -> None:
        node = fleet.host_of("node-1", without_vfs_of(PORTS[1]))
        node.change(ACCELERATOR, product_id="1eb8")
        node.report()
        [told] = [each for each in import_()["differences"] if each["host"] == "node-1"]
        assert told["reason"] == "its host shows a type-PCI 10de 1eb8, Nova says type-PCI 10de 20b5"


class TestErrors:
    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("sqlite://", "--database is sqlite: Nova's database is postgresql or mysql"),
            ("nova", "--database is no URL"),
            ("postgresql://nova@127.0.0.1:1/nova", "Nova's database cannot be read"),
            ("mysql://nova@127.0.0.1:1/nova", "Nova's database cannot be read"),
        ],
    )
    def test_a_database_that_cannot_be_read(self, run: Callable[..., Result], url: str, said: str) -> None:
        failed = run(url=url)
        assert (failed.exit_code, failed.stdout) == (1, "")
        assert said in failed.stderr

    def test_a_database_that_is_no_cell(self, run: Callable[..., Result], database_url: str) -> None:
        failed = run(url=database_url)
        assert failed.exit_code == 1
        assert "--database is not the database of a Nova cell" in failed.stderr

    def test_a_host_that_nova_does_not_have(self, run: Callable[..., Result]) -> None:
        failed = run("--host", "node-1", "--host", "node-5")
        assert failed.exit_code == 1
        assert "Nova has no compute node of host node-5" in failed.stderr

    def test_a_portclaim_database_without_a_schema(
        self, run: Callable[..., Result], tmp_path: Path, nova_url: str
    ) -> None:
        (tmp_path / "portclaim.conf").write_text(as_ini({"database": {"connection": nova_url}}))
        failed = run()
        assert failed.exit_code == 1
        assert "run `portclaim db upgrade`" in failed.stderr


@pytest.fixture
def new_cell_url() -> Iterator[str]:
    """An empty database for Nova."""
    url = postgresql.create_database(template="template0")
    yield url
    postgresql.drop_database(url)


@pytest.mark.timeout(300)
def test_the_file_with_the_cell_is_what_nova_makes(new_cell_url: str, nova_url: str) -> None:
    """Nova's own migrations, and Nova's own objects."""
    if not cell.PEERS.exists():
        skip_without("Nova, in the environment of requirements-peers.txt", "make .venv/peers/ready")
    cell.make(new_cell_url)
    made, loaded = read_cell(new_cell_url), read_cell(nova_url)
    for host in {*made.hosts, *loaded.hosts}:
        key = lambda device: device.address  # noqa: E731
        assert sorted(made.hosts[host], key=key) == sorted(loaded.hosts[host], key=key)
    assert made.instances == loaded.instances
