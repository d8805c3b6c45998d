"""Which devices a claim gets: filters, NUMA and group policies, exact matching, packing; and why none."""

import json
from collections.abc import Iterator

import pytest

from portclaim.common.errors import ClaimRefused, InvalidRequest
from portclaim.common.rpc.agent_messages import NumaCell
from portclaim.common.rpc.claim_messages import Claim, Explanation
from portclaim.common.rpc.device_request import DeviceRequest
from tests.support.fleet import ALIASES, CONNECTX5, X710, Fleet, gpu, pf, port_devices, slice_of, vf
from tests.support.looking import addresses


def alias(name: str, device_type: str = "type-VF", product: str = X710.vf, **more: object) -> str:
    facts = {"name": name, "vendor_id": X710.vendor, "product_id": product, "device_type": device_type}
    return json.dumps(facts | more)


MORE_ALIASES = [
    *ALIASES,
    alias("required-vf", numa_policy="required"),
    alias("socket-vf", numa_policy="socket"),
    alias("preferred-vf", numa_policy="preferred"),
    alias("either"),
    alias("either", product=CONNECTX5.vf, vendor_id=CONNECTX5.vendor),
    json.dumps({"name": "any-x710", "vendor_id": X710.vendor, "product_id": X710.pf}),
]


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    fleet = Fleet(database_url, aliases=MORE_ALIASES)
    yield fleet
    assert fleet.faults() == []
    fleet.close()


@pytest.fixture
def spreading_fleet(database_url: str) -> Iterator[Fleet]:
    fleet = Fleet(database_url, packing_policy="spread")
    yield fleet
    assert fleet.faults() == []
    fleet.close()


def port_request(count: int = 1, **tags: str | None) -> DeviceRequest:
    """A request for VFs by tags, as a Neutron port makes it."""
    return DeviceRequest(count=count, spec=[{"vendor_id": X710.vendor, "product_id": X710.vf, **tags}])


def ports(claim: Claim) -> set[str | None]:
    return {device.parent_address for device in claim.devices}


def refusal(fleet: Fleet, alias: str, **particulars: object) -> Explanation:
    with pytest.raises(ClaimRefused) as refused:
        fleet.claim(alias, **particulars)  # type: ignore[arg-type]
    return Explanation.model_validate_json(json.dumps(refused.value.kwargs["explanation"]), strict=False)


