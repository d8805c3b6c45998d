"""A claim's network settings: which device gets which, and their way to the agent that sets them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common.db import outbox
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ClaimConflict, ClaimRefused, InvalidRequest
from portclaim.common.rpc import versions
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.candidate_messages import CandidatesRequest
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, ExplainRequest
from portclaim.common.rpc.move_messages import MoveRequest
from portclaim.common.rpc.network_settings import DeviceNetworkSettings
from tests.support.concurrency import wait_until
from tests.support.fleet import ALIASES, CONNECTX5, Fleet, Host, request_for
from tests.support.one_host import OneHost, one_host
from tests.support.services import Services

PROGRAM = Path(sys.executable).with_name("portclaim")
SETS = {"network_settings": "true"}  # the tag of devices whose agent sets network settings
MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"]


def asking(*entries: dict[str, Any]) -> list[DeviceNetworkSettings]:
    return [DeviceNetworkSettings.model_validate(entry) for entry in entries]


def macs_of(devices: Any) -> list[str | None]:
    return [device.network_settings and device.network_settings.mac for device in devices]


def steps_in_outbox(fleet: Fleet, claim: Claim) -> list[Step]:
    """What a relay would send again."""
    return [sent.step for sent in in_transaction(fleet.engine, lambda c: outbox.read(c, [claim.claim_id]))]


@pytest.fixture
def host(fleet: Fleet) -> Host:
    return fleet.host("h1", ports=2, tags=SETS)


@pytest.mark.usefixtures("host")
class TestWhichDeviceGetsWhich:
    TWO = asking({"device_index": 1, "mac": MACS[1]}, {"device_index": 0, "mac": MACS[0], "vlan": {"id": 7}})

    def test_each_device_gets_its_own_in_the_answer_and_in_the_step(self, fleet: Fleet) -> None:
        claim = fleet.scheduler.claim(request_for("nic-vf:2", network_settings=self.TWO))
        assert macs_of(claim.devices) == MACS[:2]
        [(_, step)] = fleet.sent
        assert macs_of(step.devices) == MACS[:2]
        assert [device.address for device in step.devices] == [device.address for device in claim.devices]
        vlan = step.devices[0].network_settings and step.devices[0].network_settings.vlan
        assert vlan is not None
        assert (vlan.id, vlan.protocol) == (7, "802.1Q")

    def test_a_relay_sends_the_same_again(self, fleet: Fleet) -> None:
        claim = fleet.scheduler.claim(request_for("nic-vf:2", network_settings=self.TWO))
        assert steps_in_outbox(fleet, claim) == [step for _, step in fleet.sent]

    def test_an_agent_that_repairs_its_host_gets_the_same(self, fleet: Fleet, host: Host) -> None:
        fleet.scheduler.claim(request_for("nic-vf:2", network_settings=self.TWO))
        [holding] = host.holdings()
        assert macs_of(holding.devices) == MACS[:2]

    def test_the_requests_of_a_claim_are_told_apart(self, fleet: Fleet) -> None:
        entries = asking(
            *({"request_index": 1, "device_index": i, "mac": mac} for i, mac in enumerate(MACS[:2]))
        )
        claim = fleet.scheduler.claim(request_for("nic-vf:1,any-vf:2", network_settings=entries))
        assert [device.request_index for device in claim.devices] == [0, 1, 1]
        assert macs_of(claim.devices) == [None, *MACS[:2]]

    def test_claims_of_a_batch_have_their_own(self, fleet: Fleet) -> None:
        requests = [request_for("nic-vf:1", network_settings=asking({"mac": mac})) for mac in MACS]
        claims = fleet.scheduler.claim_many(requests)
        assert [macs_of(claim.devices) for claim in claims] == [[mac] for mac in MACS]  # type: ignore[union-attr]

    def test_a_claim_that_waited_has_them_too_and_settings_make_no_queue_of_their_own(
        self, fleet: Fleet, host: Host
    ) -> None:
        holder = fleet.claim("nic-pf:2")
        waiting = [
            fleet.scheduler.claim(request_for("nic-vf:1", wait=600, network_settings=asking({"mac": mac})))
            for mac in MACS[:2]
        ]
        assert fleet.sql("SELECT count(DISTINCT requests) FROM waiting_claims") == [(1,)]
        fleet.scheduler.release(holder.claim_id)
        host.done(holder)
        while fleet.queues.work():
            pass
        assert [macs_of(fleet.show(claim).devices) for claim in waiting] == [[mac] for mac in MACS[:2]]

    def test_the_target_of_a_move_has_those_of_its_source_or_its_own(self, fleet: Fleet, host: Host) -> None:
        fleet.host("h2", tags=SETS)
        source = fleet.scheduler.claim(
            request_for("nic-vf:1", hosts=["h1"], network_settings=asking({"mac": MACS[0]}))
        )
        host.done(source)
        for entries, mac in ((None, MACS[0]), (asking({"mac": MACS[1]}), MACS[1])):
            move = MoveRequest(claim_id=uuid4(), source_claim_id=source.claim_id, network_settings=entries)
            target = fleet.scheduler.move(move).target
            assert macs_of(target.devices) == [mac]
            fleet.scheduler.revert_move(target.claim_id)

    def test_what_is_given_back_needs_no_settings(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.scheduler.claim(request_for("nic-vf:1", network_settings=asking({"mac": MACS[0]})))
        host.done(claim)
        fleet.scheduler.release(claim.claim_id)
        [step] = steps_in_outbox(fleet, claim)
        assert step.action == "detach"
        assert macs_of(step.devices) == [None]
        assert versions.to_send(step)[1] == versions.to_send(fleet.sent[-1][1])[1] == "1.0"  # any agent can


@pytest.mark.usefixtures("host")
class TestTheSameClaimAgain:
    def test_the_same_settings_are_the_same_claim(self, fleet: Fleet) -> None:
        request = request_for("nic-vf:1", network_settings=asking({"mac": MACS[0].upper()}))
        again = request.model_copy(update={"network_settings": asking({"mac": MACS[0]})})
        assert fleet.scheduler.claim(request) == fleet.scheduler.claim(again)

    def test_other_settings_are_another_request(self, fleet: Fleet) -> None:
        request = request_for("nic-vf:1", network_settings=asking({"mac": MACS[0]}))
        fleet.scheduler.claim(request)
        for others in ([], asking({"mac": MACS[1]})):
            with pytest.raises(ClaimConflict):
                fleet.scheduler.claim(request.model_copy(update={"network_settings": others}))


@pytest.mark.usefixtures("host")
class TestWhoServesIt:
    def test_only_a_host_whose_agent_sets_them(self, fleet: Fleet) -> None:
        fleet.host("h0", ports=4)
        for mac in MACS:
            claim = fleet.scheduler.claim(request_for("nic-vf:1", network_settings=asking({"mac": mac})))
            assert claim.host == "h1"
        request = CandidatesRequest(
            extra_specs={"pci_passthrough:alias": "nic-vf:1"}, network_settings=asking({"mac": MACS[0]})
        )
        assert [found.host for found in fleet.scheduler.candidates(request).candidates] == ["h1"]

    def test_if_there_is_none_the_claim_is_refused_with_the_reason(self, fleet: Fleet) -> None:
        fleet.host("h0", card=CONNECTX5)
        request = request_for("roce-vf:1", network_settings=asking({"trust": True}))
        with pytest.raises(ClaimRefused) as error:
            fleet.scheduler.claim(request)
        assert str(error.value) == (
            "no host has such a device with these tags: network_settings is the tag of those whose agents "
            "set them ([handover] network_settings)"
        )
        explained = fleet.scheduler.explain(
            ExplainRequest(extra_specs=request.extra_specs, network_settings=request.network_settings)
        )
        assert not explained.served

    def test_if_the_requested_host_does_not_set_them_the_reason_says_so_too(self, fleet: Fleet) -> None:
        fleet.host("h0")
        request = request_for("nic-vf:1", hosts=["h0"], network_settings=asking({"trust": True}))
        with pytest.raises(
            ClaimRefused, match="none of the requested hosts has such a device: network_settings"
        ):
            fleet.scheduler.claim(request)

    @pytest.mark.parametrize(
        ("alias", "entry", "dev_type"),
        [("nic-vf:1", {"mtu": 9000}, "type-PF"), ("nic-pf:1", {"trust": True}, "type-VF")],
    )
    def test_settings_of_another_type_of_device_are_refused(
        self, fleet: Fleet, alias: str, entry: dict[str, Any], dev_type: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=f"only a {dev_type} can have them"):
            fleet.scheduler.claim(request_for(alias, network_settings=asking(entry)))

    @pytest.mark.parametrize(
        ("entry", "match"),
        [
            ({"request_index": 1, "mac": MACS[0]}, "the claim has 1 requests"),
            ({"device_index": 2, "mac": MACS[0]}, "that request is for 2 devices"),
        ],
    )
    def test_settings_of_a_device_that_is_not_asked_for_are_refused(
        self, fleet: Fleet, entry: dict[str, Any], match: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=match):
            fleet.scheduler.claim(request_for("nic-vf:2", network_settings=asking(entry)))
        assert fleet.sent == []

    def test_an_agent_of_an_older_release_is_not_told_to_go_on_without_them(
        self, fleet: Fleet, host: Host
    ) -> None:
        """It leaves a claim alone whose status it does not know, and refuses a step of a newer version."""
        claim = fleet.scheduler.claim(request_for("nic-vf:1", network_settings=asking({"mac": MACS[0]})))
        fleet.claim("nic-vf:1")
        told = [(holding.status, holding.claim_status) for holding in host.holdings()]
        assert told == [("claimedwithsettings", "claimed"), ("claimed", "claimed")]
        [step] = steps_in_outbox(fleet, claim)
        assert versions.to_send(step)[1] == "1.1"
        host.done(claim)
        assert host.holdings()[0].status == "allocatedwithsettings"
        fleet.scheduler.release(claim.claim_id)
        assert host.holdings()[0].status == "releasing"  # which every agent can do


class TestAgent:
    """A real agent of a simulated host, with all services and the bus as they are."""

    @pytest.fixture
    def one(self, service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
        with one_host(service_process, tmp_path) as fleet:
            yield fleet

    def settings(self, one: OneHost) -> dict[str, Any]:
        with closing(sqlite3.connect(one.state / one.name / "hypervisor.sqlite")) as record:
            return {
                address: {name: value for name, value in json.loads(text).items() if value is not None}
                for address, text in record.execute("SELECT address, settings FROM network_settings")
            }

    def test_it_sets_what_a_claim_asks_for_until_the_claim_is_released(self, one: OneHost) -> None:
        one.simulated["network_settings"] = True
        one.start_agent()
        one.wait_for_report()
        entries = [{"mac": MACS[0], "trust": True}, {"device_index": 1, "mac": MACS[1]}]
        claim = one.claim("vf:2", network_settings=entries)
        first, second = (device.address for device in claim.devices)
        one.wait_for(claim.claim_id, "allocated")
        assert self.settings(one) == {first: {"mac": MACS[0], "trust": True}, second: {"mac": MACS[1]}}
        one.scheduler.release(claim.claim_id)
        one.wait_for(claim.claim_id, "released")
        assert self.settings(one) == {}

    def test_an_agent_that_was_switched_off_since_refuses_with_the_reason(self, one: OneHost) -> None:
        one.simulated["network_settings"] = True
        agent = one.start_agent()
        one.wait_for_report()
        agent.stop()
        claim = one.claim("vf:1", network_settings=[{"mac": MACS[0]}])
        one.simulated["network_settings"] = False
        one.start_agent()
        failed = one.wait_for(claim.claim_id, "failed")
        assert "see [handover] network_settings" in str(failed.reason)
        wait_until(lambda: set(one.statuses().values()) == {"available"}, "the host has reported")
        with pytest.raises(ClaimRefused, match="network_settings"):
            one.claim("vf:1", network_settings=[{"mac": MACS[0]}])


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"mac": "01:00:5e:00:00:01"}, "is not the MAC of one interface"),
        ({"mac": "00:00:00:00:00:00"}, "is not the MAC of one interface"),
        ({"mac": "52:54:00"}, "is no MAC"),
        ({"vlan": {"id": 4095}}, "less than or equal to 4094"),
        ({"vlan": {"id": 0, "qos": 3}}, "id 0 means no VLAN"),
        ({"vlan": {"id": 1, "protocol": "802.1x"}}, "802.1ad"),
        ({"link_state": "down"}, "disable"),
        ({"min_tx_rate": 20, "max_tx_rate": 10}, "min_tx_rate 20 is above max_tx_rate 10"),
        ({"trust": "yes"}, "valid boolean"),
        ({"mtu": 9000, "trust": True}, "no device can have both"),
        ({}, "no setting is given"),
        ({"speed": 10}, "Extra inputs"),
    ],
)
def test_what_no_card_can_be_set_to_is_refused_at_the_boundary(entry: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DeviceNetworkSettings.model_validate(entry)


def test_two_entries_for_one_device_are_refused() -> None:
    with pytest.raises(ValueError, match="give each a device_index of its own"):
        ClaimRequest.model_validate(
            {
                "claim_id": uuid4(),
                "instance_id": uuid4(),
                "network_settings": [{"mac": MACS[0]}, {"mac": MACS[1]}],
            }
        )


class TestCommand:
    @pytest.mark.usefixtures("host")
    def test_a_claim_of_the_command_line_may_ask_for_them(self, service_process: Services) -> None:
        service_process("scheduler", {"pci": {"alias": ALIASES}})
        asked = [json.dumps({"device_index": i, "mac": mac}) for i, mac in enumerate(MACS[:2])]
        words = [word for text in asked for word in ("--network-settings", text)]
        done = subprocess.run(
            [str(PROGRAM), "claim", "--alias", "nic-vf:2", "--output", "json", *words],
            env=os.environ | {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        devices = json.loads(done.stdout)["devices"]
        assert [device["network_settings"]["mac"] for device in devices] == MACS[:2]

    def test_what_is_wrong_with_them_is_said(self) -> None:
        words = ["claim", "--alias", "nic-vf:1", "--network-settings", '{"vlan": {"id": 5000}}']
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert "vlan.id Input should be less than or equal to 4094" in result.output
