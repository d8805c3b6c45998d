"""The ``<hostdev>`` element that gives a guest a device."""

from uuid import UUID
from xml.etree import ElementTree as ET

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.hostdev_xml import alias, hostdev_element

CLAIM = UUID("5a3c1d70-0a61-4f7e-9d0c-2f2f6a0c9b11")
VF = PciAddress.parse("0000:81:10.2")


def test_the_element_can_be_put_into_a_domain_as_it_is() -> None:
    assert hostdev_element(VF, CLAIM, managed=True) == (
        '<hostdev mode="subsystem" type="pci" managed="yes">\n'
        "  <source>\n"
        '    <address domain="0x0000" bus="0x81" slot="0x10" function="0x2" />\n'
        "  </source>\n"
        f'  <alias name="ua-portclaim-{CLAIM}-0000-81-10-2" />\n'
        "</hostdev>"
    )


@pytest.mark.parametrize(("managed", "word"), [(True, "yes"), (False, "no")])
def test_it_says_whether_libvirt_binds_the_drivers(managed: bool, word: str) -> None:
    assert ET.fromstring(hostdev_element(VF, CLAIM, managed=managed)).get("managed") == word


def test_a_device_of_no_claim_has_no_alias() -> None:
    assert ET.fromstring(hostdev_element(VF, None, managed=True)).find("alias") is None


def test_domains_with_more_than_16_bits_are_written_in_full() -> None:
    far = PciAddress.parse("ffff0001:01:00.0")
    address = ET.fromstring(hostdev_element(far, CLAIM, managed=True)).find("source/address")
    assert address is not None
    assert address.get("domain") == "0xffff0001"
    assert alias(CLAIM, far) == f"ua-portclaim-{CLAIM}-ffff0001-01-00-0"
