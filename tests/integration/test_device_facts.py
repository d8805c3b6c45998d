"""What a claim's answer says of its devices: facts of the device, of its PF and of its card."""

from typing import Any

import pytest

from portclaim.common.rpc.agent_messages import DeviceReport
from tests.support.fleet import Fleet, Host, gpu, pf, port_devices, slice_of, vf

MAC = "3c:fd:fe:00:00:01"
OF_PF = {"mac": MAC, "netdev": "ens1f0", "serial": "MT2113X00001", "driver": "i40e"}
NETWORK = {"physical_network": "physnet1"}


def port_with_facts(vfs: int = 2, tags: dict[str, str] | None = None, **of_vf: Any) -> list[DeviceReport]:
    """A port as an agent reports it. Each VF has its number, unless ``of_vf`` says otherwise."""
    top = port_devices(0, 0, attributes=OF_PF, tags=tags or {})
    slices = [
        slice_of(0, number, attributes={"driver": "iavf", "vf_num": number} | of_vf, tags=tags or {})
        for number in range(vfs)
    ]
    return [*top, *slices]


def vfio(host: Host) -> None:
    """The PF is on vfio-pci: the host sees neither its interface nor its MAC."""
    host.change(pf(0), attributes=OF_PF | {"driver": "vfio-pci", "mac": None, "netdev": None})
    host.report()