class TestFilters:
    def test_tags_select_among_devices_with_the_same_ids(self, fleet: Fleet) -> None:
        fleet.host("plain")
        fleet.host("trusting", tags={"trusted": "true"})
        assert fleet.claim("", requests=[port_request(trusted="true")]).host == "trusting"

    def test_a_physical_network_selects_devices(self, fleet: Fleet) -> None:
        fleet.host("h1", tags={"physical_network": "physnet0"})
        fleet.host("h2", tags={"physical_network": "physnet1"})
        assert fleet.claim("", requests=[port_request(physical_network="physnet1")]).host == "h2"
        refusal(fleet, "", requests=[port_request(physical_network=None)])

    def test_a_pf_is_given_only_to_a_request_for_type_pf(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=0)
        assert [row.devices for row in refusal(fleet, "any-x710:1").filters if row.filter == "type"] == [0]
        assert addresses(fleet.claim("nic-pf:1")) == [pf(0)]

    def test_a_pf_that_is_not_offered_is_not_given(self, fleet: Fleet) -> None:
        top, *vfs = port_devices(0, 2)
        fleet.host_of("h1", [top.model_copy(update={"offered": False}), *vfs])
        refusal(fleet, "nic-pf:1")
        assert ports(fleet.claim("nic-vf:1")) == {pf(0)}

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"dev_type": "vdpa"}, "hands out no vDPA devices: ask for type-VF"),
            ({"parent_ifname": "ens1f0"}, "does not compare parent_ifname: give the port a tag"),
        ],
    )
    def test_what_no_device_can_ever_serve_is_refused_with_what_to_do(
        self, fleet: Fleet, asked: dict[str, str], says: str
    ) -> None:
        fleet.host("h1")
        request = DeviceRequest(count=1, spec=[{"vendor_id": X710.vendor}, dict(asked)])
        with pytest.raises(InvalidRequest, match=says):
            fleet.claim("", requests=[request])

    def test_a_disabled_host_is_not_used(self, fleet: Fleet) -> None:
        fleet.host("h1")
        fleet.sql("UPDATE compute_nodes SET disabled_reason = 'new fan' WHERE host = 'h1'")
        why = refusal(fleet, "nic-vf:1")
        assert why.nearest_miss == "every host or port with such a device is drained: h1: new fan"
        fleet.host("h2")
        assert fleet.claim("nic-vf:1").host == "h2"

    def test_a_host_with_a_silent_agent_is_not_used(self, fleet: Fleet) -> None:
        silent = fleet.host("h1")
        fleet.sql("UPDATE compute_nodes SET last_seen = now() - interval '1 hour' WHERE host = 'h1'")
        why = refusal(fleet, "nic-pf:1")
        assert why.nearest_miss == "the agent of every host with such a device is silent"
        silent.sign_of_life()
        assert fleet.claim("nic-pf:1").host == "h1"

    @pytest.mark.parametrize("wanted", ["nic-vf:1", "nic-pf:1", "nic-vf:1,gpu:1"])
    def test_hosts_and_avoid_hosts_limit_the_choice(self, fleet: Fleet, wanted: str) -> None:
        for name in ("h1", "h2", "h3"):
            fleet.host_of(name, [*port_devices(0, 4), gpu(1)])
        assert fleet.claim(wanted, hosts=["h2"]).host == "h2"
        assert fleet.claim(wanted, hosts=["h1", "h3"], avoid_hosts=["h1"]).host == "h3"
        assert fleet.claim(wanted, avoid_hosts=["h2", "h3"]).host == "h1"
        refusal(fleet, wanted, hosts=["nowhere"])
        refusal(fleet, wanted, avoid_hosts=["h1", "h2", "h3"])


class TestNuma:
    CELLS = (NumaCell(id=0, socket=0), NumaCell(id=1, socket=0), NumaCell(id=2, socket=1))

    def host(self, fleet: Fleet, *nodes: int | None) -> None:
        """A host with a port of one VF on each of these NUMA nodes."""
        devices = [d for port, node in enumerate(nodes) for d in port_devices(port, 1, numa_node=node)]
        fleet.host_of("h1", devices, self.CELLS)

    def test_required_takes_a_device_of_the_instances_cells_or_none(self, fleet: Fleet) -> None:
        self.host(fleet, 2, 1)
        assert addresses(fleet.claim("required-vf:1", numa_cells=[1])) == [vf(1, 0)]
        refusal(fleet, "required-vf:1", numa_cells=[0])

    def test_socket_also_takes_a_device_of_the_same_socket(self, fleet: Fleet) -> None:
        self.host(fleet, 2, 1)
        assert addresses(fleet.claim("socket-vf:1", numa_cells=[0])) == [vf(1, 0)]
        refusal(fleet, "socket-vf:1", numa_cells=[0])

    def test_preferred_takes_the_nearest_there_is(self, fleet: Fleet) -> None:
        self.host(fleet, 2, 1)
        assert addresses(fleet.claim("preferred-vf:1", numa_cells=[1])) == [vf(1, 0)]
        assert addresses(fleet.claim("preferred-vf:1", numa_cells=[1])) == [vf(0, 0)]

    def test_legacy_takes_a_near_device_or_one_without_a_node(self, fleet: Fleet) -> None:
        self.host(fleet, 2, None, 1)
        assert addresses(fleet.claim("nic-vf:1", numa_cells=[1])) == [vf(2, 0)]
        assert addresses(fleet.claim("nic-vf:1", numa_cells=[1])) == [vf(1, 0)]
        refusal(fleet, "nic-vf:1", numa_cells=[1])

    def test_the_flavor_overrides_the_alias(self, fleet: Fleet) -> None:
        self.host(fleet, 2)
        override = {"hw:pci_numa_affinity_policy": "preferred"}
        assert addresses(fleet.claim("required-vf:1", numa_cells=[1], **override)) == [vf(0, 0)]

    def test_numa_policies_are_ignored_for_an_instance_without_cells(self, fleet: Fleet) -> None:
        self.host(fleet, 2)
        assert addresses(fleet.claim("required-vf:1")) == [vf(0, 0)]

    @pytest.mark.parametrize("wanted", ["nic-vf:1", "nic-pf:1"])
    def test_without_a_numa_policy_the_last_device_of_a_scarce_cell_is_left(
        self, fleet: Fleet, wanted: str
    ) -> None:
        self.host(fleet, 0, 1, 1)
        (device,) = fleet.claim(wanted).devices
        assert device.numa_node == 1


