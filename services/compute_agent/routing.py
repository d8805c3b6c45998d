"""Where a PF's VFs are, by the arithmetic of its SR-IOV capability."""

from __future__ import annotations

from portclaim.common.pci.address import PciAddress

BUSES = 256


def vf_addresses(pf: PciAddress, offset: int, stride: int, count: int) -> list[PciAddress]:
    """The first ``count`` VFs: VF ``n`` (from 0) has the PF's routing id + offset + n * stride.

    The rule is the SR-IOV specification's (1.1, 2.1.2); a routing id is bus, slot and function in 16
    bits, so VFs may lie on a later bus than their PF. VFs beyond the last bus are left out.
    """
    first = (pf.bus << 8 | pf.slot << 3 | pf.function) + offset
    ids = range(first, first + count * stride, stride) if stride else [first] * min(count, 1)
    return [PciAddress(pf.domain, n >> 8, n >> 3 & 0x1F, n & 0x7) for n in ids if n >> 8 < BUSES]
