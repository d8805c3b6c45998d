"""``portclaim show --xml``: the devices of a claim, ready to be put into a domain of libvirt."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from portclaim import hostdev_xml
from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, hostdevs
from tests.support.fleet import ALIASES, Fleet, port_devices, slice_of, vf
from tests.support.services import Services

Show = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = Path(sys.executable).with_name("portclaim")


@pytest.fixture
def show(fleet: Fleet, service_process: Services) -> Show:
    """``portclaim show``, where a scheduler runs and the fleet is one host with a port of two VFs."""
    slices = [
        slice_of(0, number, attributes={"vf_num": number + 6}, tags={"physical_network": "physnet1"})
        for number in range(2)
    ]
    fleet.host_of("h1", [*port_devices(0, 0), *slices])
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url, "OS_RPC__ATTEMPTS": "1"}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAM), "show", *map(str, words)],
            env=os.environ | bus,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def domain(devices: str) -> str:
    return f"<domain type='kvm'><devices><emulator>/usr/bin/qemu</emulator>{devices}</devices></domain>"


def test_the_agent_finds_the_devices_of_the_claim_in_a_domain_with_the_printed_elements(
    show: Show, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:2", attach="on-call")
    fleet.hosts["h1"].prepared(claim)
    printed = show(claim.claim_id, "--xml")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert list(hostdevs(domain(printed.stdout))) == [
        Hostdev(PciAddress.parse(vf(0, number)), claim.claim_id) for number in range(2)
    ]
    assert printed.stdout == "".join(f"{element}\n" for element in hostdev_xml(fleet.show(claim)))
    managed = [element.get("managed") for element in ET.fromstring(domain(printed.stdout)).iter("hostdev")]
    assert managed == ["yes", "yes"]


def test_drivers_are_bound_by_libvirt_unless_the_caller_says_otherwise(show: Show, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    printed = show(claim.claim_id, "--xml", "--unmanaged")
    assert (printed.returncode, printed.stderr) == (0, "")
    [element] = ET.fromstring(domain(printed.stdout)).iter("hostdev")
    assert element.get("managed") == "no"


def test_a_claim_that_is_not_prepared_yet_is_printed_with_a_warning(show: Show, fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    printed = show(claim.claim_id, "--xml")
    assert (printed.returncode, printed.stdout.count("<hostdev")) == (0, 1)
    assert f"claim {claim.claim_id} is claimed, but not prepared yet. Do not start" in printed.stderr


def test_a_claim_that_holds_no_devices_is_refused(show: Show, fleet: Fleet) -> None:
    ended = fleet.claim("nic-pf:1")
    waits = fleet.claim("nic-pf:1", wait=60)
    for claim, status in ((ended, "releasing"), (waits, "waiting")):
        if status == "releasing":
            fleet.release(claim)
        refused = show(claim.claim_id, "--xml")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == (
            f"portclaim: claim {claim.claim_id} is {status}: it has no devices to give to a guest\n"
        )


def test_options_that_do_not_go_together_are_refused(show: Show, fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    for words, said in (
        (("--unmanaged",), "--unmanaged needs --xml"),
        (("--xml", "--output", "json"), "--xml and --output json do not go together"),
    ):
        refused = show(claim.claim_id, *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_the_table_shows_the_number_of_each_vf_and_its_network(show: Show, fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:2")
    lines = [line.split() for line in show(claim.claim_id).stdout.splitlines()]
    assert lines[3][-3:] == ["vf", "network", "status"]
    assert [line[-3:] for line in lines[4:]] == [["6", "physnet1", "claimed"], ["7", "physnet1", "claimed"]]


def test_libvirt_does_not_bind_what_the_operator_binds(fleet: Fleet) -> None:
    fleet.host_of("h1", [*port_devices(0, 0), slice_of(0, 0, tags={"managed": "false"}), slice_of(0, 1)])
    elements = hostdev_xml(fleet.claim("nic-vf:2"))
    assert [ET.fromstring(element).get("managed") for element in elements] == ["no", "yes"]
