"""The database is restored to an earlier moment while agents hold devices of claims that it does not know."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from portclaim.cli.main import main
from portclaim.common.errors import ClaimConflict
from portclaim.common.rpc.recovery_messages import Recovery
from tests.support.concurrency import wait_until
from tests.support.invariants import violations
from tests.support.one_host import HOST, PF, OneHost, one_host
from tests.support.services import Services
from tests.support.standby import Node

POINT = "monday"


class Server:
    """A PostgreSQL that archives its log, with a base backup."""

    def __init__(self, directory: Path) -> None:
        self.node = Node(directory / "server")
        self._archive = directory / "archive"
        self._backup = directory / "backup"
        self._archive.mkdir(mode=0o777)
        self._archive.chmod(0o777)
        self.node.make()
        self.node.tell("ALTER SYSTEM SET archive_mode = 'on'")
        self.node.tell(f"ALTER SYSTEM SET archive_command = 'cp %p {self._archive}/%f'")
        self.node.stop()
        self.node.start()

    def back_up(self) -> None:
        address = ["-h", "127.0.0.1", "-p", str(self.node.port), "-U", "postgres"]
        self.node.run("pg_basebackup", *address, "-D", self.node.data.with_name("backup"), "-c", "fast")

    def name_this_moment(self) -> None:
        self.node.tell(f"SELECT pg_create_restore_point('{POINT}')")

    def restore(self) -> None:
        """Go back to the moment that was named, as docs/how-to/restore.md says."""
        self.node.tell("SELECT pg_switch_wal()")
        wait_until(
            lambda: self.node.ask("SELECT last_archived_wal IS NOT NULL FROM pg_stat_archiver") == [(True,)],
            "the log is archived",
        )
        self.node.kill()
        shutil.rmtree(self.node.data)
        self.node.data.with_name("backup").rename(self.node.data)
        (self.node.data / "recovery.signal").touch()
        self.node.start(
            f"--restore_command=cp {self._archive}/%f %p",
            f"--recovery_target_name={POINT}",
            "--recovery_target_action=promote",
        )


class Restored:
    """A host with three claims: one that the backup knows, and two that came after it."""

    def __init__(self, fleet: OneHost, server: Server) -> None:
        self.fleet = fleet
        self._agent = fleet.start_agent()
        fleet.wait_for_report()
        self.server = server
        self.known = self._allocated("vf:1")
        server.back_up()
        server.name_this_moment()
        self.lost = self._allocated("vf:1")
        self.unwanted = self._allocated("vf:1")
        self.devices = {
            claim.claim_id: claim.devices[0].address for claim in map(fleet.scheduler.show, self.all)
        }

    @property
    def all(self) -> list[UUID]:
        return [self.known, self.lost, self.unwanted]

    def cli(self, *arguments: str) -> Result:
        file = str(self.fleet.state.parent / "client.conf")
        return CliRunner().invoke(main, ["--config-file", file, "host", *arguments])

    def restart_agent(self) -> None:
        """It asks for its claims at the start, and otherwise every minute."""
        self._agent.stop()
        self._agent = self.fleet.start_agent()

    def _allocated(self, alias_spec: str) -> UUID:
        return self.fleet.wait_for(self.fleet.claim(alias_spec).claim_id, "allocated").claim_id


@pytest.fixture
def host(rabbit_url: str, tmp_path: Path) -> Iterator[Restored]:
    with TemporaryDirectory(prefix="portclaim-restore-") as directory:
        Path(directory).chmod(0o755)  # root's server runs as another user
        server = Server(Path(directory))
        services = Services(tmp_path, rabbit_url, server.node.url())
        with one_host(services, tmp_path) as fleet:
            yield Restored(fleet, server)
            with server.node.connected() as connection:
                assert violations(connection) == []
            services.end()
        server.node.stop()


def test_devices_of_lost_claims_go_to_nobody_until_an_operator_decides(host: Restored) -> None:
    fleet = host.fleet
    held = {host.devices[claim] for claim in host.all}
    host.server.restore()
    # The database takes all VFs but one for free, and the agent knows better.
    hasty = fleet.claim("vf:3")
    assert {device.address for device in hasty.devices} & held
    refused = fleet.wait_for(hasty.claim_id, "failed")
    assert "is already in instance" in (refused.reason or "")
    assert fleet.held() == held

    wait_until(lambda: len(fleet.agent.unknown_claims()) == 2, "the agent has asked for its claims")
    listed = host.cli("unknown-claims", HOST)
    assert listed.exit_code == 0, listed.output
    for claim in (host.lost, host.unwanted):
        assert f"{claim}" in listed.output
    wait_until(lambda: fleet.statuses()[host.devices[host.lost]] == "unavailable", "it is not offered")

    done = host.cli("recover", HOST, str(host.lost), "--reason", "restored Monday")
    assert (done.exit_code, done.output) == (0, f"{host.lost} is recovered\n")
    recovered = fleet.scheduler.show(host.lost)
    assert (recovered.status, recovered.host) == ("allocated", HOST)
    assert [device.address for device in recovered.devices] == [host.devices[host.lost]]

    assert str(host.lost) not in host.cli("unknown-claims", HOST).output
    unnamed = host.cli("recover", HOST, "--release", "--reason", "not wanted")
    assert "name each CLAIM_ID" in unnamed.output
    done = host.cli("recover", HOST, str(host.unwanted), "--release", "--reason", "not wanted")
    assert (done.exit_code, done.output) == (0, f"{host.unwanted} is recovered, and releasing\n")
    fleet.wait_for(host.unwanted, "released")
    assert fleet.held() == {host.devices[host.known], host.devices[host.lost]}

    for claim in (host.lost, host.known):
        fleet.scheduler.release(claim)
        fleet.wait_for(claim, "released")
    wait_until(lambda: fleet.statuses()[PF] == "available", "the whole port is free again")
    assert len([effect for effect in fleet.effects() if effect[0] == "attach"]) == len(host.all)


def test_a_claim_is_not_recovered_over_another(host: Restored) -> None:
    fleet = host.fleet
    host.server.restore()
    host.restart_agent()
    wait_until(lambda: len(fleet.agent.unknown_claims()) == 2, "the agent has asked for its claims")
    [lost] = [claim for claim in fleet.agent.unknown_claims() if claim.claim_id == host.lost]
    taken = lost.model_copy(update={"addresses": [host.devices[host.known]]})
    order = {"host": HOST, "who": "op", "reason": "restored"}
    with pytest.raises(ClaimConflict, match=f"is held by claim {host.known}"):
        fleet.scheduler.recover(Recovery(claim=taken, **order))
    with pytest.raises(ClaimConflict, match="is held by claim"):
        fleet.scheduler.recover(Recovery(claim=lost.model_copy(update={"addresses": [PF]}), **order))
    with pytest.raises(ClaimConflict, match="is known, so there is nothing to recover"):
        fleet.scheduler.recover(Recovery(claim=lost.model_copy(update={"claim_id": host.known}), **order))
    once, again = (fleet.scheduler.recover(Recovery(claim=lost, **order)) for _ in range(2))
    assert once == again
    assert host.cli("unknown-claims", "nowhere").exit_code == 1