class TestGroupPolicy:
    def test_isolate_takes_every_vf_from_another_port(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        assert ports(fleet.claim("nic-vf:2", group_policy="isolate")) == {pf(0), pf(1)}
        refusal(fleet, "nic-vf:3", group_policy="isolate")

    def test_without_isolate_all_vfs_come_from_one_port(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        assert len(ports(fleet.claim("nic-vf:2"))) == 1


class TestExactMatching:
    def test_a_device_goes_to_the_request_that_no_other_device_suits(self, fleet: Fleet) -> None:
        """If requests were served in order, the first would take the only device that suits the second."""
        fleet.host_of("h1", [*port_devices(0, 1), *port_devices(1, 1, CONNECTX5)])
        made = fleet.claim("either:1,nic-vf:1")
        assert [device.product_id for device in made.devices] == [CONNECTX5.vf, X710.vf]

    def test_a_pf_and_vfs_share_out_the_ports(self, fleet: Fleet) -> None:
        """The PF must be the one of the small port, or the VFs would not fit. The order does not matter."""
        for name, wanted in (("h1", "nic-pf:1,nic-vf:4"), ("h2", "nic-vf:4,nic-pf:1")):
            fleet.host_of(name, [*port_devices(0, 4), *port_devices(1, 2)])
            made = fleet.claim(wanted, hosts=[name])
            assert {d.parent_address for d in made.devices} == {None, pf(0)}
            assert pf(1) in addresses(made)

    def test_the_host_that_can_serve_all_is_found_past_those_that_can_serve_each(self, fleet: Fleet) -> None:
        for number in range(12):
            fleet.host_of(f"port-{number}", port_devices(0, 4))
            fleet.host_of(f"gpu-{number}", [gpu(0)])
        fleet.host_of("both", [*port_devices(0, 4), gpu(1)])
        assert fleet.claim("nic-vf:1,gpu:1").host == "both"

    def test_several_pfs_on_one_host(self, fleet: Fleet) -> None:
        for name, number in (("h1", 1), ("h2", 2), ("h3", 1)):
            fleet.host(name, ports=number)
        made = fleet.claim("nic-pf:2")
        assert (made.host, sorted(addresses(made))) == ("h2", [pf(0), pf(1)])

    def test_vfs_of_several_ports_where_none_has_enough(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=2)
        assert ports(fleet.claim("nic-vf:3")) == {pf(0), pf(1)}


class TestPacking:
    def test_pack_fills_the_fullest_port_before_it_begins_another(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=3, vfs=2)
        assert [len({*ports(fleet.claim("nic-vf:1"))}) for _ in range(6)] == [1] * 6
        assert fleet.sql("SELECT held, free FROM port_pools") == [(2, 0)] * 3

    def test_pack_leaves_whole_ports_whole(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=4)
        fleet.host("h2", ports=2, vfs=4)
        assert len({(fleet.claim("nic-vf:1").host, pf(0)) for _ in range(4)}) == 1
        assert [fleet.claim("nic-pf:1").status for _ in range(3)] == ["claimed"] * 3

    def test_pack_gives_the_pf_whose_loss_costs_the_fewest_vfs(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 8), *port_devices(1, 2), *port_devices(2, 4)])
        assert [addresses(fleet.claim("nic-pf:1")) for _ in range(3)] == [[pf(1)], [pf(2)], [pf(0)]]

    def test_pack_goes_where_the_room_fits_best(self, fleet: Fleet) -> None:
        roomy = fleet.host("roomy", ports=1, vfs=4)
        tight = fleet.host("tight", ports=1, vfs=4)
        fleet.claim("nic-vf:1", hosts=[roomy.name])
        fleet.claim("nic-vf:2", hosts=[tight.name])
        assert fleet.claim("nic-vf:2").host == "tight"
        assert fleet.claim("nic-vf:3").host == "roomy"

    def test_spread_uses_every_port_before_one_twice(self, spreading_fleet: Fleet) -> None:
        spreading_fleet.host("h1", ports=4, vfs=2)
        used = [ports(spreading_fleet.claim("nic-vf:1")) for _ in range(4)]
        assert set.union(*used) == {pf(0), pf(1), pf(2), pf(3)}

    def test_spread_takes_the_port_with_the_most_vfs(self, spreading_fleet: Fleet) -> None:
        spreading_fleet.host_of("h1", [*port_devices(0, 2), *port_devices(1, 8)])
        assert addresses(spreading_fleet.claim("nic-pf:1")) == [pf(1)]

    def test_several_requests_follow_the_policy_too(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 4), *port_devices(1, 4), gpu(2)])
        fleet.claim("nic-vf:1", hosts=["h1"])
        (used,) = fleet.sql(
            "SELECT port.address FROM port_pools JOIN pci_devices port ON port.id = port_id WHERE held > 0"
        )
        assert ports(fleet.claim("nic-vf:1,gpu:1")) == {*used, None}


