"""The <hostdev> XML of libvirt: the agent reads what libvirt writes, and reads back what it wrote itself."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.common.pci.address import MAX_DOMAIN, PciAddress
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, hostdevs

CLAIM = UUID("5a3c1d70-0a61-4f7e-9d0c-2f2f6a0c9b11")
addresses = st.builds(
    PciAddress, st.integers(0, MAX_DOMAIN), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)
)


def domain(*devices: str) -> str:
    return (
        f"<domain type='kvm'><devices><emulator>/usr/bin/qemu</emulator>{''.join(devices)}</devices></domain>"
    )


@given(address=addresses, claim_id=st.none() | st.uuids(), managed=st.booleans())
def test_an_attached_device_is_read_back(address: PciAddress, claim_id: UUID | None, managed: bool) -> None:
    hostdev = Hostdev(address, claim_id)
    assert list(hostdevs(domain(hostdev.to_xml(managed=managed)))) == [hostdev]


def test_each_device_of_each_claim_has_its_own_alias() -> None:
    vf, other = PciAddress.parse("0000:01:10.0"), PciAddress.parse("0000:01:10.2")
    xml = {
        Hostdev(address, claim_id).to_xml(managed=True)
        for address in (vf, other)
        for claim_id in (CLAIM, uuid4())
    }
    assert len(xml) == 4
    assert f'name="ua-portclaim-{CLAIM}-0000-01-10-0"' in Hostdev(vf, CLAIM).to_xml(managed=True)


@pytest.mark.parametrize(("managed", "word"), [(True, "yes"), (False, "no")])
def test_the_xml_tells_libvirt_whether_to_bind_drivers_itself(managed: bool, word: str) -> None:
    assert f'managed="{word}"' in Hostdev(PciAddress.parse("0000:01:10.0"), None).to_xml(managed=managed)


def test_a_device_attached_by_others_belongs_to_no_claim() -> None:
    running = domain(
        """<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/>
             <source><address domain='0x0000' bus='0x01' slot='0x10' function='0x2'/></source>
             <alias name='hostdev0'/>
             <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></hostdev>""",
        """<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/>
             <source><address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/></source>
             <alias name='ua-portclaim-by-hand'/></interface>""",
    )
    assert list(hostdevs(running)) == [
        Hostdev(PciAddress.parse("0000:01:10.2"), None),
        Hostdev(PciAddress.parse("0000:02:00.0"), None),
    ]


def test_devices_of_other_kinds_are_ignored() -> None:
    assert not list(
        hostdevs(
            domain(
                "<hostdev mode='subsystem' type='usb'><source><address bus='1'/></source></hostdev>",
                "<interface type='network'><source network='default'/></interface>",
                "<hostdev mode='subsystem' type='mdev'><source><address uuid='x'/></source></hostdev>",
            )
        )
    )
    assert not list(hostdevs("<domain/>"))
