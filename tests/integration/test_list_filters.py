"""What the filters of lists leave: of devices, claims, waiting claims and steps. Hosts: test_host_list."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from portclaim.common.errors import InvalidMessage
from portclaim.common.rpc.claim_messages import DeviceFilter
from portclaim.common.rpc.operator_messages import ClaimFilter, ListedClaim, StepFilter, WaitingFilter
from tests.support.fleet import CONNECTX5, X710, Fleet, gpu, pf, port_devices, vf


class TestDevices:
    @pytest.fixture(autouse=True)
    def _hosts(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, 2), *port_devices(1, 2, CONNECTX5), gpu(4)])
        fleet.host("h2", ports=1, vfs=2)

    def listed(self, fleet: Fleet, **wanted: Any) -> list[tuple[str, str]]:
        found = fleet.scheduler.devices(DeviceFilter(**wanted)).devices
        return [(device.host, device.address) for device in found]

    def test_ids(self, fleet: Fleet) -> None:
        roce = [("h1", pf(1)), ("h1", vf(1, 0)), ("h1", vf(1, 1))]
        assert self.listed(fleet, vendor_id=CONNECTX5.vendor) == roce
        assert self.listed(fleet, vendor_id=CONNECTX5.vendor, product_id=CONNECTX5.vf) == roce[1:]
        assert self.listed(fleet, product_id=X710.pf) == [("h1", pf(0)), ("h2", pf(0))]
        assert self.listed(fleet, vendor_id=X710.vendor, product_id=CONNECTX5.pf) == []
        assert self.listed(fleet, product_id="ffff") == []

    def test_types(self, fleet: Fleet) -> None:
        assert self.listed(fleet, dev_type="type-PCI") == [("h1", pf(4))]
        assert self.listed(fleet, dev_type="type-PF") == [("h1", pf(0)), ("h1", pf(1)), ("h2", pf(0))]
        assert self.listed(fleet, dev_type="type-VF", host="h2") == [("h2", vf(0, 0)), ("h2", vf(0, 1))]

    def test_a_claim(self, fleet: Fleet) -> None:
        both = fleet.claim("nic-pf:1,roce-vf:1", hosts=["h1"])
        held = [(both.host, device.address) for device in both.devices]
        assert self.listed(fleet, claim_id=both.claim_id) == sorted(held)
        assert self.listed(fleet, claim_id=both.claim_id, dev_type="type-VF") == [held[1]]
        assert self.listed(fleet, claim_id=both.claim_id, host="h2") == []
        assert self.listed(fleet, claim_id=uuid4()) == []

    def test_statuses_are_effective_ones(self, fleet: Fleet) -> None:
        fleet.attached(fleet.claim("nic-pf:1", hosts=["h2"]))
        fleet.claim("nic-vf:1", hosts=["h1"])
        fleet.hosts["h1"].lose(vf(1, 1))
        fleet.hosts["h1"].report()
        fleet.host("h3", ports=1, vfs=1)
        fleet.scheduler.drain("h3", "new fan")
        by_status = {
            "available": [("h1", vf(0, 1)), ("h1", pf(1)), ("h1", vf(1, 0)), ("h1", pf(4))],
            "claimed": [("h1", vf(0, 0))],
            "allocated": [("h2", pf(0))],
            "unclaimable": [("h1", pf(0))],
            "unavailable": [("h2", vf(0, 0)), ("h2", vf(0, 1)), ("h3", pf(0)), ("h3", vf(0, 0))],
            "removed": [("h1", vf(1, 1))],
        }
        for status, devices in by_status.items():
            assert self.listed(fleet, status=status) == devices
            shown = fleet.scheduler.devices(DeviceFilter(status=status)).devices
            assert {device.effective_status for device in shown} == {status}
        whole = self.listed(fleet)
        assert sorted(whole) == sorted(
            device for status, devices in by_status.items() if status != "removed" for device in devices
        )
        assert self.listed(fleet, status="available", product_id=X710.vf) == [("h1", vf(0, 1))]

    def test_a_port_comes_before_its_vfs_and_after_those_of_the_port_before(self, fleet: Fleet) -> None:
        assert self.listed(fleet) == [
            *[("h1", address) for address in (pf(0), vf(0, 0), vf(0, 1), pf(1), vf(1, 0), vf(1, 1), pf(4))],
            *[("h2", address) for address in (pf(0), vf(0, 0), vf(0, 1))],
        ]


class TestClaims:
    @pytest.fixture(autouse=True)
    def _hosts(self, fleet: Fleet) -> None:
        for name in ("h1", "h2"):
            fleet.host(name, ports=1, vfs=4)

    def listed(self, fleet: Fleet, **wanted: Any) -> list[ListedClaim]:
        return fleet.scheduler.claims(ClaimFilter(**wanted)).claims

    def ids(self, fleet: Fleet, **wanted: Any) -> list[UUID]:
        return [claim.claim_id for claim in self.listed(fleet, **wanted)]

    def aged(self, fleet: Fleet, claim_id: UUID, minutes: int) -> None:
        fleet.sql(
            "UPDATE claims SET created_at = now() - make_interval(mins => :minutes) WHERE id = :id",
            minutes=minutes,
            id=claim_id,
        )

    def test_a_claim_in_the_list_is_the_claim(self, fleet: Fleet) -> None:
        made = fleet.claim("nic-vf:2", hosts=["h2"])
        [listed] = self.listed(fleet)
        same = {"claim_id", "instance_id", "host", "status", "reason", "created_at", "updated_at"}
        assert listed.model_dump(include=same) == made.model_dump(include=same)
        assert listed.devices == [device.address for device in made.devices]
        assert listed.awaited_step == "attach"
        assert listed.age == pytest.approx(0, abs=60)
        [attached] = self.listed(fleet, statuses=[fleet.attached(made).status])
        assert (attached.status, attached.awaited_step) == ("allocated", None)

    def test_statuses(self, fleet: Fleet) -> None:
        claimed = fleet.claim("nic-vf:1", hosts=["h1"])
        allocated = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        prepared = fleet.claim("nic-vf:1", hosts=["h1"])
        fleet.hosts["h1"].prepared(prepared)
        releasing = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        fleet.release(releasing)
        waiting = fleet.claim("nic-pf:2", wait=600)
        failed = fleet.claim("nic-vf:1", hosts=["h2"])
        fleet.hosts["h2"].failed(failed, "no such instance")
        released = fleet.claim("nic-vf:1", hosts=["h2"])
        fleet.leave(released)
        by_status = {
            "claimed": claimed,
            "allocated": allocated,
            "prepared": prepared,
            "releasing": releasing,
            "waiting": waiting,
            "failed": failed,
            "released": released,
        }
        for status, claim in by_status.items():
            assert self.ids(fleet, statuses=[status]) == [claim.claim_id]
        live = [claim.claim_id for status, claim in by_status.items() if status not in {"failed", "released"}]
        assert self.ids(fleet) == live
        assert self.ids(fleet, statuses=["released", "failed", "released"]) == [
            failed.claim_id,
            released.claim_id,
        ]
        assert self.ids(fleet, statuses=["expired"]) == []
        [gone] = self.listed(fleet, statuses=["failed"])
        assert (gone.host, gone.reason, len(gone.devices)) == ("h2", "no such instance", 1)

    def test_a_host(self, fleet: Fleet) -> None:
        here, there = (fleet.claim("nic-vf:1", hosts=[host]) for host in ("h1", "h2"))
        ended = fleet.claim("nic-vf:2", hosts=["h1"])
        fleet.leave(ended)
        fleet.claim("nic-pf:2", wait=600)
        assert self.ids(fleet, host="h1") == [here.claim_id]
        assert self.ids(fleet, host="h2") == [there.claim_id]
        assert self.ids(fleet, host="h1", statuses=["released"]) == [ended.claim_id]
        assert self.ids(fleet, host="h1", statuses=["released", "claimed"]) == [here.claim_id, ended.claim_id]
        assert self.ids(fleet, host="h1", statuses=["waiting", "failed"]) == []
        assert self.ids(fleet, host="h9") == []

    def test_an_instance(self, fleet: Fleet) -> None:
        source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        move = fleet.move(source, hosts=["h2"])
        fleet.claim("nic-vf:1")
        ended = fleet.claim("nic-vf:1", instance_id=source.instance_id)
        fleet.leave(ended)
        both = [source.claim_id, move.target.claim_id]
        assert self.ids(fleet, instance_id=source.instance_id) == both
        assert self.ids(fleet, instance_id=source.instance_id, host="h2") == both[1:]
        assert self.ids(fleet, instance_id=source.instance_id, statuses=["released", "allocated"]) == [
            source.claim_id,
            ended.claim_id,
        ]
        assert self.ids(fleet, instance_id=uuid4()) == []

    def test_ages(self, fleet: Fleet) -> None:
        old, young, new = (fleet.claim("nic-vf:1").claim_id for _ in range(3))
        self.aged(fleet, old, 60)
        self.aged(fleet, young, 20)
        assert self.ids(fleet) == [old, young, new], "the oldest comes first"
        for more in ({}, {"host": "h1"}):
            here = set(self.ids(fleet, **more))
            assert self.ids(fleet, older_than=600, **more) == [each for each in (old, young) if each in here]
            assert self.ids(fleet, newer_than=1800, **more) == [each for each in (young, new) if each in here]
        assert self.ids(fleet, older_than=600, newer_than=1800) == [young]
        assert self.ids(fleet, older_than=1800, newer_than=600) == []

    def test_what_cannot_be_a_filter_is_refused(self, fleet: Fleet) -> None:
        for wrong in (
            {"statuses": []},
            {"statuses": ["gone"]},
            {"older_than": -1},
            {"limit": 0},
        ):
            with pytest.raises(InvalidMessage):
                fleet.scheduler._call("claims", ClaimFilter.model_construct(**wrong), ListedClaim)


class TestWaiting:
    def test_an_instance_and_the_host_of_reserved_ports(self, fleet: Fleet) -> None:
        for name in ("h1", "h2"):
            fleet.host(name, ports=1, vfs=4)
        fleet.claim("nic-vf:1", hosts=["h1"])
        fleet.claim("nic-vf:1", hosts=["h2"])
        waits = [fleet.claim("nic-pf:1", hosts=[host], wait=600) for host in ("h1", "h2", "h1")]
        fleet.serve()

        def listed(**wanted: Any) -> list[tuple[UUID, int, str | None]]:
            found = fleet.scheduler.waiting(WaitingFilter(**wanted)).claims
            return [(claim.claim_id, claim.position, claim.reserved_host) for claim in found]

        first, second, third = (claim.claim_id for claim in waits)
        assert listed() == [(first, 1, "h1"), (second, 1, "h2"), (third, 2, None)]
        assert listed(host="h1") == [(first, 1, "h1")]
        assert listed(instance_id=waits[2].instance_id) == [(third, 2, None)]
        assert listed(instance_id=uuid4()) == []
        assert listed(host="h9") == []

    def test_the_position_in_a_queue_is_the_same_on_every_page(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        for alias in ("nic-vf:9", "gpu:1", "nic-vf:9", "nic-vf:9", "gpu:1", "nic-vf:9"):
            fleet.claim(alias, wait=600)
        positions, after = [], None
        for _ in range(3):
            page = fleet.scheduler.waiting(WaitingFilter(limit=2, after=after))
            positions += [(claim.alias, claim.position) for claim in page.claims]
            after = page.after
        assert positions == [
            ("nic-vf:9", 1),
            ("gpu:1", 1),
            ("nic-vf:9", 2),
            ("nic-vf:9", 3),
            ("gpu:1", 2),
            ("nic-vf:9", 4),
        ]


class TestSteps:
    def test_a_host_parked_steps_and_an_age(self, fleet: Fleet) -> None:
        for name in ("h1", "h2"):
            fleet.host(name, ports=1, vfs=4)
        old, parked, new = (fleet.claim("nic-vf:1", hosts=[host]).claim_id for host in ("h1", "h1", "h2"))
        for claim_id, minutes in ((old, 30), (parked, 20)):
            fleet.sql(
                "UPDATE outbox SET created_at = now() - make_interval(mins => :minutes) WHERE claim_id = :id",
                minutes=minutes,
                id=claim_id,
            )
        fleet.sql("UPDATE outbox SET send_after = 'infinity' WHERE claim_id = :id", id=parked)

        def listed(**wanted: Any) -> list[UUID]:
            return [step.claim_id for step in fleet.scheduler.awaited_steps(StepFilter(**wanted)).steps]

        assert listed() == [old, parked, new]
        assert listed(host="h1") == [old, parked]
        assert listed(parked=True) == [parked]
        assert listed(parked=True, host="h2") == []
        assert listed(older_than=600) == [old, parked]
        assert listed(older_than=1500) == [old]
        assert listed(older_than=1500, host="h2") == []
        assert listed(host="h9") == []
