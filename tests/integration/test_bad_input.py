"""Bad messages get a clear typed error, change nothing in the database and do not stop the worker."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from portclaim.common import config
from portclaim.common.errors import (
    HostOwnedByAnotherAgent,
    InvalidConfiguration,
    InvalidMessage,
    InvalidRequest,
    PortclaimError,
    UnsupportedVersion,
)
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.service import Scheduler
from tests.support.bus import Bus
from tests.support.fleet import ALIASES, Fleet, pf, port_devices, vf
from tests.support.services import Services, as_ini

CLAIM = {
    "claim_id": str(uuid4()),
    "instance_id": str(uuid4()),
    "extra_specs": {"pci_passthrough:alias": "nic-vf:1"},
}


LEFT_OUT = object()


def extra_specs(alias: str) -> dict[str, Any]:
    return {"extra_specs": {"pci_passthrough:alias": alias}}


# What is changed in a good message, and what the error must name.
BAD_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"claim_id": LEFT_OUT}, "claim_id"),
    ({"claim_id": None}, "claim_id"),
    ({"claim_id": "c1"}, "claim_id"),
    ({"claim_id": 7}, "claim_id"),
    ({"claim_id": ["c1"]}, "claim_id"),
    ({"instance_id": ""}, "instance_id"),
    ({"extra_specs": None}, "extra_specs"),
    ({"extra_specs": "pci_passthrough:alias=nic-vf:1"}, "extra_specs"),
    ({"extra_specs": {"pci_passthrough:alias": 1}}, "extra_specs"),
    ({"extra_specs": {"note": "a\0b"}}, "extra_specs"),
    ({"extra_specs": {"a\0b": "note"}}, "extra_specs"),
    ({"hosts": "h1"}, "hosts"),
    ({"hosts": []}, "hosts"),
    ({"hosts": ["h1; DROP TABLE claims"]}, "hosts"),
    ({"avoid_hosts": [1]}, "avoid_hosts"),
    ({"numa_cells": 0}, "numa_cells"),
    ({"numa_cells": [-1]}, "numa_cells"),
    ({"numa_cells": [2**31]}, "numa_cells"),
    ({"requests": {}}, "requests"),
    ({"requests": [{"count": 1}]}, "spec"),
    ({"requests": [{"count": 1, "spec": []}]}, "spec"),
    ({"requests": [{"count": 1, "spec": [{"vendor_id": 8086}]}]}, "spec"),
    ({"requests": [{"count": 0, "spec": [{}]}]}, "count"),
    ({"requests": [{"count": 10000, "spec": [{}]}]}, "count"),
    ({"requests": [{"count": 1, "spec": [{}]}] * 10000}, "requests"),
    ({"requests": [{"count": 1, "spec": [{}], "numa_policy": "near"}]}, "numa_policy"),
    ({"requests": [{"count": 1, "resources": {"A": 1, "B": 1}}]}, "resources"),
    ({"requests": [{"count": 3, "resources": {"A": 2}}]}, "resources"),
    ({"requests": [{"count": 1, "resources": {"a" * 300: 1}}]}, "resources"),
    ({"requests": [{"count": 1, "required": ["A"]}]}, "spec"),
    ({"requests": [{"count": 1, "spec": [{}], "required": ["!A"]}]}, "required"),
    ({"requests": [{"count": 1, "spec": [{}], "required": ["in:A,B"]}]}, "required"),
    ({"priority": "high"}, "priority"),
    ({"wait": 0}, "wait"),
    ({"wait": -1}, "wait"),
    ({"wait": 8 * 24 * 3600}, "wait"),
    ({"wait": "300"}, "wait"),
    ({"wait": 0.5}, "wait"),
]

BAD_ALIASES = [
    "nic-vf:0",
    "nic-vf:-1",
    "nic-vf:10000",
    "nic-vf:99999999999999999999",
    "nic-vf:1.5",
    "nic-vf",
    "nic-vf:",
    ":1",
    "",
    "nic-vf:1,,nic-vf:1",
    "no-such-alias:1",
    "nic-vf:1,no-such-alias:1",
]

DEVICE = {
    "address": vf(0, 0),
    "dev_type": "type-VF",
    "vendor_id": "8086",
    "product_id": "154c",
    "parent_address": pf(0),
}
BAD_DEVICES: list[tuple[dict[str, Any], str]] = [
    ({"address": "81:00.0"}, "81:00.0"),
    ({"address": "0000:81:00"}, "0000:81:00"),
    ({"address": "0000:81:00.8"}, "0000:81:00.8"),
    ({"address": "0000:81:20.0"}, "slot"),
    ({"address": "0000:81:00.0\n"}, "address"),
    ({"address": 8100}, "address"),
    ({"address": LEFT_OUT}, "address"),
    ({"parent_address": LEFT_OUT}, "needs the address of its PF"),
    ({"parent_address": "0000:99:00.0"}, "0000:99:00.0"),
    ({"dev_type": "type-PCI"}, "cannot have a parent"),
    ({"dev_type": "type-PF"}, "cannot have a parent"),
    ({"dev_type": "VF"}, "dev_type"),
    ({"vendor_id": "0x8086"}, "vendor_id"),
    ({"vendor_id": 8086}, "vendor_id"),
    ({"product_id": "154C"}, "product_id"),
    ({"numa_node": "0"}, "numa_node"),
    ({"numa_node": -1}, "numa_node"),
    ({"numa_node": 2**31}, "numa_node"),
    ({"offered": "yes"}, "offered"),
    ({"offered": 1}, "offered"),
    ({"tags": {"trusted": True}}, "tags"),
    ({"tags": {"physical_network": "a\0b"}}, "tags"),
    ({"tags": {"physical_network": "\ud800"}}, "tags"),
    ({"attributes": {"driver": {"name": "iavf"}}}, "attributes"),
    ({"attributes": {"a\0b": "iavf"}}, "attributes"),
    ({"unusable_reason": "a\0b"}, "unusable_reason"),
    ({"speed": "25G"}, "speed"),
    ({"a\nb": "25G"}, "a\\nb"),
]

BAD_REPORTS: list[tuple[dict[str, Any], str]] = [
    ({"host": LEFT_OUT}, "host"),
    ({"host": ""}, "host"),
    ({"host": "h 1"}, "host"),
    ({"host": "h" * 256}, "host"),
    ({"agent_id": "me"}, "agent_id"),
    ({"agent_id": LEFT_OUT}, "agent_id"),
    ({"digest": ""}, "digest"),
    ({"digest": "a\0b"}, "digest"),
    ({"digest": 1}, "digest"),
    ({"devices": {}}, "devices"),
    ({"devices": [None]}, "devices"),
    ({"numa_cells": [{"socket": 0}]}, "numa_cells"),
    ({"numa_cells": [{"id": 0, "cpus": "0-7"}]}, "numa_cells"),
    ({"uptime": 1}, "uptime"),
]

BAD_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"claim_id": "c1"}, "claim_id"),
    ({"step": 0}, "step"),
    ({"step": "1"}, "step"),
    ({"step": 1.0}, "step"),
    ({"step": LEFT_OUT}, "step"),
    ({"outcome": "maybe"}, "outcome"),
    ({"reason": 5}, "reason"),
    ({"reason": "a\0b"}, "reason"),
    ({"at": "now"}, "at"),
]


def altered(message: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**message, **change}.items() if value is not LEFT_OUT}


def refusal(bus: Bus, topic: str, method: str, message: dict[str, Any]) -> PortclaimError:
    """The error that answers a bad message."""
    with pytest.raises(PortclaimError) as refused:
        bus.call(topic, method, **message)
    return refused.value


def assert_invalid(error: PortclaimError, named: str, message: object) -> None:
    """The error is an InvalidMessage, names the fault in its text, and lists it as data."""
    assert isinstance(error, InvalidMessage), (message, error)
    assert named in error.message, (message, error.message)
    assert error.kwargs["faults"], message


class TestMessagesForTheScheduler:
    @pytest.fixture(autouse=True)
    def _scheduler(self, fleet: Fleet, service_process: Services) -> None:
        fleet.host("h1", ports=1, vfs=4)
        self.fleet = fleet
        self.process = service_process("scheduler", {"pci": {"alias": ALIASES}})
        self.before = (fleet.contents(), self.process.workers)

    def assert_nothing_happened(self, bus: Bus) -> None:
        """The database has not changed, and the same worker still serves."""
        assert (self.fleet.contents(), self.process.workers) == self.before
        assert bus.scheduler.claim(ClaimRequest.model_validate(CLAIM)).status == "claimed"

    def test_malformed_claims_are_refused(self, bus: Bus) -> None:
        for change, named in BAD_CLAIMS:
            assert_invalid(refusal(bus, "scheduler", "claim", altered(CLAIM, change)), named, change)
        self.assert_nothing_happened(bus)

    def test_claims_with_meaningless_extra_specs_are_refused(self, bus: Bus) -> None:
        for alias in BAD_ALIASES:
            error = refusal(bus, "scheduler", "claim", altered(CLAIM, extra_specs(alias)))
            assert isinstance(error, InvalidRequest), (alias, error)
            explained = refusal(bus, "scheduler", "explain", extra_specs(alias))
            assert isinstance(explained, InvalidRequest), (alias, explained)
            assert explained.message == error.message
        alias = extra_specs("nic-vf:1")["extra_specs"]
        for specs in (
            LEFT_OUT,
            {},
            {"hw:cpu_policy": "dedicated"},
            alias | {"hw:pci_numa_affinity_policy": "near"},
            alias | {"group_policy": "together"},
        ):
            error = refusal(bus, "scheduler", "claim", altered(CLAIM, {"extra_specs": specs}))
            assert isinstance(error, InvalidRequest), (specs, error)
        self.assert_nothing_happened(bus)

    def test_refusals_say_what_to_do(self, bus: Bus) -> None:
        unknown = refusal(bus, "scheduler", "claim", altered(CLAIM, extra_specs("no-such-alias:1")))
        assert "no-such-alias" in unknown.message
        assert "nic-pf, nic-vf" in unknown.message
        too_many = refusal(bus, "scheduler", "claim", altered(CLAIM, extra_specs("nic-vf:10000")))
        assert "10000" in too_many.message
        assert "from 1 to" in too_many.message

    def test_malformed_messages_to_the_other_methods_are_refused(self, bus: Bus) -> None:
        for method, message, named in [
            ("release", {"claim_id": "c1"}, "claim_id"),
            ("release", {}, "claim_id"),
            ("show", {"claim_id": None}, "claim_id"),
            ("show", {"claim_id": str(uuid4()), "verbose": True}, "verbose"),
            ("explain", {"extra_specs": []}, "extra_specs"),
            ("devices", {"limit": 0}, "limit"),
            ("devices", {"limit": 10**9}, "limit"),
            ("devices", {"dev_type": "PF"}, "dev_type"),
            ("devices", {"status": "free"}, "status"),
            ("devices", {"host": ""}, "host"),
            ("hosts", {"limit": 0}, "limit"),
            ("move", {"claim_id": str(uuid4())}, "source_claim_id"),
            ("move", {"claim_id": str(uuid4()), "source_claim_id": str(uuid4()), "hosts": []}, "hosts"),
            ("complete_move", {"claim_id": "c1"}, "claim_id"),
            ("revert_move", {}, "claim_id"),
            ("ping", {"hello": 1}, "hello"),
        ]:
            assert_invalid(refusal(bus, "scheduler", method, message), named, (method, message))
        self.assert_nothing_happened(bus)

    def test_unknown_methods_and_versions_are_refused(self, bus: Bus) -> None:
        for method in ("delete_everything", "_wanted", "__init__", "target", ""):
            with pytest.raises(InvalidMessage, match="no method"):
                bus.call("scheduler", method)
        for version in ("2.0", "1.99"):
            with pytest.raises(UnsupportedVersion):
                bus.call("scheduler", "ping", version=version)
        self.assert_nothing_happened(bus)


class TestMessagesForTheConductor:
    @pytest.fixture(autouse=True)
    def _conductor(self, fleet: Fleet, service_process: Services) -> None:
        self.host = fleet.host("h1", ports=1, vfs=4)
        self.claim = fleet.claim("nic-vf:1")
        # The conductor has no host to count, no step to send again and no event to publish.
        fleet.count_hosts()
        fleet.sql("UPDATE outbox SET send_after = now() + interval '1 hour'")
        self.fleet = fleet
        self.process = service_process("conductor", {"conductor": {"publish_events": False}})
        self.before = (fleet.contents(), self.process.workers)

    def assert_nothing_happened(self, bus: Bus) -> None:
        assert (self.fleet.contents(), self.process.workers) == self.before
        assert not bus.conductor.report_inventory(self.host.inventory).resend

    def report(self, *devices: dict[str, Any]) -> dict[str, Any]:
        """A good report with a new digest, of the port and of these devices."""
        port = [device.model_dump(mode="json") for device in port_devices(0, vfs=0)]
        agent = {"host": "h1", "agent_id": str(self.host.agent_id)}
        return {**agent, "digest": "new", "devices": [*port, *devices]}

    def test_malformed_reports_are_refused(self, bus: Bus) -> None:
        for change, named in BAD_REPORTS:
            report = altered(self.report(), change)
            assert_invalid(refusal(bus, "conductor", "report_inventory", report), named, change)
        self.assert_nothing_happened(bus)

    def test_reports_of_impossible_devices_are_refused(self, bus: Bus) -> None:
        for change, named in BAD_DEVICES:
            report = self.report(altered(DEVICE, change))
            assert_invalid(refusal(bus, "conductor", "report_inventory", report), named, change)
        twice = self.report(DEVICE, DEVICE)
        assert_invalid(refusal(bus, "conductor", "report_inventory", twice), "more than one", twice)
        self.assert_nothing_happened(bus)

    def test_a_report_for_a_host_of_another_live_agent_is_refused(self, bus: Bus) -> None:
        for report in (self.report(), altered(self.report(), {"devices": None})):
            error = refusal(bus, "conductor", "report_inventory", altered(report, {"agent_id": str(uuid4())}))
            assert isinstance(error, HostOwnedByAnotherAgent)
            assert "h1" in error.message
        self.assert_nothing_happened(bus)

    def test_malformed_step_results_are_refused(self, bus: Bus) -> None:
        good = {
            "host": "h1",
            "agent_id": str(self.host.agent_id),
            "claim_id": str(self.claim.claim_id),
            "step": 1,
            "outcome": "done",
        }
        for change, named in BAD_ANSWERS:
            assert_invalid(refusal(bus, "conductor", "step_done", altered(good, change)), named, change)
        for message, named in [({}, "host"), ({"host": "h1", "agent_id": 5}, "agent_id")]:
            assert_invalid(refusal(bus, "conductor", "holdings", message), named, message)
        self.assert_nothing_happened(bus)


class TestConfiguration:
    """A service that cannot honour its configuration does not start, and says what is wrong with it."""

    @pytest.mark.parametrize(
        ("service", "sections", "said"),
        [
            (Conductor, {"pci": {"report_in_placement": "perhaps"}}, "report_in_placement"),
            (Scheduler, {"filter_scheduler": {"pci_in_placement": "perhaps"}}, "pci_in_placement"),
            (Conductor, {"pci": {"device_specs": "{}"}}, "[pci] device_specs"),
            (Scheduler, {"pci": {"alias": '{"name": "nic"}'}}, "vendor_id"),
            (Scheduler, {"pci": {"alias": "nic"}}, "alias"),
            (Scheduler, {"scheduler": {"packing": "tetris"}}, "tetris"),
            (Scheduler, {"database": {}}, "[database] connection"),
            (Conductor, {"database": {}}, "[database] connection"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_a_service_refuses_a_bad_option(
        self, tmp_path: Path, service: type, sections: dict[str, dict[str, Any]], said: str
    ) -> None:
        with pytest.raises(InvalidConfiguration) as refused:
            service(config.load(["--config-file", str(config_file(tmp_path, sections))], "test"))
        assert said in refused.value.message

    @pytest.mark.parametrize(
        ("section", "option", "value"), [("conductor", "workers", "0"), ("rpc", "timeout", "soon")]
    )
    def test_an_impossible_value_ends_the_program_at_once(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        section: str,
        option: str,
        value: str,
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            config.load(["--config-file", str(config_file(tmp_path, {section: {option: value}}))], "test")
        assert ended.value.code == 1
        told = capsys.readouterr().err
        assert option in told
        assert value in told

    def test_the_program_ends_with_status_1_and_one_line(self, tmp_path: Path) -> None:
        file = config_file(tmp_path, {"pci": {"passthru_whitelist": "{}"}})
        command = [sys.executable, "-m", "portclaim.services.scheduler", "--config-file", str(file)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stdout) == (1, "")
        [line] = ended.stderr.splitlines()
        assert "[pci] passthru_whitelist" in line


def config_file(directory: Path, sections: dict[str, dict[str, Any]]) -> Path:
    file = directory / "portclaim.conf"
    file.write_text(as_ini({"database": {"connection": "postgresql+psycopg2:///nowhere"}, **sections}))
    return file
