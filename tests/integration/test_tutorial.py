"""The program of the tutorial runs, on two simulated hosts in place of libvirt's."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest

from portclaim.common.pci.hostdev_xml import ALIAS_PREFIX
from tests.support.one_host import OneHost, one_host
from tests.support.services import Services

PAGE = Path(__file__).parents[2] / "docs/tutorial/api-layer.md"


class SimulatedHypervisors:
    """Defines guests with the devices that their XML names, and remembers what it was told."""

    def __init__(self, hosts: Sequence[OneHost]) -> None:
        self._hosts = {host.name: host for host in hosts}
        self.created: list[str] = []

    def create(self, host: str, instance_id: UUID, hostdevs: list[str]) -> None:
        addresses = [_address(xml) for xml in hostdevs]
        self._hosts[host].guests.define(instance_id, addresses)
        self.created.append(host)

    def delete(self, host: str, instance_id: UUID) -> None:
        self._hosts[host].guests.undefine(instance_id)


def _address(xml: str) -> str:
    """The PCI address in a pasted element."""
    assert ALIAS_PREFIX in xml
    parts = re.search(r'domain="0x(\w+)" bus="0x(\w+)" slot="0x(\w+)" function="0x(\w)"', xml)
    assert parts is not None
    domain, bus, slot, function = parts.groups()
    return f"{domain}:{bus}:{slot}.{function}"


@pytest.fixture
def hosts(service_process: Services, tmp_path: Path) -> Iterator[list[OneHost]]:
    with one_host(service_process, tmp_path, guests="defined") as first:
        hosts = [first, first.beside("node-2")]
        for host in hosts:
            host.start_agent()
        yield hosts


def test_an_instance_is_started_moved_and_deleted(
    hosts: list[OneHost], service_process: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    [program] = re.findall(r"```python title=.*?\n(.*?)```", PAGE.read_text(), re.DOTALL)
    tutorial = ModuleType("tutorial")
    exec(compile(program.replace("nic-vf:1", "vf:1"), PAGE, "exec"), vars(tutorial))
    hypervisors = SimulatedHypervisors(hosts)
    tutorial.main(service_process.transport_url, hypervisors)
    said = capsys.readouterr().out
    assert hypervisors.created[0] != hypervisors.created[1]
    assert f"runs on {hypervisors.created[0]} with 0000:01:10." in said
    assert f"it runs on {hypervisors.created[1]} with 0000:01:10." in said
    assert said.endswith("its claim is released\n")
    assert all(set(host.statuses().values()) == {"available"} for host in hosts)
