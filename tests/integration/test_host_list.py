"""The list of hosts: whether each takes claims, and its free and held devices."""

from typing import Any

import pytest

from portclaim.common.rpc.operator_messages import HostFilter, HostSummary
from tests.support.fleet import Fleet, gpu, pf, vf


def listed(fleet: Fleet, **wanted: Any) -> list[HostSummary]:
    return fleet.scheduler.hosts(HostFilter(**wanted)).hosts


def counts(host: HostSummary) -> tuple[int, ...]:
    return host.pfs_available, host.pfs_held, host.vfs_available, host.vfs_held, host.live_claims


def test_free_and_held_pfs_and_vfs_are_counted(fleet: Fleet) -> None:
    host = fleet.host("h1", ports=3, vfs=4)
    host.add(gpu(5))
    host.report()
    assert counts(listed(fleet)[0]) == (3, 0, 12, 0, 0)
    slices = fleet.attached(fleet.claim("nic-vf:3"))
    assert counts(listed(fleet)[0]) == (2, 0, 9, 3, 1)
    fleet.claim("nic-pf:1,gpu:1")
    assert counts(listed(fleet)[0]) == (1, 1, 5, 3, 2)
    assert (listed(fleet)[0].devices, listed(fleet)[0].available) == (16, 6)
    host.done(fleet.release(slices))
    assert counts(listed(fleet)[0]) == (2, 1, 8, 0, 1)


def test_a_host_that_takes_no_claims_shows_the_reason(fleet: Fleet) -> None:
    for name in ("h3", "h1", "h2"):
        fleet.host(name, ports=2, vfs=2)
    fleet.falls_silent("h1")
    fleet.scheduler.drain("h2", "new fan")
    fleet.scheduler.drain("h3", "flapping", pf(1))
    silent, drained, in_part = listed(fleet)
    assert [host.host for host in (silent, drained, in_part)] == ["h1", "h2", "h3"]
    assert [host.is_silent for host in (silent, drained, in_part)] == [True, False, False]
    assert silent.agent_silent_for == pytest.approx(3600, abs=600)
    assert (drained.drained_reason, drained.available, counts(drained)) == ("new fan", 0, (0, 0, 0, 0, 0))
    assert (in_part.drained_reason, in_part.drained_ports) == (None, {pf(1): "flapping"})
    assert counts(in_part) == (1, 0, 2, 0, 0)


def test_the_list_can_show_one_host_and_has_a_limit(fleet: Fleet) -> None:
    for number in range(4):
        fleet.host(f"h{number}")
    assert [host.host for host in listed(fleet, host="h2")] == ["h2"]
    assert listed(fleet, host="h9") == []
    cut = fleet.scheduler.hosts(HostFilter(limit=3))
    assert ([host.host for host in cut.hosts], cut.more) == (["h0", "h1", "h2"], True)
    assert not fleet.scheduler.hosts(HostFilter(limit=4)).more


def test_a_removed_host_has_no_devices(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.falls_silent("h1")
    fleet.scheduler.remove_host("h1", "ann", "sold")
    [gone] = listed(fleet)
    assert (gone.devices, gone.drained_reason) == (0, "removed by ann: sold")
    assert vf(0, 0) in fleet.status("h1"), "its history stays"
