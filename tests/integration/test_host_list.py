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


def test_hosts_are_chosen_by_name_by_silence_and_by_drain(fleet: Fleet) -> None:
    for name in ("rack1-a", "rack1-b", "rack2-a", "rack2-b", "rack10-a"):
        fleet.host(name)
    fleet.falls_silent("rack1-b")
    fleet.falls_silent("rack2-b")
    fleet.scheduler.drain("rack2-a", "new fan")
    fleet.scheduler.drain("rack2-b", "sold")
    fleet.scheduler.drain("rack1-a", "flapping", pf(0))

    def names(**wanted: Any) -> list[str]:
        return [host.host for host in listed(fleet, **wanted)]

    assert names(hosts=["rack2-a", "rack1-a", "nobody"]) == ["rack1-a", "rack2-a"]
    assert names(prefix="rack1-") == ["rack1-a", "rack1-b"]
    assert sorted(names(prefix="rack1")) == ["rack1-a", "rack1-b", "rack10-a"]
    assert names(prefix="rack3") == []
    assert names(is_silent=True) == ["rack1-b", "rack2-b"]
    assert sorted(names(is_silent=False)) == ["rack1-a", "rack10-a", "rack2-a"]
    assert names(is_drained=True) == ["rack2-a", "rack2-b"]
    assert sorted(names(is_drained=False)) == ["rack1-a", "rack1-b", "rack10-a"], (
        "a drained port drains no host"
    )
    assert names(is_silent=True, is_drained=False) == ["rack1-b"]
    assert names(host="rack1-a", prefix="rack2") == []


def test_the_counts_of_a_host_are_those_of_its_devices(fleet: Fleet) -> None:
    """They come from the counters of its ports."""
    host = fleet.host("h1", ports=4, vfs=3)
    host.add(gpu(6))
    host.lose(vf(3, 2), pf(2), *[vf(2, number) for number in range(3)])
    host.report()
    fleet.attached(fleet.claim("nic-vf:2"))
    fleet.claim("nic-pf:1")
    fleet.scheduler.drain("h1", "flapping", pf(3))

    def counted() -> list[tuple[int, ...]]:
        return fleet.sql("""
            SELECT count(*) FILTER (WHERE effective_status <> 'removed'),
                   count(*) FILTER (WHERE effective_status = 'available'),
                   count(*) FILTER (WHERE effective_status = 'available' AND dev_type = 'type-PF'),
                   count(*) FILTER (WHERE claim_id IS NOT NULL AND dev_type = 'type-PF'),
                   count(*) FILTER (WHERE effective_status = 'available' AND dev_type = 'type-VF'),
                   count(*) FILTER (WHERE claim_id IS NOT NULL AND dev_type = 'type-VF')
              FROM pf_vf_tree WHERE host = 'h1'
        """)

    for change in (lambda: None, lambda: fleet.scheduler.drain("h1", "new fan"), host.report):
        change()
        [shown] = listed(fleet)
        assert [(shown.devices, shown.available, *counts(shown)[:4])] == counted()
    assert (shown.devices, shown.available) == (12, 0)


def test_a_removed_host_has_no_devices(fleet: Fleet) -> None:
    fleet.host("h1")
    fleet.falls_silent("h1")
    fleet.scheduler.remove_host("h1", "ann", "sold")
    [gone] = listed(fleet)
    assert (gone.devices, gone.drained_reason) == (0, "removed by ann: sold")
    assert vf(0, 0) in fleet.status("h1"), "its history stays"
