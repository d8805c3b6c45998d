"""The inventory of a host: which devices it reports, and with which facts."""

import json

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.host import HostView
from portclaim.common.rpc.agent_messages import DeviceReport, NumaCell
from portclaim.services.compute_agent.inventory import Inventory, take_inventory, with_network_settings
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


def test_a_device_that_no_entry_matches_is_not_reported(scanner: Scanner) -> None:
    assert reports(scanner.scan()) == {}
    assert list(reports(scanner.scan(), {"vendor_id": "10de"})) == ["0000:03:00.0"]


def test_one_entry_for_a_port_offers_its_pf_and_its_vfs(scanner: Scanner) -> None:
    offered = reports(scanner.scan(), {"address": PF, "physical_network": "blue"})
    assert list(offered) == [PF, VF, "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]
    assert all(report.offered and report.tags == {"physical_network": "blue"} for report in offered.values())
    assert [report.parent_address for report in offered.values()] == [None, PF, PF, PF, PF]


def test_an_offered_vf_is_reported_with_its_pf_which_is_not_offered(scanner: Scanner) -> None:
    seen = reports(scanner.scan(), {"address": VF, "physical_network": "blue"})
    assert {address: report.offered for address, report in seen.items()} == {PF: False, VF: True}
    assert seen[PF].tags == {}


def test_only_the_vfs_of_a_port_that_is_not_reconfigurable_are_offered(scanner: Scanner) -> None:
    seen = reports(scanner.scan(), {"address": PF, "reconfigurable": "no"})
    assert [address for address, report in seen.items() if not report.offered] == [PF]


def test_a_pf_is_reported_with_its_facts(scanner: Scanner) -> None:
    pf = reports(scanner.scan(), {"address": PF})[PF]
    assert (pf.dev_type, pf.vendor_id, pf.product_id, pf.numa_node) == ("type-PF", "8086", "1572", 0)
    assert pf.attributes["driver"] == "i40e"
    assert pf.attributes["netdev"] == "enp1s0f0"
    assert (pf.attributes["total_vfs"], pf.attributes["num_vfs"]) == (4, 4)


def test_a_vf_is_reported_with_its_number(scanner: Scanner) -> None:
    seen = reports(scanner.scan(), {"address": PF})
    numbers = [report.attributes.get("vf_num") for report in seen.values()]
    assert numbers == [None, 0, 1, 2, 3]
    assert "vf_num" not in seen[PF].attributes


def test_unusable_devices_are_reported_with_the_reason(scanner: Scanner) -> None:
    scan = scanner.scan()
    half_linked = Scan(scan.devices, {PciAddress.parse(VF): "no physfn"})
    seen = reports(half_linked, {"address": PF}, held_back={"0000:01:10.2": "in instance x"})
    reasons = {address: report.unusable_reason for address, report in seen.items() if report.unusable_reason}
    assert reasons == {VF: "no physfn", "0000:01:10.2": "in instance x"}


def test_a_device_with_a_domain_beyond_16_bits_is_left_out() -> None:
    far = PciDevice(PciAddress(0x10000, 1, 0, 0), DeviceType.PCI, "8086", "1572")
    near = PciDevice(PciAddress(0, 1, 0, 0), DeviceType.PCI, "8086", "1572")
    assert list(reports(Scan((near, far)), {"vendor_id": "8086"})) == ["0000:01:00.0"]


def test_the_digest_is_equal_only_for_equal_content(scanner: Scanner) -> None:
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


def test_a_device_with_a_domain_beyond_16_bits_causes_one_warning(
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


def test_classes_and_traits_are_reported_as_placement_names_them(scanner: Scanner) -> None:
    """So devices that mean the same are in the same pool."""
    written = reports(scanner.scan(), {"address": VF, "resource_class": "gpu vf", "traits": "b, A"})
    named = reports(scanner.scan(), {"address": VF, "resource_class": "CUSTOM_GPU_VF", "traits": "A,b"})
    assert written[VF].tags == {"resource_class": "CUSTOM_GPU_VF", "traits": "CUSTOM_A,CUSTOM_B"}
    assert named == written


def test_an_agent_that_sets_network_settings_says_so_of_network_cards(scanner: Scanner) -> None:
    plain = inventory(scanner.scan(), {"address": PF, "physical_network": "blue"}, {"vendor_id": "10de"})
    seen = {report.address: report for report in with_network_settings(plain).devices}
    assert [address for address, report in seen.items() if "network_settings" not in report.tags] == [
        "0000:03:00.0"
    ]
    assert seen[VF].tags == {"physical_network": "blue", "network_settings": "true"}
    assert with_network_settings(plain).digest != plain.digest
