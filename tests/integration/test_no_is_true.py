"""A claim is refused only if it cannot be served: if there are enough devices, every caller is served."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from portclaim.common.rpc.agent_messages import DeviceReport
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once, meanwhile, wait_until_blocked
from tests.support.counting import hosts_are_counted
from tests.support.effort import short_or_long
from tests.support.fleet import CONNECTX5, Fleet, Host, gpu, port_devices
from tests.support.interference import after_each_statement
from tests.support.invariants import violations

ROUNDS = short_or_long(4, 100)


class Demand(NamedTuple):
    """The number of callers, and what each claims; on any host, or each on its own host."""

    callers: int
    alias: str
    one_per_host: bool = False


class Plenty(NamedTuple):
    """The number of hosts, the devices of each, and callers who claim all of them."""

    hosts: int
    devices: Sequence[DeviceReport]
    alias_specs: Sequence[Demand]


def ports(number: int, vfs: int) -> list[DeviceReport]:
    return [device for port in range(number) for device in port_devices(port, vfs)]


# In each of these cases, whatever one caller gets leaves enough for the others. The order does not matter.
JUST_ENOUGH = {
    "VFs on ports of several hosts": Plenty(4, ports(2, 4), [Demand(32, "nic-vf:1")]),
    "pairs of VFs, some of them from two ports": Plenty(4, ports(2, 3), [Demand(12, "nic-vf:2")]),
    "PFs": Plenty(4, ports(6, 2), [Demand(24, "nic-pf:1")]),
    "pairs of PFs": Plenty(4, ports(6, 2), [Demand(12, "nic-pf:2")]),
    "ports, whole or all of their VFs": Plenty(
        4, ports(4, 4), [Demand(8, "nic-pf:1"), Demand(8, "nic-vf:4")]
    ),
    "VFs of a host of one's choice": Plenty(
        8,
        ports(2, 2),
        [Demand(8, "nic-vf:1", one_per_host=True), Demand(8, "nic-vf:3", one_per_host=True)],
    ),
    "several requests": Plenty(
        8,
        [*ports(2, 2), gpu(2)],
        [Demand(8, "nic-vf:2,gpu:1"), Demand(8, "nic-pf:1", one_per_host=True)],
    ),
    "one kind that does for two requests": Plenty(
        16, [*port_devices(0, 1), *port_devices(1, 1, CONNECTX5)], [Demand(16, "any-vf:1,nic-vf:1")]
    ),
    "a port that has to stay whole for another request": Plenty(
        16, [*port_devices(0, 2), *port_devices(1, 1, CONNECTX5)], [Demand(16, "any-pf:1,any-vf:2")]
    ),
}


@pytest.fixture(params=JUST_ENOUGH)
def plenty(request: pytest.FixtureRequest) -> Plenty:
    return JUST_ENOUGH[request.param]


def callers(fleet: Fleet, hosts: Mapping[str, Host], alias_specs: Sequence[Demand]) -> list[partial[Claim]]:
    """The calls of all callers. Calls with different alias specs alternate."""
    by_turn = [
        (
            number,
            partial(
                fleet.claim,
                alias_spec.alias,
                hosts=[list(hosts)[number]] if alias_spec.one_per_host else None,
            ),
        )
        for alias_spec in alias_specs
        for number in range(alias_spec.callers)
    ]
    return [call for _, call in sorted(by_turn, key=lambda each: each[0])]


def refused(answers: Sequence[object]) -> list[object]:
    """The answers that are not claims."""
    return [answer for answer in answers if not isinstance(answer, Claim)]


def leave(fleet: Fleet, hosts: Mapping[str, Host], claim: Claim) -> None:
    fleet.release(claim)
    hosts[claim.host].done(claim, step=2)


def broken_rules(fleet: Fleet) -> list[tuple[str, str]]:
    with fleet.engine.connect() as connection:
        return violations(connection)


def test_every_caller_is_served_in_every_round(fleet: Fleet, plenty: Plenty) -> None:
    hosts = {f"h{n}": fleet.host_of(f"h{n}", plenty.devices) for n in range(plenty.hosts)}
    for _ in range(ROUNDS):
        fleet.count_hosts()
        answers = at_once(callers(fleet, hosts, plenty.alias_specs))
        assert refused(answers) == []
        assert broken_rules(fleet) == []
        claims = [answer for answer in answers if isinstance(answer, Claim)]
        assert set(at_once([partial(leave, fleet, hosts, claim) for claim in claims])) == {None}


def test_every_caller_waits_for_locks_and_is_served(fleet: Fleet, plenty: Plenty) -> None:
    hosts = {f"h{n}": fleet.host_of(f"h{n}", plenty.devices) for n in range(plenty.hosts)}
    calls = callers(fleet, hosts, plenty.alias_specs)
    with fleet.engine.begin() as other:
        other.execute(sa.text("SELECT FROM pci_devices WHERE parent_id IS NULL FOR UPDATE"))
        answers = meanwhile(partial(at_once, calls))
        wait_until_blocked(fleet.engine, len(calls))
    assert refused(answers.result()) == []
    assert broken_rules(fleet) == []


@pytest.mark.parametrize(
    ("aliases", "devices"),
    [
        (["nic-vf:1"] * 16, ports(2, 4)),
        (["nic-pf:1"] * 16, ports(8, 2)),
        (["nic-pf:1", "nic-vf:3"] * 8, ports(8, 3)),
        (["nic-pf:1,gpu:1", "nic-vf:3,gpu:1"] * 8, [*ports(8, 3), *map(gpu, range(8, 16))]),
    ],
    ids=["VFs", "PFs", "whole ports in both ways", "whole ports in both ways, with another device"],
)
def test_callers_that_release_before_they_claim_again_are_always_served(
    fleet: Fleet, aliases: Sequence[str], devices: Sequence[DeviceReport]
) -> None:
    """The devices of two hosts are enough for all callers, and no caller holds more than one claim."""
    hosts = {name: fleet.host_of(name, devices) for name in ("h1", "h2")}

    def come_and_go(alias: str) -> None:
        for _ in range(ROUNDS):
            leave(fleet, hosts, fleet.claim(alias))

    with hosts_are_counted(fleet):
        assert at_once([partial(come_and_go, alias) for alias in aliases]) == [None] * 16
    assert broken_rules(fleet) == []


@pytest.mark.parametrize("hosts", [None, [f"h{n}" for n in range(12)]], ids=["any host", "named hosts"])
def test_a_claim_is_served_although_the_free_devices_change_after_every_statement(
    fleet: Fleet, hosts: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every statement a host with VFs of a new kind appears, and the VFs that were free are claimed."""
    fleet.host_of("h0", port_devices(0, 2, tags={"kind": "0"}))
    assert fleet.explain("nic-vf:1,nic-vf:1").served
    coming = iter(range(1, 12))

    def look_away(_statement: str) -> None:
        if (number := next(coming, None)) is not None:
            fleet.host_of(f"h{number}", port_devices(0, 2, tags={"kind": str(number)}))
            fleet.claim("nic-vf:2", hosts=[f"h{number - 1}"])

    after_each_statement(monkeypatch, fleet.engine, look_away)
    assert fleet.claim("nic-vf:1,nic-vf:1", hosts=hosts).host == "h11"
    assert next(coming, None) is None
    assert broken_rules(fleet) == []
