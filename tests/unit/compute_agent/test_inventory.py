"""What a host reports, and under which name."""

import json

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.host import HostView
from portclaim.common.rpc.agent_messages import DeviceReport, NumaCell
from portclaim.services.compute_agent.inventory import Inventory, take_inventory
from portclaim.services.compute_agent.scanner import Scan, Scanner

PF = "0000:01:00.0"
VF = "0000:01:10.0"
CELLS = [NumaCell(id=0, socket=0, cpus=[0, 1])]


def inventory(scan: Scan, *entries: dict[str, object], held_back: dict[str, str] | None = None) -> Inventory:
    reasons = {PciAddress.parse(address): reason for address, reason in (held_back or {}).items()}
    specs = DeviceSpecs.parse([json.dumps(entry) for entry in entries], HostView.of(scan.devices))
    return take_inventory(scan, specs, CELLS, reasons, set())


def reports(*args: object, **kwargs: object) -> dict[str, DeviceReport]:
    return {report.address: report for report in inventory(*args, **kwargs).devices}


def test_what_no_entry_takes_is_not_reported(scanner: Scanner) -> None:
    assert reports(scanner.scan()) == {}
    assert list(reports(scanner.scan(), {"vendor_id": "10de"})) == ["0000:03:00.0"]


def test_one_entry_for_a_port_offers_it_whole_and_in_slices(scanner: Scanner) -> None:
    offered = reports(scanner.scan(), {"address": PF, "physical_network": "blue"})
    assert list(offered) == [PF, VF, "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]
    assert all(report.offered and report.tags == {"physical_network": "blue"} for report in offered.values())
    assert [report.parent_address for report in offered.values()] == [None, PF, PF, PF, PF]


def test_a_vf_brings_its_pf_along_which_is_not_offered(scanner: Scanner) -> None:
    seen = reports(scanner.scan(), {"address": VF, "physical_network": "blue"})
    assert {address: report.offered for address, report in seen.items()} == {PF: False, VF: True}
    assert seen[PF].tags == {}


def test_a_port_that_must_stay_as_it_is_is_offered_in_slices_only(scanner: Scanner) -> None:
    seen = reports(scanner.scan(), {"address": PF, "reconfigurable": "no"})
    assert [address for address, report in seen.items() if not report.offered] == [PF]


def test_a_pf_is_reported_with_its_facts(scanner: Scanner) -> None:
    pf = reports(scanner.scan(), {"address": PF})[PF]
    assert (pf.dev_type, pf.vendor_id, pf.product_id, pf.numa_node) == ("type-PF", "8086", "1572", 0)
    assert pf.attributes["driver"] == "i40e"
    assert pf.attributes["netdev"] == "enp1s0f0"
    assert (pf.attributes["total_vfs"], pf.attributes["num_vfs"]) == (4, 4)


def test_what_is_not_usable_is_reported_with_the_reason(scanner: Scanner) -> None:
    scan = scanner.scan()
    half_linked = Scan(scan.devices, {PciAddress.parse(VF): "no physfn"})
    seen = reports(half_linked, {"address": PF}, held_back={"0000:01:10.2": "in instance x"})
    reasons = {address: report.unusable_reason for address, report in seen.items() if report.unusable_reason}
    assert reasons == {VF: "no physfn", "0000:01:10.2": "in instance x"}


def test_a_device_that_device_spec_cannot_name_is_left_out() -> None:
    far = PciDevice(PciAddress(0x10000, 1, 0, 0), DeviceType.PCI, "8086", "1572")
    near = PciDevice(PciAddress(0, 1, 0, 0), DeviceType.PCI, "8086", "1572")
    assert list(reports(Scan((near, far)), {"vendor_id": "8086"})) == ["0000:01:00.0"]


def test_the_digest_is_equal_for_equal_content_and_for_nothing_else(scanner: Scanner) -> None:
    scan = scanner.scan()
    same = [inventory(scan, {"address": PF}).digest for _ in range(2)]
    others = [
        inventory(scan).digest,
        inventory(scan, {"address": PF, "trusted": "true"}).digest,
        inventory(scan, {"address": PF}, held_back={VF: "in instance x"}).digest,
        take_inventory(scan, DeviceSpecs.parse([json.dumps({"address": PF})]), [], {}, set()).digest,
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 5


def test_a_device_that_no_entry_can_name_is_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    far = PciDevice(PciAddress.parse("10000:01:00.0"), DeviceType.PCI, "8086", "1572")
    near = PciDevice(PciAddress.parse("0000:01:00.0"), DeviceType.PCI, "8086", "1572")
    specs = DeviceSpecs.parse(['{"vendor_id": "8086"}'])
    warned: set[PciAddress] = set()
    for _ in range(3):
        found = take_inventory(Scan([near, far], {}), specs, [], {}, warned)
        assert [report.address for report in found.devices] == [str(near.address)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