class TestFacts:
    def test_a_vf_comes_with_the_facts_of_its_pf_and_its_card(self, fleet: Fleet) -> None:
        fleet.host_of("h1", port_with_facts(tags=NETWORK | {"trusted": "true"}))
        first, second = fleet.claim("nic-vf:2").devices
        assert (first.address, first.vf_num, first.parent_address) == (vf(0, 0), 0, pf(0))
        assert (first.pf_mac_address, first.pf_netdev, first.card_serial_number) == (
            MAC,
            "ens1f0",
            "MT2113X00001",
        )
        assert (first.tags, first.trusted) == (NETWORK | {"trusted": "true"}, True)
        assert first.binding_profile == {
            "pci_slot": vf(0, 0),
            "pci_vendor_info": "8086:154c",
            "physical_network": "physnet1",
            "card_serial_number": "MT2113X00001",
            "pf_mac_address": MAC,
            "vf_num": 0,
        }
        assert (second.vf_num, second.binding_profile["vf_num"]) == (1, 1)

    def test_a_pf_comes_with_its_own_facts(self, fleet: Fleet) -> None:
        fleet.host_of("h1", port_with_facts(tags=NETWORK))
        [whole] = fleet.claim("nic-pf:1").devices
        assert (whole.pf_mac_address, whole.pf_netdev, whole.card_serial_number) == (
            MAC,
            "ens1f0",
            "MT2113X00001",
        )
        assert (whole.vf_num, whole.parent_address, whole.trusted) == (None, None, None)
        assert whole.binding_profile == {
            "pci_slot": pf(0),
            "pci_vendor_info": "8086:1572",
            "physical_network": "physnet1",
            "device_mac_address": MAC,
        }

    def test_another_device_has_no_pf(self, fleet: Fleet) -> None:
        card = gpu(0).model_copy(update={"attributes": OF_PF})
        fleet.host_of("h1", [card])
        [device] = fleet.claim("gpu:1").devices
        assert (device.pf_mac_address, device.pf_netdev, device.vf_num) == (None, None, None)
        assert device.card_serial_number == "MT2113X00001"
        assert set(device.binding_profile) == {"pci_slot", "pci_vendor_info", "physical_network"}

    def test_the_serial_number_of_a_vf_takes_precedence_over_that_of_its_pf(self, fleet: Fleet) -> None:
        fleet.host_of("h1", port_with_facts(serial="OF THE VF"))
        [device] = fleet.claim("nic-vf:1").devices
        assert device.card_serial_number == "OF THE VF"

    @pytest.mark.parametrize(
        ("tags", "trusted"),
        [({"trusted": "True"}, True), ({"trusted": "false"}, False), ({}, None)],
    )
    def test_a_device_is_trusted_as_its_tag_says(
        self, fleet: Fleet, tags: dict[str, str], trusted: bool | None
    ) -> None:
        fleet.host_of("h1", port_with_facts(tags=tags))
        [device] = fleet.claim("nic-vf:1").devices
        assert (device.trusted, device.tags) == (trusted, tags)

    def test_every_answer_about_a_claim_has_the_facts(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", port_with_facts(tags=NETWORK))
        fleet.host_of("h2", port_with_facts(tags=NETWORK))
        claim = fleet.claim("nic-vf:2", hosts=["h1"])
        facts = [device.binding_profile for device in claim.devices]
        again = fleet.claim("nic-vf:2", claim.claim_id, claim.instance_id, hosts=["h1"])
        assert [device.binding_profile for device in again.devices] == facts
        host.done(claim)
        move = fleet.move(claim, hosts=["h2"])
        for answer in (fleet.show(claim), move.source, move.target, fleet.release(move.target)):
            assert [device.binding_profile for device in answer.devices] == facts

    def test_an_ended_claim_still_shows_the_facts(self, fleet: Fleet) -> None:
        fleet.host_of("h1", port_with_facts(tags=NETWORK))
        claim = fleet.claim("nic-vf:1")
        fleet.leave(claim)
        [device] = fleet.show(claim).devices
        assert (device.vf_num, device.tags, device.pf_mac_address) == (0, NETWORK, MAC)


class TestAgents:
    def test_an_old_agent_reports_no_numbers_of_vfs(self, fleet: Fleet) -> None:
        old = [
            device.model_copy(update={"attributes": OF_PF if device.dev_type == "type-PF" else {}})
            for device in port_devices(0, 1)
        ]
        fleet.host_of("h1", old)
        [device] = fleet.claim("nic-vf:1").devices
        assert (device.vf_num, device.pf_mac_address) == (None, MAC)
        assert "vf_num" not in device.binding_profile

    def test_an_agent_that_reports_no_attributes_at_all(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=1)
        [device] = fleet.claim("nic-vf:1").devices
        assert (device.pf_mac_address, device.pf_netdev, device.card_serial_number) == (None, None, None)
        assert device.binding_profile == {
            "pci_slot": vf(0, 0),
            "pci_vendor_info": "8086:154c",
            "physical_network": None,
        }

    @pytest.mark.parametrize("nonsense", ["first", True, None, "0"])
    def test_a_number_that_is_none_does_not_break_a_claim(self, fleet: Fleet, nonsense: object) -> None:
        fleet.host_of("h1", port_with_facts(vf_num=nonsense))
        [device] = fleet.claim("nic-vf:1").devices
        assert device.vf_num is None


class TestPreparedPf:
    """A PF on vfio-pci has no network interface, so that its host does not see its MAC."""

    def test_its_mac_stays_known_while_a_claim_holds_it(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", port_with_facts())
        claim = fleet.claim("nic-pf:1", attach="on-call")
        vfio(host)
        host.prepared(claim)
        vfio(host)
        [whole] = fleet.show(claim).devices
        assert (whole.pf_mac_address, whole.pf_netdev) == (MAC, None)
        assert whole.binding_profile["device_mac_address"] == MAC

    def test_a_mac_that_is_reported_replaces_it(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", port_with_facts())
        claim = fleet.claim("nic-pf:1")
        vfio(host)
        host.change(pf(0), attributes=OF_PF | {"mac": "3c:fd:fe:00:00:99"})
        host.report()
        assert fleet.show(claim).devices[0].pf_mac_address == "3c:fd:fe:00:00:99"

    def test_a_pf_that_no_claim_holds_has_no_other_mac_than_the_reported_one(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", port_with_facts())
        vfio(host)
        assert fleet.claim("nic-pf:1").devices[0].pf_mac_address is None

    def test_a_report_that_says_the_same_writes_nothing(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", port_with_facts())
        fleet.claim("nic-pf:1")
        vfio(host)
        before = fleet.contents()["pci_devices"]
        fleet.sql("UPDATE compute_nodes SET inventory_digest = NULL")
        host.report()
        assert fleet.contents()["pci_devices"] == before
