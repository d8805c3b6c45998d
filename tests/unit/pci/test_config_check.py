"""``portclaim config check`` of a nova.conf."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from portclaim.cli.config_check import config
from portclaim.common.pci.config_check import (
    Finding,
    PciOptions,
    check_aliases,
    check_device_spec,
    check_options,
)
from portclaim.common.pci.nova_options import refusals
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from tests.unit.pci.support import at, card, pf, vf

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


def test_an_interface_that_the_host_does_not_have_now_is_told() -> None:
    [finding] = check_device_spec(['{"devname": "gone0"}'], HOST)
    assert (finding.verdict, finding.warnings) == (
        "takes nothing",
        ("this host has no network interface gone0 now",),
    )


def test_a_device_that_no_entry_can_name_is_a_warning() -> None:
    _, beyond = check_device_spec(["{}"], [card("10000:00:00.0")])
    assert beyond.verdict == "warning"
    assert beyond == Finding(
        "10000:00:00.0", warnings=("10000:00:00.0: device_spec cannot name PCI domains above ffff",)
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
    assert [(row["entry"], row["verdict"], row["takes"] and len(row["takes"])) for row in rows] == [
        ("[filter_scheduler] pci_in_placement", "ok", None),
        ("device_spec 1", "takes nothing", []),
        ("device_spec 2", "ok", 5),
        ("alias 1", "takes nothing", []),
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


def of(*entries: dict[str, object], aliases: Sequence[dict[str, object]] = (), **more: Any) -> list[Finding]:
    """The findings about these entries and aliases, on the host."""
    texts = [json.dumps(entry) for entry in entries], [json.dumps(alias) for alias in aliases]
    host = more.pop("devices", HOST), more.pop("obstacles", {})
    return check_options(PciOptions(*texts, **more), *host)


def alias(device_type: str | None = None, product_id: str = "1018", **more: object) -> dict[str, object]:
    kind = {} if device_type is None else {"device_type": device_type}
    return {"name": "nic", "vendor_id": "15b3", "product_id": product_id, **kind, **more}


class TestClassicMistakes:
    """Each is told with what to write instead."""

    @pytest.mark.parametrize(
        ("device_type", "why"),
        [
            ("type-PCI", "it asks for type-PCI"),
            ("type-VF", "it asks for type-VF"),
            (None, "without device_type it gets only type-PCI and type-VF"),
        ],
    )
    def test_the_type_of_an_alias_for_a_card_with_sriov(self, device_type: str | None, why: str) -> None:
        *_, finding = of({}, aliases=[alias(device_type, "1017")])
        assert finding.verdict == "takes nothing"
        assert finding.warnings == (
            f'1 device of type-PF would match, but {why}: write "device_type": "type-PF"',
        )

    def test_an_alias_without_a_type_gets_vfs(self) -> None:
        *_, finding = of({}, aliases=[alias()])
        assert (finding.verdict, finding.takes) == ("ok", (HOST[1], HOST[2]))

    def test_an_alias_whose_devices_no_entry_takes(self) -> None:
        *_, finding = of({"product_id": "1018"}, aliases=[alias("type-PCI", "1017")])
        assert finding.warnings == (
            "0000:81:00.0: no entry of device_spec takes it, so no claim gets it; and 1 device of type-PF "
            'would match, but it asks for type-PCI: write "device_type": "type-PF"',
        )

    def test_an_alias_of_another_class(self) -> None:
        *_, finding = of({"resource_class": "gpu"}, aliases=[alias(resource_class="nic")])
        assert finding.warnings == (
            "2 devices that device_spec takes may suit, but the resource class is CUSTOM_GPU, not CUSTOM_NIC",
        )
        *_, finding = of({"resource_class": "gpu"}, aliases=[alias()], by_class=True)
        assert finding.warnings == (
            "2 devices that device_spec takes may suit, but the resource class is CUSTOM_GPU, not "
            "CUSTOM_PCI_15B3_1018",
        )

    def test_an_alias_with_traits_or_live_migratable_that_no_entry_has(self) -> None:
        *_, finding = of({"traits": "blue"}, aliases=[alias(traits="red", live_migratable="yes")])
        assert finding.warnings == (
            "2 devices that device_spec takes may suit, but for live_migratable, traits: write the same in "
            "device_spec",
        )

    def test_an_alias_for_vfs_that_do_not_exist_yet(self) -> None:
        *_, finding = of({}, aliases=[alias("type-VF")], devices=[pf()])
        assert finding.warnings == (
            "0000:81:00.0 can have such VFs, but has none now: create VFs (sriov_numvfs)",
        )

    def test_an_alias_for_a_card_that_is_not_there(self) -> None:
        *_, finding = of({}, aliases=[alias(product_id="ffff")])
        assert (finding.verdict, finding.warnings) == ("takes nothing", ())

    def test_a_port_that_is_taken_although_only_vfs_are_asked_for(self) -> None:
        entry, _ = of({"address": "0000:81:00.0"}, aliases=[alias("type-VF")])
        assert (entry.verdict, entry.takes) == ("warning", (HOST[0], HOST[1], HOST[2]))
        assert entry.warnings == (
            "takes 0000:81:00.0 whole too, which no alias asks for: if only VFs are meant, write "
            '"product_id": "1018"',
        )

    @pytest.mark.parametrize(
        "entry", [{"product_id": "1018"}, {"address": "0000:81:00.0", "reconfigurable": "no"}]
    )
    def test_a_port_that_no_claim_can_get_is_no_mistake(self, entry: dict[str, object]) -> None:
        host = [replace(HOST[0], num_vfs=2), *HOST[1:]]
        assert of(entry, aliases=[alias("type-VF")], devices=host)[0].verdict == "ok"

    def test_a_port_that_an_alias_asks_for_is_no_mistake(self) -> None:
        both = [alias("type-VF"), alias("type-PF", "1017") | {"name": "whole"}]
        assert [finding.verdict for finding in of({"address": "0000:81:00.0"}, aliases=both)] == ["ok"] * 3

    def test_required_where_a_device_has_no_numa_node(self) -> None:
        host = [pf(), vf(numa_node=0), vf("0000:81:00.3")]
        for policy, verdict in (("required", "warning"), ("socket", "warning"), ("legacy", "ok")):
            *_, finding = of({}, aliases=[alias(numa_policy=policy)], devices=host)
            assert finding.verdict == verdict
        *_, finding = of({}, aliases=[alias(numa_policy="required")], devices=host)
        assert finding.warnings == (
            "numa_policy required: the host does not say the NUMA node of 0000:81:00.3, so no instance with "
            "a NUMA topology gets them: write legacy or preferred",
        )

    @pytest.mark.parametrize(
        "hidden",
        [{"address": "0000:81:00.2"}, {"product_id": "1018"}, {"address": {"bus": "81", "function": "[23]"}}],
    )
    def test_an_entry_that_an_earlier_one_hides(self, hidden: dict[str, object]) -> None:
        general, special = of({"vendor_id": "15b3"}, hidden | {"vendor_id": "15b3", "trusted": "true"})
        assert general.verdict == "ok"
        assert special.verdict == "takes nothing"
        assert special.warnings[0].startswith("device_spec 1 comes first and takes all ")
        assert special.warnings[0].endswith("that it matches: put this entry before it")

    def test_the_right_order_is_no_mistake(self) -> None:
        findings = of({"address": "0000:81:00.2", "trusted": "true"}, {"vendor_id": "15b3"})
        assert [finding.verdict for finding in findings] == ["ok", "ok"]

    def test_the_order_is_told_without_a_host_too(self) -> None:
        findings = of({"vendor_id": "15b3"}, {"vendor_id": "15b3", "product_id": "1018"}, devices=None)
        assert [finding.verdict for finding in findings] == ["ok", "takes nothing"]
        findings = of(
            {"address": "0000:81:00.0"}, {"address": "0000:81:00.1"}, {"devname": "a"}, devices=None
        )
        assert [finding.verdict for finding in findings] == ["ok", "ok", "ok"]

    def test_what_no_entry_offers_is_told_without_a_host_too(self) -> None:
        entries = {"product_id": "1018", "vendor_id": "15b3", "resource_class": "nic", "traits": "a"}

        def warnings(**asked: object) -> tuple[str, ...]:
            return of(entries, aliases=[{"name": "nic", **asked}], devices=None)[-1].warnings

        assert warnings(vendor_id="15b3", product_id="1018") == ()
        assert warnings(resource_class="CUSTOM_NIC", traits="A") == ()
        assert warnings(vendor_id="15b3", product_id="1017") == (
            "no entry of device_spec takes devices with these ids",
        )
        assert warnings(resource_class="gpu") == (
            "no entry of device_spec has the resource class CUSTOM_GPU; they have CUSTOM_NIC",
        )
        assert warnings(resource_class="nic", traits="b") == (
            "no entry of device_spec has traits b: write the same there",
        )

    def test_what_stands_in_the_way_of_a_device(self) -> None:
        shared = "shares its IOMMU group with 0000:0a:00.1, which this host uses with driver ahci"
        [entry] = of({"vendor_id": "8086"}, obstacles={at("0000:0a:00.0"): [shared]})
        assert (entry.verdict, entry.warnings) == ("warning", (f"0000:0a:00.0: {shared}",))
        [entry] = of({"vendor_id": "15b3"}, obstacles={at("0000:0a:00.0"): [shared]})
        assert entry.verdict == "ok"

    def test_the_same_reason_of_many_devices_is_told_once(self) -> None:
        none = "is in no IOMMU group: enable the IOMMU in firmware and kernel"
        [entry] = of({}, obstacles={device.address: [none] for device in HOST})
        assert entry.warnings == (f"{', '.join(str(device.address) for device in HOST)}: {none}",)

    def test_a_dpus_vfs_without_a_serial_number(self) -> None:
        [entry] = of({"product_id": "1018", "remote_managed": "true"})
        assert entry.warnings == (
            "the devices that it matches show no serial number in their VPD, which remote_managed needs",
        )

    @pytest.mark.parametrize(
        ("tag", "warning"),
        [
            ("vendorid", "vendorid is taken as a tag of yours: write vendor_id if you mean that"),
            ("adress", "adress is taken as a tag of yours: write address if you mean that"),
            (
                "physicalnetwork",
                "physicalnetwork is taken as a tag of yours: write physical_network",
            ),
            (
                "device_type",
                "device_type is a key of an alias: here it is a tag of yours and selects no devices",
            ),
        ],
    )
    def test_a_key_that_is_no_key(self, tag: str, warning: str) -> None:
        [entry] = of({tag: "x"})
        assert entry.verdict == "warning"
        assert entry.warnings[0].startswith(warning)

    def test_a_tag_of_ones_own_is_no_mistake(self) -> None:
        assert of({"rack": "r1", "tier": "gold", "speed": "100"})[0].verdict == "ok"


def test_the_two_sides_are_checked_together(tmp_path: Path) -> None:
    build_host(tmp_path / "sys", HostShape(ports=1, vfs_per_port=2), "host")
    (tmp_path / "compute.conf").write_text(
        """
