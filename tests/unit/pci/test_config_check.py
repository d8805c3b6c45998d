"""``portclaim config check`` of a nova.conf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from portclaim.cli.config_check import config
from portclaim.common.pci.config_check import Finding, check_aliases, check_device_spec
from portclaim.common.pci.nova_options import refusals
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from tests.unit.pci.support import card, pf, vf

HOST = [pf(), vf(), vf("0000:81:00.3"), card()]

GOOD = """
[DEFAULT]
pci_passthrough_whitelist = {"vendor_id": "8086", "product_id": "ffff"}
[pci]
device_spec = {"address": "0000:01:00.0", "physical_network": "physnet0"}
alias = {"name": "vf", "vendor_id": "15b3", "product_id": "1018", "device_type": "type-VF", "traits": "FAST"}
[filter_scheduler]
pci_in_placement = true
"""

BAD = """
[pci]
device_spec = [{"vendor_id": "15b3"}, {"product_id": "zz"}]
alias = {"name": "vf", "vendor_id": "15b3"}
report_in_placement = True
passthru_whitelist = {}
"""


def test_each_entry_lists_its_devices_and_the_first_match_wins() -> None:
    entries = ['{"product_id": "1017"}', '[{"address": "0000:81:00.0"}, {"product_id": "1018"}]', "{}"]
    assert [(finding.entry, finding.takes) for finding in check_device_spec(entries, HOST)] == [
        ("device_spec 1", (HOST[0],)),
        ("device_spec 2, item 1", (HOST[1], HOST[2])),
        ("device_spec 2, item 2", ()),
        ("device_spec 3", (HOST[3],)),
    ]


def test_a_refused_entry_takes_no_devices_from_the_others() -> None:
    bad, good = check_device_spec(['{"vendor_id": "0x15b3"}', "{}"], HOST)
    assert bad.refused == "vendor_id: '0x15b3' is no hexadecimal number; write four hexadecimal digits or *"
    assert good.takes == tuple(HOST)


def test_without_a_host_nothing_is_said_about_devices() -> None:
    assert check_device_spec(["{}", "["], None)[0] == Finding("device_spec 1")


def test_surprising_settings_are_noted() -> None:
    beyond = card("10000:00:00.0")
    findings = check_device_spec(
        ['{"devname": "gone0", "traits": "A", "resource_class": "B"}', "{}"], [beyond]
    )
    assert findings[0].notes == ("this host has no network interface gone0 now",)
    assert findings[2] == Finding(
        "10000:00:00.0", notes=("10000:00:00.0: device_spec cannot name PCI domains above ffff",)
    )


def test_aliases_are_checked_one_after_the_other() -> None:
    nic = {"name": "nic", "vendor_id": "15b3", "product_id": "1018"}
    entries = [nic, nic | {"numa_policy": "socket"}, nic | {"product_id": "101e"}]
    findings = check_aliases([json.dumps(entry) for entry in entries])
    assert [finding.refused for finding in findings] == [
        None,
        "numa_policy: another entry named 'nic' has legacy",
        None,
    ]


def test_unsupported_options_are_refused() -> None:
    settings = {
        ("pci", "report_in_placement"): ["True"],
        ("filter_scheduler", "pci_in_placement"): ["yes"],
        ("pci", "alias"): ["{}"],
        ("DEFAULT", "pci_alias"): ["{}"],
        ("pci", "passthru"): ["x"],
        ("compute", "anything"): ["x"],
    }
    assert refusals(settings).keys() == {
        ("pci", "passthru"),
    }


def run(path: Path, text: str, *options: str) -> tuple[int, str]:
    (path / "nova.conf").write_text(text)
    result = CliRunner().invoke(config, ["check", str(path / "nova.conf"), *options])
    return result.exit_code, result.stdout


def test_a_nova_conf_is_checked_against_a_host(tmp_path: Path) -> None:
    build_host(tmp_path / "sys", HostShape(ports=1, vfs_per_port=4), "host")
    status, shown = run(tmp_path, GOOD, "--sysfs-root", str(tmp_path / "sys"), "--output", "json")
    rows: list[dict[str, Any]] = json.loads(shown)
    assert status == 0
    assert [(row["entry"], row["refused"], row["takes"] and len(row["takes"])) for row in rows] == [
        ("device_spec 1", None, []),
        ("device_spec 2", None, 5),
        ("alias 1", None, None),
    ]
    _, table = run(tmp_path, GOOD, "--sysfs-root", str(tmp_path / "sys"))
    assert "matches no device of this host" in table
    assert "matches 0000:01:00.0, " in table
    assert " and 1 more" in table


def test_a_nova_conf_that_no_service_accepts_is_refused(tmp_path: Path) -> None:
    status, shown = run(tmp_path, BAD, "--no-host", "--output", "json")
    refused = {row["entry"]: row["refused"] for row in json.loads(shown)}
    assert status == 1
    assert [entry for entry, reason in refused.items() if reason] == [
        "[pci] passthru_whitelist",
        "device_spec 1, item 2",
        "alias 1",
    ]
    assert refused["device_spec 1, item 1"] is None


@pytest.mark.parametrize(("text", "says"), [("", "no device would be handed out"), ("[pci\n", "")])
def test_a_file_without_pci_options_and_a_file_that_is_no_configuration(
    tmp_path: Path, text: str, says: str
) -> None:
    status, shown = run(tmp_path, text, "--no-host")
    assert (status, says in shown) == (int(bool(text)), True)
