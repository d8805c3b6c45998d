"""NUMA cells, and serial numbers in Vital Product Data."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.common.rpc.agent_messages import NumaCell
from portclaim.services.compute_agent.numa import parse_cpulist, read_numa_cells
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vpd import serial_number


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8", [0, 1, 2, 3, 8]), ("5", [5]), ("0-1,64-65", [0, 1, 64, 65]), ("", [])],
)
def test_a_cpulist_is_read_as_the_kernel_writes_it(text: str, cpus: list[int]) -> None:
    assert parse_cpulist(text) == cpus


def test_cells_have_their_socket_and_cpus(tmp_path: Path) -> None:
    host = SimulatedTree.create(tmp_path / "sys", "node-1")
    host.add_numa_node(10, socket=1, cpus=[2, 3])
    host.add_numa_node(2, socket=0, cpus=[0, 1])
    assert read_numa_cells(SysfsTree(host.root)) == [
        NumaCell(id=2, socket=0, cpus=[0, 1]),
        NumaCell(id=10, socket=1, cpus=[2, 3]),
    ]


def test_a_cell_that_spans_sockets_has_no_socket(tmp_path: Path) -> None:
    host = SimulatedTree.create(tmp_path / "sys", "node-1")
    host.add_numa_node(0, socket=0, cpus=[0, 1])
    (host.root / "devices/system/cpu/cpu1/topology/physical_package_id").write_text("1\n")
    assert read_numa_cells(SysfsTree(host.root)) == [NumaCell(id=0, socket=None, cpus=[0, 1])]


def test_a_cell_of_memory_only_has_no_cpu(tmp_path: Path) -> None:
    host = SimulatedTree.create(tmp_path / "sys", "node-1")
    host.add_numa_node(0, socket=0, cpus=[])
    assert read_numa_cells(SysfsTree(host.root)) == [NumaCell(id=0, socket=None, cpus=[])]


def test_a_kernel_without_numa_has_no_cells(tmp_path: Path) -> None:
    host = SimulatedTree.create(tmp_path / "sys", "node-1")
    assert read_numa_cells(SysfsTree(host.root)) == []


NAME = b"\x82\x04\x00Card"


def test_the_serial_number_is_a_field_of_the_read_only_section() -> None:
    fields = b"PN\x03123" + b"SN\x06MT2042"
    assert serial_number(NAME + b"\x90" + bytes([len(fields), 0]) + fields + b"\x78") == "MT2042"


@pytest.mark.parametrize(
    "vpd",
    [
        b"",
        NAME + b"\x78",
        NAME + b"\x90\x05\x00PN\x0212" + b"\x78",
        b"\x78" + NAME + b"\x90\x05\x00SN\x0212",
        NAME + b"\x90\xff\x7fSN\x0212",
        NAME + b"\x90\x05\x00SN\x7f12",
        NAME + b"\x90\x05\x00SN\x02\x01\x02" + b"\x78",
        b"\xff" * 256,
        b"\x00" * 256,
    ],
    ids=[
        "empty",
        "no section",
        "no SN",
        "after the end",
        "cut short",
        "field too long",
        "no text",
        "ones",
        "zeros",
    ],
)
def test_vpd_without_a_valid_serial_number_gives_none(vpd: bytes) -> None:
    assert serial_number(vpd) is None


@given(st.binary(max_size=300))
def test_reading_broken_vpd_never_fails(vpd: bytes) -> None:
    serial = serial_number(vpd)
    assert serial is None or serial.isprintable()