[pci]
report_in_placement = True
device_spec = {"address": "0000:01:00.0", "resource_class": "nic"}
alias = {"name": "nic", "vendor_id": "8086", "product_id": "154c"}
"""
    )
    (tmp_path / "scheduler.conf").write_text(
        """
[filter_scheduler]
pci_in_placement = True
[pci]
alias = {"name": "nic", "device_type": "type-VF", "resource_class": "CUSTOM_NIC"}
alias = {"name": "whole", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}
"""
    )
    sides = ["--compute", str(tmp_path / "compute.conf"), "--scheduler", str(tmp_path / "scheduler.conf")]
    command = ["check", *sides, "--sysfs-root", str(tmp_path / "sys"), "--output", "json"]
    result = CliRunner().invoke(config, command)
    assert result.exit_code == 0
    rows = {row["entry"]: row for row in json.loads(result.stdout)}
    assert {entry: row["verdict"] for entry, row in rows.items()} == {
        "[pci] report_in_placement": "ok",
        "[filter_scheduler] pci_in_placement": "ok",
        "device_spec 1": "warning",
        "alias 1": "ok",
        "alias 2": "takes nothing",
        "[pci] alias of compute.conf": "ok",
    }
    assert len(rows["alias 1"]["takes"]) == 2
    assert rows["alias 2"]["warnings"] == [
        "1 device that device_spec takes may suit, but the resource class is CUSTOM_NIC, not "
        "CUSTOM_PCI_8086_1572"
    ]


def test_a_file_or_the_two_sides_must_be_given(tmp_path: Path) -> None:
    file = tmp_path / "nova.conf"
    file.touch()
    for wrong in (["check"], ["check", str(file), "--compute", str(file)]):
        assert CliRunner().invoke(config, wrong).exit_code == 2
