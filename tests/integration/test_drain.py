"""Operators drain hosts and ports, undrain them, and remove hosts."""

from functools import partial

import pytest

from portclaim.common.errors import ClaimRefused, HostInUse, HostIsAlive, InvalidRequest, UnknownHost
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, Host, pf, port_devices, slice_of, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Two ports with two VFs each."""
    return fleet.host("h1", ports=2, vfs=2)


def reasons(fleet: Fleet) -> dict[str, str | None]:
    return dict(fleet.sql("SELECT address, reason FROM pf_vf_tree WHERE host = 'h1'"))


class TestHost:
    def test_a_drained_host_gets_no_claims_and_explain_says_why(self, fleet: Fleet, host: Host) -> None:
        stays = fleet.claim("nic-vf:1")
        assert fleet.scheduler.drain("h1", "new fan") == 1
        with pytest.raises(ClaimRefused, match="drained: h1: new fan"):
            fleet.claim("nic-vf:1")
        assert fleet.explain("nic-pf:1").nearest_miss == (
            "every host or port with such a device is drained: h1: new fan"
        )
        assert reasons(fleet)[pf(1)] == "host drained: new fan"
        host.done(stays)
        host.done(fleet.release(stays))
        assert fleet.show(stays).status == "released"

    def test_an_undrained_host_gets_claims_again(self, fleet: Fleet) -> None:
        fleet.scheduler.drain("h1", "new fan")
        assert fleet.scheduler.undrain("h1") == 0
        assert fleet.claim("nic-pf:1").host == "h1"

    def test_draining_twice_changes_nothing(self, fleet: Fleet) -> None:
        fleet.scheduler.drain("h1", "new fan")
        fleet.scheduler.drain("h1", "flapping", pf(0))
        before = fleet.contents()
        fleet.scheduler.drain("h1", "new fan")
        fleet.scheduler.drain("h1", "flapping", pf(0))
        assert fleet.contents() == before

    def test_a_silent_host_gets_no_claims_until_it_reports_again(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.falls_silent("h1")
        with pytest.raises(ClaimRefused, match="the agent of every host with such a device is silent"):
            fleet.claim("nic-vf:1")
        assert fleet.show(claim).status == "claimed", "a silent host keeps its claims"
        host.sign_of_life()
        assert fleet.claim("nic-vf:1").host == "h1"

    def test_unknown_hosts_and_ports_are_refused(self, fleet: Fleet) -> None:
        before = fleet.contents()
        for call in (
            partial(fleet.scheduler.drain, "h9", "new fan"),
            partial(fleet.scheduler.drain, "h9", "new fan", pf(0)),
            partial(fleet.scheduler.undrain, "h9"),
            partial(fleet.scheduler.remove_host, "h9", "ann", "sold"),
        ):
            with pytest.raises(UnknownHost, match="there is no host h9"):
                call()
        with pytest.raises(InvalidRequest, match="host h1 has no device"):
            fleet.scheduler.drain("h1", "flapping", pf(7))
        with pytest.raises(InvalidRequest, match=f"is a VF.*{pf(0)}"):
            fleet.scheduler.drain("h1", "flapping", vf(0, 1))
        assert fleet.contents() == before


class TestPort:
    def test_a_drained_port_gets_no_claims_and_the_other_port_does(self, fleet: Fleet) -> None:
        fleet.scheduler.drain("h1", "flapping", pf(0))
        assert reasons(fleet) == {
            **dict.fromkeys([pf(0), vf(0, 0), vf(0, 1)], "port drained: flapping"),
            **dict.fromkeys([pf(1), vf(1, 0), vf(1, 1)], None),
        }
        assert [device.parent_address for device in fleet.claim("nic-vf:2").devices] == [pf(1)] * 2
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1")
        fleet.scheduler.undrain("h1", pf(0))
        assert [device.address for device in fleet.claim("nic-pf:1").devices] == [pf(0)]

    def test_explain_says_that_all_ports_are_drained(self, fleet: Fleet) -> None:
        for port in (0, 1):
            fleet.scheduler.drain("h1", "flapping", pf(port))
        assert fleet.explain("nic-vf:1").nearest_miss == (
            "every host or port with such a device is drained: h1: flapping"
        )

    @pytest.mark.parametrize("alias_spec", ["nic-pf:1", "nic-vf:1", "nic-vf:2"])
    def test_devices_of_a_drained_port_stay_held_and_are_not_claimed_again(
        self, fleet: Fleet, host: Host, alias_spec: str
    ) -> None:
        claim, other = fleet.claim(alias_spec), fleet.claim("nic-pf:1")
        host.done(claim)
        port = claim.devices[0].parent_address or claim.devices[0].address
        assert fleet.scheduler.drain("h1", "flapping", port) == 1
        assert fleet.status("h1")[claim.devices[0].address] == "allocated"
        host.done(fleet.release(claim))
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1")
        fleet.scheduler.undrain("h1", port)
        assert fleet.claim("nic-pf:1").devices[0].address == port
        fleet.release(other)

    def test_a_vf_released_on_a_drained_port_is_unavailable(self, fleet: Fleet, host: Host) -> None:
        first, second = (fleet.claim("nic-vf:1") for _ in range(2))
        fleet.scheduler.drain("h1", "flapping", pf(0))
        host.done(fleet.release(first))
        assert fleet.status("h1")[first.devices[0].address] == "unavailable"
        assert fleet.claim("nic-vf:1").devices[0].parent_address == pf(1)
        host.done(fleet.release(second))

    def test_a_report_leaves_a_port_drained_and_new_vfs_are_drained_too(
        self, fleet: Fleet, host: Host
    ) -> None:
        fleet.scheduler.drain("h1", "flapping", pf(0))
        host.add(slice_of(0, 2))
        host.change(vf(0, 1), attributes={"driver": "iavf"})
        host.report()
        assert {fleet.status("h1")[vf(0, number)] for number in range(3)} == {"unavailable"}
        host.lose(vf(0, 2))
        host.report()
        host.add(slice_of(0, 2))
        host.report()
        assert fleet.status("h1")[vf(0, 2)] == "unavailable"
        fleet.scheduler.undrain("h1", pf(0))
        assert set(fleet.status("h1").values()) == {"available"}

    def test_a_vf_that_moves_is_drained_if_its_new_port_is_drained(self, fleet: Fleet, host: Host) -> None:
        fleet.scheduler.drain("h1", "flapping", pf(0))
        host.change(vf(0, 0), parent_address=pf(1))
        host.change(vf(1, 0), parent_address=pf(0))
        host.report()
        assert fleet.status("h1")[vf(0, 0)] == "available"
        assert fleet.status("h1")[vf(1, 0)] == "unavailable"

    def test_concurrent_drain_undrain_release_and_report_break_no_rule(
        self, fleet: Fleet, host: Host
    ) -> None:
        for _ in range(5):
            claim = fleet.claim("nic-vf:1")
            at_once(
                [
                    partial(fleet.scheduler.drain, "h1", "flapping", pf(0)),
                    partial(fleet.scheduler.undrain, "h1", pf(0)),
                    partial(fleet.release, claim),
                    partial(host.done, claim, 2),
                    host.report,
                ]
            )
            assert fleet.faults() == []
            if fleet.show(claim).status != "released":
                host.done(fleet.release(claim))
            fleet.scheduler.undrain("h1", pf(0))
            assert set(fleet.status("h1").values()) == {"available"}


class TestRemoval:
    def test_removing_a_silent_host_removes_its_devices_and_keeps_its_history(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(fleet.release(claim))
        fleet.falls_silent("h1")
        assert fleet.scheduler.remove_host("h1", "ann", "sold") == 0
        assert set(fleet.status("h1").values()) == {"removed"}
        assert fleet.sql("SELECT drained_reason, devices FROM hosts") == [("removed by ann: sold", 0)]
        assert fleet.sql("SELECT claim_id FROM device_history") == [(claim.claim_id,)]
        before = fleet.contents()
        fleet.scheduler.remove_host("h1", "ann", "sold")
        assert fleet.contents() == before

    def test_a_host_that_is_alive_or_in_use_is_not_removed(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        before = fleet.contents()
        for force in (False, True):
            with pytest.raises(HostIsAlive, match="stop its agent first"):
                fleet.scheduler.remove_host("h1", "ann", "sold", force=force)
        assert fleet.contents() == before
        fleet.falls_silent("h1")
        before = fleet.contents()
        with pytest.raises(HostInUse, match="1 live claims"):
            fleet.scheduler.remove_host("h1", "ann", "sold")
        assert fleet.contents() == before

    def test_removal_by_force_ends_the_claims_of_the_host(self, fleet: Fleet, host: Host) -> None:
        claims = [fleet.claim("nic-pf:1"), fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")]
        host.done(claims[0])
        fleet.release(claims[1])
        fleet.falls_silent("h1")
        assert fleet.scheduler.remove_host("h1", "ann", "burnt down", force=True) == 3
        assert {fleet.show(claim).reason for claim in claims} == {"released by force, by ann: burnt down"}
        assert set(fleet.status("h1").values()) == {"removed"}
        assert host.ended(*(claim.claim_id for claim in claims)) == sorted(claim.claim_id for claim in claims)

    def test_a_removed_host_that_reports_again_is_drained_until_it_is_undrained(
        self, fleet: Fleet, host: Host
    ) -> None:
        fleet.falls_silent("h1")
        fleet.scheduler.remove_host("h1", "ann", "sold")
        assert host.sign_of_life().resend
        host.add(*port_devices(2, 2))
        host.report()
        with pytest.raises(ClaimRefused, match="removed by ann: sold"):
            fleet.claim("nic-vf:1")
        fleet.scheduler.undrain("h1")
        assert fleet.claim("nic-vf:1").host == "h1"
