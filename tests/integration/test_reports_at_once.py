"""Agents that report at the same time, or for the same host."""

from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import HostOwnedByAnotherAgent, UnknownHost
from tests.support.concurrency import at_once, meanwhile, wait_until_blocked
from tests.support.fleet import Fleet, Host, pf, port_devices, vf
from tests.support.looking import all_are, present


class TestOneAgentPerHost:
    def test_another_agent_is_refused_while_the_first_lives(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        before = fleet.contents()
        for impostor in (Host(fleet, "h1", {}), Host(fleet, "h1", host.devices)):
            for attempt in (impostor.report, impostor.sign_of_life, impostor.holdings):
                with pytest.raises(HostOwnedByAnotherAgent, match="h1"):
                    attempt()
        assert fleet.contents() == before

    def test_another_agent_takes_over_when_the_first_is_silent(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        fleet.sql("UPDATE compute_nodes SET last_seen = now() - interval '61 s'")
        heir = Host(fleet, "h1", dict(host.devices))
        heir.report()
        assert fleet.sql("SELECT agent_id FROM compute_nodes") == [(heir.agent_id,)]
        with pytest.raises(HostOwnedByAnotherAgent):
            host.report()

    def test_a_host_that_never_reported_is_unknown(self, fleet: Fleet) -> None:
        with pytest.raises(UnknownHost, match="h9"):
            fleet.conductor.holdings("h9", uuid4())

    def test_of_two_new_agents_at_once_one_gets_the_host(self, fleet: Fleet) -> None:
        agents = [Host(fleet, "h1", {d.address: d for d in port_devices(0, vfs=8)}) for _ in range(8)]
        answers = at_once([agent.report for agent in agents])
        refused = [answer for answer in answers if isinstance(answer, HostOwnedByAnotherAgent)]
        assert len(refused) == 7, answers
        assert len(fleet.status("h1")) == 9


class TestAtOnce:
    def test_two_equal_concurrent_reports_count_once(self, fleet: Fleet) -> None:
        host = Host(fleet, "h1", {d.address: d for d in port_devices(0, vfs=32)})
        answers = at_once([host.report] * 8)
        assert [answer.resend for answer in answers] == [False] * 8
        assert fleet.status("h1") == all_are("available", *host.devices)

    def test_of_two_different_concurrent_reports_one_applies_completely(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        fewer = Host(fleet, "h1", {d.address: d for d in port_devices(0, vfs=1)}, host.agent_id)
        more = Host(fleet, "h1", {d.address: d for d in port_devices(0, vfs=8)}, host.agent_id)
        for _ in range(5):
            assert at_once([fewer.report, more.report, fewer.report, more.report])
            [(digest,)] = fleet.sql("SELECT inventory_digest FROM compute_nodes")
            last = fewer if digest == fewer.inventory.digest else more
            assert present(fleet) == set(last.devices)

    def test_concurrent_reports_of_many_hosts_can_create_the_same_pools(self, fleet: Fleet) -> None:
        devices = {
            d.address: d
            for port in range(8)
            for d in port_devices(port, vfs=2, tags={"physical_network": f"net{port}"})
        }
        # Each host lists them in another order: locking pools in that order would deadlock.
        hosts = [Host(fleet, f"h{n}", dict(sorted(devices.items(), reverse=n % 2 == 0))) for n in range(8)]
        answers = at_once([host.report for host in hosts])
        assert [answer.resend for answer in answers] == [False] * 8
        assert fleet.sql("SELECT count(*) FROM pools") == [(16,)]

    def test_a_report_waits_for_a_claim_on_the_same_port(self, fleet: Fleet) -> None:
        """The open transaction of the claim has locked the port. The report must see its result."""
        host = fleet.host("h1", vfs=1)
        claim = fleet.claim("nic-vf:1")
        with fleet.engine.connect() as connection:
            connection.execute(
                sa.text("SELECT FROM pci_devices WHERE address = :pf FOR UPDATE"), {"pf": pf(0)}
            )
            host.lose(vf(0, 0))
            report = meanwhile(host.report)
            wait_until_blocked(fleet.engine)
            connection.rollback()
        report.result()
        assert fleet.status("h1")[vf(0, 0)] == "claimed"
        assert fleet.show(claim).status == "claimed"


def test_a_large_host_takes_as_many_statements_as_a_small_one(fleet: Fleet) -> None:
    statements: list[str] = []

    @sa.event.listens_for(fleet.engine, "before_cursor_execute")
    def _count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    fleet.host("small", ports=1, vfs=1)
    small = len(statements)
    fleet.host("large", ports=8, vfs=64)
    assert len(statements) - small == small
    assert len(fleet.status("large")) == 8 * 65
