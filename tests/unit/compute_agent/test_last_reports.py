"""A device that a claim has lost is reported with the reason, as long as its agent remembers it."""

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.last_reports import LastReports
from tests.support.fleet import pf, port_devices, vf

GONE = PciAddress.parse(vf(0, 1))
ALL = Inventory(port_devices(0, 3), [])


def without(*addresses: str) -> Inventory:
    return Inventory([device for device in ALL.devices if device.address not in addresses], [])


@pytest.fixture
def reports() -> LastReports:
    reports = LastReports()
    assert reports.complete(ALL, {}) is ALL
    return reports


def test_it_is_reported_as_it_was_with_the_reason_and_in_its_place(reports: LastReports) -> None:
    for _ in range(2):
        completed = reports.complete(without(str(GONE)), {GONE: "it is gone"})
        assert [device.address for device in completed.devices] == [device.address for device in ALL.devices]
        found = next(device for device in completed.devices if device.address == str(GONE))
        assert (found.unusable_reason, found.parent_address) == ("it is gone", pf(0))


def test_a_device_of_no_claim_is_left_out(reports: LastReports) -> None:
    inventory = without(str(GONE))
    assert reports.complete(inventory, {}) is inventory


def test_when_its_claim_has_ended_it_is_left_out(reports: LastReports) -> None:
    reports.complete(without(str(GONE)), {GONE: "it is gone"})
    assert reports.complete(without(str(GONE)), {}).devices == without(str(GONE)).devices
    assert reports.complete(without(str(GONE)), {GONE: "again"}).devices == without(str(GONE)).devices


def test_a_vf_whose_pf_is_gone_too_is_reported_with_its_pf(reports: LastReports) -> None:
    inventory = without(pf(0), *(vf(0, number) for number in range(3)))
    for _ in range(2):
        completed = reports.complete(inventory, {GONE: "it is gone"})
        assert {device.address: device.unusable_reason for device in completed.devices} == {
            pf(0): f"{pf(0)} was removed from its bus",
            str(GONE): "it is gone",
        }
    assert reports.complete(inventory, {}) is inventory


def test_an_agent_that_was_started_again_knows_nothing_of_it() -> None:
    inventory = without(pf(0), *(vf(0, number) for number in range(3)))
    assert LastReports().complete(inventory, {GONE: "it is gone"}) is inventory


def test_a_device_that_is_on_the_host_is_reported_as_it_is(reports: LastReports) -> None:
    assert reports.complete(ALL, {GONE: "it is on igbvf"}) is ALL
