"""Candidates: which hosts could serve a claim, in which order, and page by page. To ask changes nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
from oslo_messaging import ExpectedException

from portclaim.common.errors import InvalidMessage, InvalidRequest
from portclaim.common.rpc.agent_messages import NumaCell
from portclaim.common.rpc.candidate_messages import Candidate, Candidates
from tests.support.fleet import CONNECTX5, Fleet, gpu, pf, port_devices, vf
from tests.support.interference import after_each_statement


def hosts(answer: Candidates) -> list[str]:
    return [candidate.host for candidate in answer.candidates]


def addresses(candidate: Candidate) -> list[str]:
    return [device.address for device in candidate.devices]


def pages(fleet: Fleet, alias: str, limit: int, **facts: Any) -> Iterator[list[str]]:
    """The hosts of each page, one call after the other."""
    answer = fleet.candidates(alias, limit=limit, **facts)
    yield hosts(answer)
    while answer.after is not None:
        answer = fleet.candidates(alias, limit=limit, after=answer.after, **facts)
        yield hosts(answer)


@pytest.fixture
def spreading_fleet(database_url: str) -> Iterator[Fleet]:
    fleet = Fleet(database_url, packing_policy="spread")
    yield fleet
    fleet.close()


class TestAnswer:
    def test_a_candidate_names_the_devices_that_a_claim_would_get(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 2, numa_node=1), gpu(1)])
        [candidate] = fleet.candidates("nic-vf:1,gpu:1").candidates
        assert candidate.host == "h1"
        assert [device.model_dump() for device in candidate.devices] == [
            {
                "address": vf(0, 0),
                "dev_type": "type-VF",
                "vendor_id": "8086",
                "product_id": "154c",
                "numa_node": 1,
                "parent_address": pf(0),
                "request_index": 0,
            },
            {
                "address": pf(1),
                "dev_type": "type-PCI",
                "vendor_id": "10de",
                "product_id": "1eb8",
                "numa_node": None,
                "parent_address": None,
                "request_index": 1,
            },
        ]

    @pytest.mark.parametrize(
        ("alias", "left"),
        [
            ("nic-vf:1", (1, 7, 0)),
            ("nic-vf:5", (0, 3, 0)),
            ("nic-pf:1", (1, 4, 0)),
            ("nic-pf:1,nic-vf:1", (0, 3, 0)),
            ("gpu:1", (0, 0, 1)),
            ("nic-vf:4,gpu:2", (1, 4, 0)),
        ],
    )
    def test_it_says_what_is_left_on_the_ports_that_fit(
        self, fleet: Fleet, alias: str, left: tuple[int, int, int]
    ) -> None:
        nics = [*port_devices(0, 4), *port_devices(1, 4)]
        fleet.host_of("h1", [*nics, *port_devices(2, 4, CONNECTX5), gpu(3), gpu(4)])
        [candidate] = fleet.candidates(alias).candidates
        assert (candidate.left.pfs, candidate.left.vfs, candidate.left.others) == left

    def test_nothing_is_reserved_and_nothing_is_written(self, fleet: Fleet) -> None:
        for number in range(3):
            fleet.host_of(f"h{number}", [*port_devices(0, 4), gpu(1)])
        before = fleet.contents()
        for alias in ("nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1", "nic-vf:5"):
            fleet.candidates(alias)
        assert fleet.contents() == before

    def test_a_locked_port_is_not_waited_for(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1)
        with fleet.engine.begin() as another:
            another.exec_driver_sql("SELECT FROM pci_devices FOR UPDATE")
            assert hosts(fleet.candidates("nic-vf:1")) == ["h1"]

    def test_without_any_such_device_there_is_no_candidate(self, fleet: Fleet) -> None:
        assert fleet.candidates("nic-vf:1") == Candidates(candidates=[], queued=0, after=None)
        fleet.host("h1", vfs=2)
        assert hosts(fleet.candidates("roce-vf:1")) == []
        assert hosts(fleet.candidates("nic-vf:3")) == []


class TestWhichHosts:
    def test_drained_and_silent_hosts_and_drained_ports_do_not_count(self, fleet: Fleet) -> None:
        for name in ("open", "drained", "silent", "port-drained"):
            fleet.host(name)
        fleet.scheduler.drain("drained", "new fan")
        fleet.scheduler.drain("port-drained", "new cable", pf(0))
        fleet.falls_silent("silent")
        for alias in ("nic-vf:1", "nic-pf:1", "nic-vf:1,nic-vf:1"):
            assert hosts(fleet.candidates(alias)) == ["open"]

    def test_a_port_that_is_reserved_for_a_waiting_claim_does_not_count(self, fleet: Fleet) -> None:
        fleet.host("h1", vfs=2)
        fleet.claim("nic-vf:1")
        fleet.claim("nic-pf:1", wait=300)
        fleet.serve()
        assert hosts(fleet.candidates("nic-vf:1")) == []

    def test_while_claims_with_the_same_requests_wait_there_is_no_candidate(self, fleet: Fleet) -> None:
        fleet.host("h1", vfs=1)
        holder = fleet.claim("nic-vf:1")
        fleet.claim("nic-vf:1", wait=300)
        fleet.leave(holder)  # it is not served yet
        assert fleet.candidates("nic-vf:1") == Candidates(candidates=[], queued=1, after=None)
        fleet.serve()
        assert fleet.candidates("nic-vf:1").queued == 0

    @pytest.mark.parametrize("alias", ["nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1", "nic-vf:5"])
    def test_hosts_and_avoid_hosts_limit_them(self, fleet: Fleet, alias: str) -> None:
        for number in range(4):
            fleet.host_of(f"h{number}", [*port_devices(0, 4), *port_devices(1, 4), gpu(2)])
        assert hosts(fleet.candidates(alias, ["h3", "h1", "elsewhere"])) == ["h1", "h3"]
        assert hosts(fleet.candidates(alias, ["h3", "h1"], avoid_hosts=["h1"])) == ["h3"]
        assert hosts(fleet.candidates(alias, avoid_hosts=["h0", "h2"])) == ["h1", "h3"]
        assert hosts(fleet.candidates(alias, ["elsewhere"])) == []

    @pytest.mark.parametrize("alias", ["nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1", "nic-vf:5"])
    def test_thousands_of_names_are_one_list(self, fleet: Fleet, alias: str) -> None:
        for number in range(30):
            fleet.host_of(f"h{number:02}", [*port_devices(0, 4), *port_devices(1, 4), gpu(2)])
        others = [f"other-{number}" for number in range(5000)]
        named = [f"h{number:02}" for number in range(0, 30, 2)]
        assert [host for page in pages(fleet, alias, 4, hosts=[*others, *named]) for host in page] == named
        assert fleet.claim(alias, hosts=[*others, *named]).host == named[0]

    def test_numa_policies_count(self, fleet: Fleet) -> None:
        cells = (NumaCell(id=0, socket=0), NumaCell(id=1, socket=1))
        fleet.host_of("near", port_devices(0, 1, numa_node=1), cells)
        fleet.host_of("far", port_devices(0, 1, numa_node=0), cells)
        assert hosts(fleet.candidates("nic-vf:1", numa_cells=[1])) == ["near"]

    def test_isolated_vfs_need_as_many_ports(self, fleet: Fleet) -> None:
        fleet.host("one", ports=1)
        fleet.host("two", ports=2)
        assert hosts(fleet.candidates("nic-vf:2", group_policy="isolate")) == ["two"]


class TestOrder:
    def test_pack_prefers_the_fullest_port_that_has_room(self, fleet: Fleet) -> None:
        for name in ("whole", "fuller", "full", "fullest"):
            fleet.host(name, ports=1)
        for name, count in (("fuller", 1), ("full", 4), ("fullest", 3)):
            fleet.claim(f"nic-vf:{count}", hosts=[name])
        assert hosts(fleet.candidates("nic-vf:1")) == ["fullest", "fuller", "whole"]
        assert fleet.claim("nic-vf:1").host == "fullest"

    def test_spread_prefers_the_port_with_the_most_room(self, spreading_fleet: Fleet) -> None:
        for name, vfs in (("small", 2), ("large", 8), ("used", 8)):
            spreading_fleet.host(name, vfs=vfs)
        spreading_fleet.claim("nic-vf:1", hosts=["used"])
        assert hosts(spreading_fleet.candidates("nic-vf:1")) == ["large", "small", "used"]
        assert spreading_fleet.claim("nic-vf:1").host == "large"

    def test_a_host_where_one_port_is_enough_comes_before_one_that_needs_two(self, fleet: Fleet) -> None:
        fleet.host("two-ports", ports=2, vfs=3)
        fleet.host("one-port", ports=1, vfs=4)
        assert hosts(fleet.candidates("nic-vf:4")) == ["one-port", "two-ports"]

    def test_more_ports_than_a_claim_looks_at(self, fleet: Fleet) -> None:
        """Twelve hosts whose ports in use are all the same, before those whose ports are whole."""
        for number in range(24):
            fleet.host(f"h{number:02}", ports=2)
        used = [f"h{number:02}" for number in range(0, 24, 2)]
        for name in used:
            fleet.claim("nic-vf:1", hosts=[name])
        whole = [f"h{number:02}" for number in range(1, 24, 2)]
        assert hosts(fleet.candidates("nic-vf:1", limit=100)) == [*used, *whole]
        assert hosts(fleet.candidates("nic-vf:1,nic-vf:1", limit=100)) == [*used, *whole]


class TestPages:
    @pytest.mark.parametrize("alias", ["nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1", "nic-vf:3"])
    def test_all_hosts_come_once_and_in_the_order_of_one_long_answer(self, fleet: Fleet, alias: str) -> None:
        for number in range(25):
            fleet.host_of(f"h{number}", [*port_devices(0, 4), *port_devices(1, 2), gpu(2)])
            for _ in range(number % 3):
                fleet.claim("nic-vf:1", hosts=[f"h{number}"])
        at_once = hosts(fleet.candidates(alias, limit=1000))
        assert sorted(at_once) == sorted(fleet.hosts)
        for limit in (1, 7, 25):
            found = list(pages(fleet, alias, limit))
            assert [host for page in found for host in page] == at_once
            assert {len(page) for page in found[:-1]} <= {limit}
            assert found[-1]

    def test_no_host_comes_twice_and_none_is_missing_although_the_order_changes(self, fleet: Fleet) -> None:
        for number in range(9):
            fleet.host(f"h{number}", ports=2)
        first = fleet.candidates("nic-vf:1", limit=3)
        assert hosts(first) == ["h0", "h1", "h2"]
        fleet.claim("nic-vf:1", hosts=["h0"])  # it would be the first again, and the others come later
        fleet.claim("nic-vf:1", hosts=["h8"])
        second = fleet.candidates("nic-vf:1", limit=3, after=first.after)
        assert hosts(second) == ["h8", "h3", "h4"]
        third = fleet.candidates("nic-vf:1", limit=3, after=second.after)
        assert (hosts(third), third.after) == (["h5", "h6", "h7"], None)

    def test_the_limit_may_change_between_calls(self, fleet: Fleet) -> None:
        for number in range(5):
            fleet.host(f"h{number}")
        first = fleet.candidates("nic-pf:1", limit=1)
        assert hosts(fleet.candidates("nic-pf:1", limit=10, after=first.after)) == ["h1", "h2", "h3", "h4"]

    @pytest.mark.parametrize("after", ["", "nonsense", "AAAA", "eJyrVkrLz1eyUkpKLFKqBQAdegQ0", "é", "W10="])
    def test_text_that_is_no_cursor_is_refused(self, fleet: Fleet, after: str) -> None:
        with pytest.raises(InvalidRequest, match="after is not from an answer of candidates"):
            fleet.candidates("nic-vf:1", after=after)

    def test_the_cursor_of_another_request_is_refused(self, fleet: Fleet) -> None:
        fleet.host("h1")
        fleet.host("h2")
        after = fleet.candidates("nic-vf:1", limit=1).after
        with pytest.raises(InvalidRequest, match="after is from an answer to another request"):
            fleet.candidates("nic-vf:2", after=after)
        with pytest.raises(InvalidRequest, match="after is from an answer to another request"):
            fleet.candidates("nic-vf:1", ["h1", "h2"], after=after)


class TestNonsense:
    @pytest.mark.parametrize(
        ("fields", "fault"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 1001}, "limit"),
            ({"limit": "10"}, "limit"),
            ({"hosts": []}, "hosts"),
            ({"hosts": ["h 1"]}, "hosts"),
            ({"near": ["h1"]}, "near"),
            ({"after": 7}, "after"),
            ({"wait": 300}, "wait"),
        ],
    )
    def test_a_bad_message_is_refused(self, fleet: Fleet, fields: dict[str, Any], fault: str) -> None:
        wanted = {"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}, **fields}
        with pytest.raises(InvalidMessage, match=fault):
            call(fleet, wanted)

    @pytest.mark.parametrize("alias", ["no-such-alias:1", "nic-vf", "nic-vf:0"])
    def test_a_bad_alias_is_refused(self, fleet: Fleet, alias: str) -> None:
        with pytest.raises(InvalidRequest):
            fleet.candidates(alias)

    def test_a_request_for_no_device_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(InvalidRequest, match="asks for no device"):
            call(fleet, {})


def call(fleet: Fleet, fields: dict[str, Any]) -> None:
    """Call with these fields, which no client has checked."""
    try:
        fleet.scheduler._endpoint.candidates({}, **fields)  # type: ignore[attr-defined]
    except ExpectedException as expected:
        raise expected.exc_info[1] from None


@pytest.mark.parametrize("alias", ["nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1"])
def test_what_changes_during_the_search_does_no_harm(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """After every statement of the search, a host loses what it had."""
    names = [f"h{number}" for number in range(12)]
    for name in names:
        fleet.host_of(name, [*port_devices(0, 2), gpu(1)])
    going = iter(names)

    def look_away(statement: str) -> None:
        if statement.startswith(("next_", "free_")) and (name := next(going, None)) is not None:
            fleet.claim("nic-pf:1,gpu:1", hosts=[name])

    after_each_statement(monkeypatch, fleet.engine, look_away)
    found = hosts(fleet.candidates(alias, limit=100))
    gone = set(names) - set(going)
    assert gone
    assert set(names) - gone <= set(found)
    assert len(set(found)) == len(found)


def test_a_host_that_could_serve_the_claim_all_the_time_is_found(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First one port is enough. Then each port loses a VF, and two ports together are enough."""
    fleet.host("h1", ports=2, vfs=2)

    def look_away(statement: str) -> None:
        if statement.startswith("next_ports") and fleet.explain("nic-vf:4").served:
            fleet.claim("nic-vf:2", group_policy="isolate")

    after_each_statement(monkeypatch, fleet.engine, look_away)
    [candidate] = fleet.candidates("nic-vf:2").candidates
    assert {device.parent_address for device in candidate.devices} == {pf(0), pf(1)}
