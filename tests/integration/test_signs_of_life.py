"""Signs of life of agents: they are noted without an answer, and those that do not fit lead to a report."""

import socket
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import kombu
import pytest
import sqlalchemy as sa
from oslo_messaging.rpc.server import RPCServer

from portclaim.common import config
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events import broker
from portclaim.common.rpc.agent_messages import SignOfLife
from portclaim.common.rpc.collector import Collector, Reader, collector
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import SIGNS_OF_LIFE
from portclaim.common.rpc.endpoint import Endpoint, exposed, finish, server
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.transport import transport
from portclaim.common.trust.refusals import REFUSALS
from portclaim.services.conductor.signs_of_life import SignsOfLife
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet, Host, vf
from tests.support.services import Services


class Agents:
    """Stands for the client of the agents. ``asked``: the hosts that were asked for a report."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._host = ""

    def at(self, host: str) -> "Agents":
        self._host = host
        return self

    def report(self) -> None:
        self.asked.append(self._host)
        if self._host == "unreachable":
            raise ServiceUnavailable("the bus is down")


@pytest.fixture
def agents() -> Agents:
    return Agents()


@pytest.fixture
def signs(fleet: Fleet, agents: Agents) -> SignsOfLife:
    return SignsOfLife(fleet.engine, agents)  # type: ignore[arg-type]  # is like a client


def sign_of(host: Host, *, digest: str | None = None, agent_id: UUID | None = None) -> SignOfLife:
    return SignOfLife(
        host=host.name, agent_id=agent_id or host.agent_id, digest=digest or host.inventory.digest
    )


def silent_hosts(fleet: Fleet) -> list[str]:
    return [
        host
        for (host,) in fleet.sql(
            "SELECT host FROM compute_nodes WHERE last_seen < now() - interval '1 minute' ORDER BY host"
        )
    ]


class TestRecording:
    @pytest.fixture
    def hosts(self, fleet: Fleet) -> list[Host]:
        """Three hosts that were not seen for an hour."""
        hosts = [fleet.host(f"h{number}", vfs=1) for number in range(3)]
        for host in hosts:
            fleet.falls_silent(host.name)
        return hosts

    def test_hosts_that_show_life_are_alive(
        self, fleet: Fleet, signs: SignsOfLife, agents: Agents, hosts: list[Host]
    ) -> None:
        for host in hosts[:2]:
            signs.note(sign_of(host))
        signs.record()
        assert silent_hosts(fleet) == ["h2"]
        assert agents.asked == []

    def test_nothing_else_is_written(self, fleet: Fleet, signs: SignsOfLife, hosts: list[Host]) -> None:
        before = fleet.contents()
        signs.note(sign_of(hosts[0]))
        signs.record()
        after = fleet.contents()
        assert {name for name, rows in after.items() if rows != before[name]} == {"compute_nodes"}

    def test_without_signs_nothing_is_written(
        self, fleet: Fleet, signs: SignsOfLife, hosts: list[Host]
    ) -> None:
        signs.note(sign_of(hosts[0]))
        signs.record()
        before = fleet.contents()
        signs.record()
        assert fleet.contents() == before

    def test_an_agent_is_asked_for_a_report_if_its_sign_does_not_fit(
        self, fleet: Fleet, signs: SignsOfLife, agents: Agents, hosts: list[Host]
    ) -> None:
        signs.note(sign_of(hosts[0], digest="of another inventory"))
        signs.note(sign_of(hosts[1], agent_id=uuid4()))
        signs.note(SignOfLife(host="new", agent_id=uuid4(), digest="any"))
        fleet.sql("UPDATE compute_nodes SET inventory_digest = NULL WHERE host = 'h2'")
        signs.note(sign_of(hosts[2]))
        signs.record()
        assert agents.asked == ["h0", "h1", "new", "h2"]
        assert silent_hosts(fleet) == ["h0", "h1", "h2"]

    def test_an_agent_that_cannot_be_asked_does_not_keep_the_others_from_it(
        self, signs: SignsOfLife, agents: Agents
    ) -> None:
        for host in ("unreachable", "new"):
            signs.note(SignOfLife(host=host, agent_id=uuid4(), digest="any"))
        signs.record()
        assert agents.asked == ["unreachable", "new"]

    def test_a_host_that_is_locked_is_not_waited_for(
        self, fleet: Fleet, signs: SignsOfLife, agents: Agents, hosts: list[Host]
    ) -> None:
        for host in hosts:
            signs.note(sign_of(host))
        with fleet.engine.connect() as report:
            report.execute(sa.text("SELECT FROM compute_nodes WHERE host = 'h1' FOR UPDATE"))
            signs.record()
            report.rollback()
        assert silent_hosts(fleet) == ["h1"]
        assert agents.asked == []


class Host1(Endpoint):
    """The endpoint of an agent. ``asked``: how often it was asked for a report."""

    def __init__(self) -> None:
        self.asked = 0

    @exposed(Nothing)
    def report(self, _nothing: Nothing) -> None:
        self.asked += 1


class TestOverTheBus:
    @pytest.fixture
    def start(self) -> Iterator[Callable[[RPCServer | Collector], None]]:
        """Starts a server, and stops it after the test."""
        started: list[RPCServer | Collector] = []

        def begin(serving: RPCServer | Collector) -> None:
            serving.start()
            started.append(serving)

        yield begin
        for serving in started:
            finish(serving)

    def test_a_sign_of_life_reaches_the_database(
        self, fleet: Fleet, bus: Bus, service_process: Services
    ) -> None:
        host = fleet.host("h1", vfs=2)
        fleet.falls_silent("h1")
        service_process("conductor")

        def is_recorded() -> bool:
            """A sign is left out while the conductor counts the host. An agent shows life again."""
            bus.conductor.show_life(sign_of(host))
            return silent_hosts(fleet) == []

        wait_until(is_recorded, "the conductor has recorded it")

    def test_the_agent_is_asked_for_a_report(
        self,
        fleet: Fleet,
        bus: Bus,
        service_process: Services,
        start: Callable[[RPCServer | Collector], None],
    ) -> None:
        host, agent = fleet.host("h1", vfs=2), Host1()
        conf = config.load(["--config-file", str(bus.config_file)], "test")
        start(server(transport(conf), ComputeAgentClient.topic, "h1", agent))
        service_process("conductor")
        host.change(vf(0, 1), numa_node=1)
        bus.conductor.show_life(sign_of(host))
        wait_until(lambda: agent.asked == 1, "the conductor has asked")

    def test_a_caller_learns_that_no_conductor_takes_signs_of_life(self, fleet: Fleet, bus: Bus) -> None:
        """As long as all conductors are of release 0.2.0."""
        with pytest.raises(ServiceUnavailable):
            bus.conductor.show_life(sign_of(fleet.host("h1")))

    def test_a_malformed_sign_is_logged_and_the_next_one_is_noted(
        self,
        fleet: Fleet,
        bus: Bus,
        start: Callable[[RPCServer | Collector], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        noted: list[SignOfLife] = []
        conf = config.load(["--config-file", str(bus.config_file)], "test")
        start(collector(transport(conf), conf, SIGNS_OF_LIFE, Reader(SignOfLife, noted.append)))
        before = REFUSALS.counts().get((SIGNS_OF_LIFE, "bad-envelope"), 0)
        good = sign_of(fleet.host("h1"))
        bus.conductor._cast("show_life", good.model_copy(update={"host": "no host"}), queue=SIGNS_OF_LIFE)
        bus.conductor._cast("anything", Nothing(), queue=SIGNS_OF_LIFE)
        with broker.connection(conf, heartbeat=False) as connection:
            for body in (b"no JSON", b"[]", b'{"oslo.version": "9.0", "oslo.message": "{}"}'):
                kombu.Producer(connection).publish(body, routing_key=SIGNS_OF_LIFE)
        bus.conductor.show_life(good)
        wait_until(lambda: noted, "a sign is noted")
        assert noted == [good]
        assert "refused a message for show_life" in caplog.text
        assert caplog.text.count("bad-envelope") == 1
        assert REFUSALS.counts()[SIGNS_OF_LIFE, "bad-envelope"] == before + 3

    def test_signs_are_noted_again_after_the_connection_was_lost(
        self, fleet: Fleet, bus: Bus, start: Callable[[RPCServer | Collector], None]
    ) -> None:
        noted: list[SignOfLife] = []
        conf = config.load(["--config-file", str(bus.config_file)], "test")
        collecting = collector(transport(conf), conf, SIGNS_OF_LIFE, Reader(SignOfLife, noted.append))
        start(collecting)
        collecting._connection._connection.transport.sock.shutdown(socket.SHUT_RDWR)
        bus.conductor.show_life(sign_of(fleet.host("h1")))
        wait_until(lambda: noted, "the sign is noted")
