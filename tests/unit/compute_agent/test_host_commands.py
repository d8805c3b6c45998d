"""``portclaim host``: it shows a machine to the operator before any service runs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from portclaim.cli.main import main
from portclaim.services.compute_agent.recording import Recording
from portclaim.services.compute_agent.simulation import SimulatedTree


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "portclaim.conf"
    file.write_text(
        '[pci]\ndevice_spec = {"product_id": "154c"}\n'
        'device_spec = [{"address": "0000:02:00.0"}, {"vendor_id": "10de"}]\n'
    )
    return file


def host_command(config_file: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--config-file", str(config_file), "host", *args])


def test_a_scan_shows_which_entry_matches_each_device(host: SimulatedTree, config_file: Path) -> None:
    result = host_command(config_file, "scan", "--sysfs-root", str(host.root), "--output", "json")
    taken = {row["address"]: row["taken_by"] for row in json.loads(result.stdout)}
    assert taken["0000:01:00.0"] is None
    assert taken["0000:01:10.0"] == taken["0000:02:10.0"] == "device_spec 1"
    assert taken["0000:02:00.0"] == "device_spec 2, item 1"
    assert taken["0000:03:00.0"] == "device_spec 2, item 2"


def test_a_scan_counts_the_devices_that_each_entry_matches(host: SimulatedTree, config_file: Path) -> None:
    result = host_command(config_file, "scan", "--sysfs-root", str(host.root))
    assert result.stdout.splitlines()[-3:] == [
        "device_spec 1 matches 8 devices",
        "device_spec 2, item 1 matches 1 device",
        "device_spec 2, item 2 matches 1 device",
    ]
    assert "enp1s0f0" in result.stdout


def test_a_recording_can_be_scanned(host: SimulatedTree, config_file: Path, tmp_path: Path) -> None:

    file = tmp_path / "host.json"
    assert host_command(config_file, "record", "--sysfs-root", str(host.root), str(file)).exit_code == 0
    Recording.from_json(file.read_text()).replay(tmp_path / "copy")
    both = [
        host_command(config_file, "scan", "--sysfs-root", str(root), "--output", "json").stdout
        for root in (host.root, tmp_path / "copy")
    ]
    without = [[{**row, "mac": None, "serial": None} for row in json.loads(text)] for text in both]
    assert without[0] == without[1]


def test_a_directory_that_is_not_sysfs_is_refused(config_file: Path, tmp_path: Path) -> None:
    result = host_command(config_file, "scan", "--sysfs-root", str(tmp_path))
    assert result.exit_code == 1
    assert "this is not the root of a sysfs tree" in result.stderr


def test_an_invalid_entry_is_refused(host: SimulatedTree, tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text('[pci]\ndevice_spec = {"vendor_id": "nonsense"}\n')
    result = host_command(file, "scan", "--sysfs-root", str(host.root))
    assert result.exit_code == 1
    assert "device_spec 1: vendor_id" in result.stderr
