"""A process that uses a device through vfio, as a guest would (kernel docs, VFIO; no hypervisor needed)."""

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BASE = ord(";") << 8 | 100
_GROUP_SET_CONTAINER, _GROUP_GET_DEVICE_FD, _SET_IOMMU = _BASE + 4, _BASE + 6, _BASE + 2
_TYPE1 = 1


def group_of(address: str) -> str:
    return Path(f"/sys/bus/pci/devices/{address}/iommu_group").readlink().name


@contextmanager
def open_device(address: str) -> Iterator[None]:
    """Have the device open. Until the end of the block its driver cannot be taken from it."""
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open(f"/dev/vfio/{group_of(address)}", os.O_RDWR)
    fcntl.ioctl(group, _GROUP_SET_CONTAINER, ctypes.c_int(container))
    fcntl.ioctl(container, _SET_IOMMU, _TYPE1)
    # With a buffer that can be written to, Python returns what the ioctl returns: the descriptor.
    device = fcntl.ioctl(group, _GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"))
    try:
        yield
    finally:
        for each in (device, group, container):
            os.close(each)
