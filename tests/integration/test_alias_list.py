"""``portclaim alias list``: what each alias gets of the fleet, and what it would get but for its type."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from portclaim.common.rpc.alias_messages import AliasSummary
from tests.integration.test_cli import done, done_in_json, run
from tests.support.fleet import CONNECTX5, X710, Fleet, gpu, port_devices
from tests.support.services import Services

IDS = {"vendor_id": X710.vendor, "product_id": X710.pf}
ALIASES = [
    json.dumps(alias)
    for alias in (
        {"name": "vf", "device_type": "type-VF", "vendor_id": X710.vendor, "product_id": X710.vf},
        {"name": "whole", "device_type": "type-PF", **IDS},
        {"name": "as type-PCI", "device_type": "type-PCI", **IDS},
        {"name": "without a type", **IDS},
        {"name": "gold", "device_type": "type-VF", "resource_class": "gold", "numa_policy": "required"},
        {"name": "unknown", "vendor_id": "ffff", "product_id": "ffff"},
    )
]


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    fleet = Fleet(database_url, aliases=ALIASES)
    yield fleet
    assert fleet.faults() == []
    fleet.close()


def listed(fleet: Fleet) -> dict[str, AliasSummary]:
    return {alias.name: alias for alias in fleet.scheduler.aliases().aliases}


def counts(fleet: Fleet, name: str) -> tuple[int, int, dict[str, int]]:
    alias = listed(fleet)[name]
    return alias.devices, alias.available, alias.of_other_types


@pytest.mark.parametrize("counted", [False, True])
def test_each_alias_shows_what_it_gets_and_what_it_would_get(fleet: Fleet, counted: bool) -> None:
    """The numbers are the same whether the sums of the hosts are up to date or not."""
    fleet.host("h1", ports=2, vfs=4)
    fleet.host("h2", ports=1, vfs=2, card=CONNECTX5)
    fleet.host_of("h3", [*port_devices(0, 3, tags={"resource_class": "CUSTOM_GOLD"}), gpu(1)])
    claim = fleet.claim("vf:2", hosts=["h1"])
    fleet.attached(claim)
    if counted:
        while fleet.count_hosts():
            pass
    assert counts(fleet, "vf") == (11, 9, {})
    assert counts(fleet, "whole") == (3, 2, {})
    assert counts(fleet, "as type-PCI") == (0, 0, {"type-PF": 3})
    assert counts(fleet, "without a type") == (0, 0, {"type-PF": 3})
    assert counts(fleet, "gold") == (3, 3, {"type-PF": 1})
    assert counts(fleet, "unknown") == (0, 0, {})
    assert listed(fleet)["gold"].numa_policy == "required"
    assert listed(fleet)["gold"].spec == [{"dev_type": "type-VF", "resource_class": "gold"}]


def test_ports_that_no_entry_takes_do_not_count(fleet: Fleet) -> None:
    top, *slices = port_devices(0, 2)
    fleet.host_of("h1", [top.model_copy(update={"offered": False}), *slices])
    assert counts(fleet, "vf") == (2, 2, {})
    assert counts(fleet, "whole") == (0, 0, {})
    assert counts(fleet, "as type-PCI") == (0, 0, {})


def test_devices_of_drained_and_silent_hosts_are_not_available(fleet: Fleet) -> None:
    for name in ("h1", "h2", "h3"):
        fleet.host(name, vfs=2)
    fleet.scheduler.drain("h1", "new fan")
    fleet.falls_silent("h2")
    assert counts(fleet, "vf") == (6, 2, {})


def test_the_command_shows_them_with_what_to_write(fleet: Fleet, service_process: Services) -> None:
    fleet.host("h1", ports=1, vfs=2)
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url, "OS_RPC__ATTEMPTS": "1"}
    rows = {row["name"]: row for row in done_in_json(run("alias", "list", "--output", "json", **bus))}
    assert (rows["vf"]["devices"], rows["vf"]["available"]) == (2, 2)
    assert rows["as type-PCI"]["of_other_types"] == {"type-PF": 1}
    shown = {line.split("  ")[0]: line for line in done(run("alias", "list", **bus)).splitlines()}
    assert 'write "device_type": "type-PF"' in shown["as type-PCI"]
    assert "no device of the fleet is of this kind" in shown["unknown"]
