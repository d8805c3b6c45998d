"""Any small fleet: candidates are the hosts that claims would get, in their order, and their devices.

Hypothesis draws the fleet, what is in use, and the request.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.agent_messages import DeviceReport, NumaCell
from portclaim.common.rpc.candidate_messages import Candidate, CandidateDevice
from portclaim.common.rpc.claim_messages import Claim
from tests.support.effort import short_or_long
from tests.support.fleet import CONNECTX5, T4, X710, Card, Fleet, gpu, port_devices

CELLS = (NumaCell(id=0, socket=0), NumaCell(id=1, socket=0))
EXAMPLES = short_or_long(30, 2000)


class Port(NamedTuple):
    """A port of a host. Without a card it is a GPU."""

    card: Card | None
    vfs: int
    numa_node: int
    trusted: bool

    def devices(self, number: int) -> Sequence[DeviceReport]:
        if self.card is None:
            return [gpu(number)]
        tags = {"trusted": "true"} if self.trusted else {}
        return port_devices(number, self.vfs, self.card, numa_node=self.numa_node, tags=tags)


class Use(NamedTuple):
    """What happens to the fleet before: a claim, a port that is drained, or a host that takes no claims."""

    what: str
    host: int
    alias: str


class Request(NamedTuple):
    """What a claim asks for."""

    alias: str
    facts: dict[str, Any]


ports = st.builds(
    Port,
    card=st.sampled_from([X710, X710, X710, CONNECTX5, None]),
    vfs=st.integers(0, 3),
    numa_node=st.integers(0, 1),
    trusted=st.booleans(),
)
fleets = st.lists(st.lists(ports, min_size=1, max_size=4), min_size=1, max_size=5)
aliases = st.sampled_from(
    [
        *("nic-vf:1", "nic-vf:2", "nic-vf:3", "any-vf:2", "nic-pf:1", "nic-pf:2", "any-pf:1", "gpu:1"),
        *(
            "nic-vf:1,gpu:1",
            "nic-pf:1,nic-vf:1",
            "nic-vf:1,nic-vf:1",
            "nic-vf:2,any-vf:2",
            "any-pf:1,roce-vf:1",
        ),
    ]
)
uses = st.builds(
    Use,
    what=st.sampled_from(["claim", "claim", "claim", "claim", "wait", "drain", "silence", "close"]),
    host=st.integers(0, 4),
    alias=aliases,
)
requests = st.builds(
    Request,
    alias=aliases,
    facts=st.sampled_from([{}, {}, {}, {"numa_cells": [1]}, {"group_policy": "isolate"}]),
)


@contextmanager
def fleet_of(database_url: str, policy: str, hosts: Sequence[Sequence[Port]]) -> Iterator[Fleet]:
    """A fleet with these hosts and nothing else in the database."""
    fleet = Fleet(database_url, packing_policy=policy)
    fleet.sql("TRUNCATE compute_nodes, pools CASCADE")
    for name, of_host in enumerate(hosts):
        devices = [device for number, port in enumerate(of_host) for device in port.devices(number)]
        fleet.host_of(f"h{name}", devices, CELLS)
    yield fleet
    assert fleet.faults() == []
    fleet.close()


def use(fleet: Fleet, what: Sequence[Use]) -> None:
    for each in what:
        host = f"h{each.host % len(fleet.hosts)}"
        match each.what:
            case "claim":
                claim(fleet, each.alias, hosts=[host])
            case "wait":
                fleet.claim(each.alias, wait=300)
                fleet.serve()
            case "drain":
                fleet.scheduler.drain(host, "work", next(iter(fleet.hosts[host].devices)))
            case "silence":
                fleet.falls_silent(host)
            case "close":
                fleet.scheduler.drain(host, "work")


def claim(fleet: Fleet, alias: str, **facts: Any) -> Claim | None:
    try:
        return fleet.claim(alias, **facts)
    except ClaimRefused:
        return None


def devices(of: Claim | Candidate) -> list[CandidateDevice]:
    """The devices of either, in the order of the requests."""
    facts = [each.model_dump(include=set(CandidateDevice.model_fields)) for each in of.devices]
    facts.sort(key=lambda device: (device["request_index"], device["address"]))
    return [CandidateDevice.model_validate(each) for each in facts]


def unhurried(test: Any) -> Any:
    return settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )(test)


@unhurried
@given(
    policy=st.sampled_from(["pack", "spread"]),
    hosts=fleets,
    before=st.lists(uses, max_size=6),
    wanted=requests,
)
def test_a_host_is_a_candidate_if_and_only_if_it_would_serve_the_claim(
    database_url: str, policy: str, hosts: Any, before: Any, wanted: Request
) -> None:
    with fleet_of(database_url, policy, hosts) as fleet:
        use(fleet, before)
        found = list(pages(fleet, wanted, 1000))
        assert len({each.host for each in found}) == len(found)
        assert [list(pages(fleet, wanted, limit)) for limit in (1, 2)] == [found, found]
        for name in fleet.hosts:
            would_serve = fleet.explain(wanted.alias, [name], **wanted.facts).served
            alone = fleet.candidates(wanted.alias, [name], **wanted.facts)
            assert bool(alone.candidates) == would_serve
            if not fleet.candidates(wanted.alias, **wanted.facts).queued and not alone.queued:
                assert (name in {each.host for each in found}) == would_serve


@unhurried
@given(
    policy=st.sampled_from(["pack", "spread"]),
    hosts=fleets,
    before=st.lists(uses, max_size=6),
    wanted=requests,
)
def test_a_claim_on_a_candidate_gets_its_devices_and_leaves_what_it_says(
    database_url: str, policy: str, hosts: Any, before: Any, wanted: Request
) -> None:
    with fleet_of(database_url, policy, hosts) as fleet:
        use(fleet, before)
        for each in pages(fleet, wanted, 1000):
            if fleet.candidates(wanted.alias, [each.host], **wanted.facts).queued:
                continue
            made = fleet.claim(wanted.alias, hosts=[each.host], **wanted.facts)
            assert devices(made) == devices(each)
            assert tuple(each.left.model_dump().values()) == left(fleet, each.host, wanted.alias)


@unhurried
@given(
    policy=st.sampled_from(["pack", "spread"]),
    hosts=fleets,
    before=st.lists(uses, max_size=6),
    wanted=requests,
)
def test_the_order_is_that_of_claims_that_avoid_the_hosts_before(
    database_url: str, policy: str, hosts: Any, before: Any, wanted: Request
) -> None:
    with fleet_of(database_url, policy, hosts) as fleet:
        use(fleet, before)
        if fleet.candidates(wanted.alias, **wanted.facts).queued:
            return
        candidates = [each.host for each in pages(fleet, wanted, 1000)]
        claimed: list[str] = []
        while made := claim(fleet, wanted.alias, avoid_hosts=claimed, **wanted.facts):
            claimed.append(str(made.host))
        assert candidates == claimed


def pages(fleet: Fleet, wanted: Request, limit: int) -> Iterator[Candidate]:
    """All candidates, so many in each call."""
    after = None
    while True:
        answer = fleet.candidates(wanted.alias, limit=limit, after=after, **wanted.facts)
        yield from answer.candidates
        after = answer.after
        if after is None:
            return
        assert len(answer.candidates) == limit


KINDS = {
    "nic-pf": [X710.vendor + X710.pf],
    "nic-vf": [X710.vendor + X710.vf],
    "roce-pf": [CONNECTX5.vendor + CONNECTX5.pf],
    "roce-vf": [CONNECTX5.vendor + CONNECTX5.vf],
    "gpu": ["".join(T4)],
}
KINDS |= {f"any-{kind}": KINDS[f"nic-{kind}"] + KINDS[f"roce-{kind}"] for kind in ("pf", "vf")}


def left(fleet: Fleet, host: str, alias: str) -> tuple[int, int, int]:
    """What a host has available on the ports that fit an alias: PFs, VFs, and devices without SR-IOV."""
    fitting = [ids for part in alias.split(",") for ids in KINDS[part.split(":")[0]]]
    [row] = fleet.sql(
        """
        WITH device AS (
            SELECT d.*, p.vendor_id || p.product_id = ANY(:fitting) AS fits
              FROM pci_devices d
              JOIN pools p ON p.id = d.pool_id
              JOIN compute_nodes n ON n.id = d.compute_node_id
             WHERE n.host = :host AND d.status <> 'removed'
        ), port AS (
            SELECT coalesce(parent_id, id) AS id FROM device GROUP BY 1 HAVING bool_or(fits)
        )
        SELECT count(*) FILTER (WHERE dev_type = 'type-PF' AND id IN (SELECT id FROM port)),
               count(*) FILTER (WHERE dev_type = 'type-VF' AND parent_id IN (SELECT id FROM port)),
               count(*) FILTER (WHERE dev_type = 'type-PCI' AND fits)
          FROM device WHERE status = 'available'
        """,
        host=host,
        fitting=fitting,
    )
    pfs, vfs, others = row
    return pfs, vfs, others
