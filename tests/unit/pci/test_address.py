"""The address of one PCI function."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress

addresses = st.builds(
    PciAddress, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)
)


@given(addresses)
def test_a_printed_address_parses_to_the_same_address(address: PciAddress) -> None:
    assert PciAddress.parse(str(address)) == address


@given(addresses, addresses)
def test_addresses_sort_by_their_numbers(one: PciAddress, other: PciAddress) -> None:
    numbers = [(address.domain, address.bus, address.slot, address.function) for address in (one, other)]
    assert (one < other) == (numbers[0] < numbers[1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "81:00.0",
        "0000:81:00",
        "0000:81:20.0",
        "0000:81:00.8",
        "0000:81:00.0\n",
        "000g:81:00.0",
        "\N{ARABIC-INDIC DIGIT ZERO}000:81:00.0",
    ],
)
def test_an_incomplete_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidPciAddress, match="is no PCI address"):
        PciAddress.parse(text)
