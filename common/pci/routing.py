"""The addresses of a PF's VFs, calculated from its SR-IOV capability."""

from __future__ import annotations

from portclaim.common.pci.address import PciAddress

BUSES = 256


def vf_addresses(pf: PciAddress, offset: int, stride: int, count: int) -> list[PciAddress]:
    """The first ``count`` VFs: VF ``n`` (from 0) has the PF's routing id + offset + n * stride.

    The SR-IOV specification (1.1, 2.1.2) sets this rule. A routing id is bus, slot and function in 16 bits,
    so VFs may be on a later bus than their PF. VFs beyond the last bus are left out.
    """
    first = (pf.bus << 8 | pf.slot << 3 | pf.function) + offset
    ids = range(first, first + count * stride, stride) if stride else [first] * min(count, 1)
    return [PciAddress(pf.domain, n >> 8, n >> 3 & 0x1F, n & 0x7) for n in ids if n >> 8 < BUSES]
