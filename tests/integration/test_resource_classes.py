"""Aliases and requests by resource class and traits, as they are written for PCI in Placement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from portclaim.common import config
from portclaim.common.errors import ClaimRefused, InvalidRequest
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.device_request import DeviceRequest
from tests.support.fleet import X710, Fleet, port_devices, slice_of, vf
from tests.support.looking import addresses
from tests.support.services import as_ini

A16_16A = {"resource_class": "CUSTOM_A16_16A", "traits": "CUSTOM_BIG,CUSTOM_BLUE"}
A16_8A = {"resource_class": "CUSTOM_A16_8A"}

ALIASES = [
    {"name": "A16_16A", "device_type": "type-VF", "resource_class": "A16-16A"},
    {"name": "A16_8A", "device_type": "type-VF", "resource_class": "CUSTOM_A16_8A"},
    {"name": "blue", "device_type": "type-VF", "resource_class": "A16-16A", "traits": "blue, big"},
    {"name": "red", "device_type": "type-VF", "resource_class": "A16-16A", "traits": "red"},
    {"name": "ids", "device_type": "type-VF", "vendor_id": X710.vendor, "product_id": X710.vf},
    {
        "name": "ids and class",
        "device_type": "type-VF",
        "vendor_id": X710.vendor,
        "product_id": X710.vf,
        "resource_class": "A16_8A",
    },
    {"name": "either", "device_type": "type-VF", "resource_class": "A16_8A"},
    {"name": "either", "device_type": "type-VF", "resource_class": "A16_16A", "traits": "blue"},
    {"name": "whole", "device_type": "type-PF", "resource_class": f"CUSTOM_PCI_{X710.vendor}_{X710.pf}"},
]


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    """A port with VFs of two classes, and a port whose entry names no class."""
    fleet = Fleet(database_url, aliases=[json.dumps(alias) for alias in ALIASES])
    port, *_ = port_devices(0, 1)
    fleet.host_of(
        "gpus",
        [
            port,
            *(slice_of(0, number, tags=A16_16A) for number in (0, 1)),
            *(slice_of(0, number, tags=A16_8A) for number in (2, 3)),
        ],
    )
    fleet.host("plain", ports=1, vfs=2)
    yield fleet
    assert fleet.faults() == []
    fleet.close()


def refused(fleet: Fleet, alias: str, **facts: object) -> str:
    with pytest.raises(ClaimRefused) as refusal:
        fleet.claim(alias, **facts)  # type: ignore[arg-type]
    return refusal.value.message


def test_an_alias_by_class_gets_devices_of_its_class_only(fleet: Fleet) -> None:
    assert addresses(fleet.claim("A16_16A:2")) == [vf(0, 0), vf(0, 1)]
    assert addresses(fleet.claim("A16_8A:1")) == [vf(0, 2)]
    assert "no host has" in refused(fleet, "A16_16A:1")


def test_a_class_that_no_device_has_is_told(fleet: Fleet) -> None:
    said = "no host has a device of this resource class with these vendor and product ids"
    assert refused(fleet, "", requests=[DeviceRequest(count=1, resources={"fpga": 1})]) == said


def test_an_alias_by_traits_gets_devices_that_have_all_of_them(fleet: Fleet) -> None:
    assert addresses(fleet.claim("blue:1")) == [vf(0, 0)]
    assert refused(fleet, "red:1") == "no host has such a device with these tags"


def test_ids_and_a_class_must_both_agree(fleet: Fleet) -> None:
    assert addresses(fleet.claim("ids and class:1")) == [vf(0, 2)]


def test_an_alias_by_ids_gets_devices_of_every_class(fleet: Fleet) -> None:
    assert len(fleet.claim("ids:4", hosts=["gpus"]).devices) == 4
    assert fleet.claim("ids:1").host == "plain"


def test_the_class_of_the_ids_is_the_default_of_a_device(fleet: Fleet) -> None:
    assert fleet.claim("whole:1", hosts=["plain"]).devices[0].dev_type == "type-PF"


def test_classes_are_alternatives_too(fleet: Fleet) -> None:
    assert len(fleet.claim("either:4").devices) == 4
    assert "no host has a free device" in refused(fleet, "either:1")


def test_classes_of_one_claim_are_matched_exactly(fleet: Fleet) -> None:
    """The alias that takes either class leaves the one that the other alias needs."""
    claim = fleet.claim("either:2,A16_16A:2")
    assert [device.request_index for device in claim.devices] == [0, 0, 1, 1]
    assert {device.address for device in claim.devices if device.request_index == 1} == {vf(0, 0), vf(0, 1)}


class TestGranularRequests:
    def ask(self, fleet: Fleet, **facts: object) -> Claim:
        return fleet.claim("", requests=[DeviceRequest.model_validate({"count": 1, **facts})])

    def test_a_class_and_traits_are_enough(self, fleet: Fleet) -> None:
        assert addresses(self.ask(fleet, resources={"A16_16A": 1}, required=["CUSTOM_BLUE"])) == [vf(0, 0)]
        assert addresses(self.ask(fleet, count=2, resources={"CUSTOM_A16_8A": 2})) == [vf(0, 2), vf(0, 3)]

    def test_they_add_to_the_spec(self, fleet: Fleet) -> None:
        spec = [{"vendor_id": X710.vendor, "product_id": X710.vf}, {"vendor_id": "ffff"}]
        assert addresses(self.ask(fleet, spec=spec, required=["big"])) == [vf(0, 0)]
        with pytest.raises(ClaimRefused):
            self.ask(fleet, spec=[{"vendor_id": "ffff"}], resources={"A16_8A": 1})

    def test_a_class_in_both_places_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(InvalidRequest, match="spec names resource_class too"):
            self.ask(fleet, spec=[{"resource_class": "A"}], resources={"A16_8A": 1})

    def test_a_pf_needs_its_type(self, fleet: Fleet) -> None:
        whole = {f"CUSTOM_PCI_{X710.vendor}_{X710.pf}": 1}
        with pytest.raises(ClaimRefused):
            self.ask(fleet, resources=whole)
        assert self.ask(fleet, spec=[{"dev_type": "type-PF"}], resources=whole).devices

    def test_a_waiting_claim_is_served_by_its_class(self, fleet: Fleet) -> None:
        holder = fleet.claim("A16_8A:2")
        waiting = fleet.claim(
            "", requests=[DeviceRequest(count=1, resources={"a16 8a": 1}, required=[])], wait=60
        )
        assert waiting.status == "waiting"
        fleet.leave(holder)
        fleet.serve()
        assert addresses(fleet.show(waiting)) == [vf(0, 2)]

    def test_only_a_call_that_has_them_needs_the_newer_version(self) -> None:
        def version(request: DeviceRequest) -> str:
            claim = ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), requests=[request])
            return versions.to_send(claim)[1]

        assert version(DeviceRequest(count=1, spec=[{}])) == "1.0"
        assert version(DeviceRequest(count=1, spec=[{}], required=["A"])) == "1.1"
        assert version(DeviceRequest(count=1, resources={"A": 1})) == "1.1"


def test_tags_of_an_agent_of_an_older_release_are_compared_in_the_same_way(fleet: Fleet) -> None:
    fleet.host("old", ports=1, vfs=1, tags={"resource_class": "a16-16a", "traits": "big, Blue"})
    assert fleet.claim("blue:1", hosts=["old"]).host == "old"


class TestOptionsOfPlacement:
    """The options that give Placement a part are taken, and explained once."""

    def file(self, directory: Path) -> Path:
        file = directory / "portclaim.conf"
        sections = {"pci": {"report_in_placement": True}, "filter_scheduler": {"pci_in_placement": True}}
        file.write_text(as_ini({"database": {"connection": "postgresql+psycopg2:///nowhere"}, **sections}))
        return file

    def test_each_has_its_explanation(self, tmp_path: Path) -> None:
        conf = config.load(["--config-file", str(self.file(tmp_path))], "test")
        assert config.explanations(conf) == [
            "[pci] report_in_placement is set: Portclaim keeps the inventory; a PF and its VFs can both be "
            "offered here, which Placement does not allow",
            "[filter_scheduler] pci_in_placement is set: Portclaim chooses the devices, by resource class "
            "and traits too; it asks no Placement",
        ]
        assert config.explanations(config.load([], "test")) == []

    def test_a_service_says_it_once_when_it_starts(self, tmp_path: Path) -> None:
        program = (
            "from unittest.mock import patch; from portclaim.common import service;"
            "patch.object(service.cotyledon, 'ServiceManager').start();"
            "service.main('scheduler', lambda conf: None)"
        )
        command = [sys.executable, "-c", program, "--config-file", str(self.file(tmp_path))]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert ended.stdout.count("Portclaim keeps the inventory") == 1
        assert ended.stdout.count("it asks no Placement") == 1