class TestExplanation:
    def test_the_explanation_names_the_instances_that_block_a_pf(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        fleet.host("h2", ports=1, vfs=4)
        holders = [fleet.claim("nic-vf:1", hosts=[name]) for name in ("h1", "h2")]
        why = refusal(fleet, "nic-pf:1")
        assert why.nearest_miss == (
            "no host has a free device for this request (1 needed). "
            "Closest: a PF on host h1 (and on 1 more host) "
            f"is blocked because one of its VFs is held by instance {holders[0].instance_id} and 1 more"
        )
        assert [(miss.host, miss.address, miss.held_by, miss.vfs_held) for miss in why.misses] == [
            (name, pf(0), [holder.instance_id], 1) for name, holder in zip(("h1", "h2"), holders, strict=True)
        ]

    def test_the_explanation_names_the_instance_that_holds_the_pf_of_a_vf(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        holder = fleet.claim("nic-pf:1")
        why = refusal(fleet, "nic-vf:1")
        assert f"a VF on host h1 is blocked because its PF is held by instance {holder.instance_id}" in str(
            why.nearest_miss
        )

    def test_the_explanation_says_that_every_host_has_too_few_devices(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        fleet.host("h2", ports=1, vfs=2)
        assert (
            refusal(fleet, "nic-vf:5").nearest_miss
            == "no host has enough free devices for this request (5 needed, h1 has 4)"
        )

    def test_a_dry_run_gives_the_same_explanation_and_takes_nothing(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        assert fleet.explain("nic-vf:4").served
        assert not fleet.explain("nic-vf:5").served
        assert set(fleet.status("h1").values()) == {"available"}

    def test_each_filter_leaves_fewer_devices(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 4, tags={"trusted": "true"}), gpu(1)])
        fleet.host_of("h2", [*port_devices(0, 4), slice_of(0, 4)])
        filters = refusal(fleet, "", requests=[port_request(count=9, trusted="true")]).filters
        assert [row.filter for row in filters][:4] == ["ids", "tags", "type", "remote_managed"]
        assert [row.devices for row in filters][:3] == [9, 4, 4]
        counts = [row.devices for row in filters]
        assert counts == sorted(counts, reverse=True)
