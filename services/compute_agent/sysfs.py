"""A sysfs tree as text, links and names: the only place where the agent reads the kernel's files.

The root is a parameter, so that a tree made by a test, recorded on another machine or simulated is
read by the very code that reads ``/sys``.
"""
# ruff: noqa: PTH115, PTH116, PTH208 - a host has thousands of files and pathlib takes three times as long

from __future__ import annotations

import errno
import os
from pathlib import Path

PCI_DEVICES = "bus/pci/devices"
KERNELS_OWN = Path("/sys")

# A function that is unplugged under a reader shows as one of these.
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
_ATTRIBUTE_SIZE = 4096  # the kernel gives a text attribute one page at most
_BINARY_SIZE = 32768  # VPD's own limit: its address has 15 bits (PCI specification)


class SysfsTree:
    """Reads below ``root``; every method answers None for what is not, or no longer, there.

    Any other trouble (no file descriptors left, say) is raised as the OSError it is: taking it for
    an absence would make the devices of a host vanish.
    """

    def __init__(self, root: Path | str = "/sys") -> None:
        self.root = Path(root)
        self._prefix = f"{self.root}/"

    def names(self, path: str) -> list[str] | None:
        """The entries of a directory, in no order."""
        try:
            return os.listdir(self._prefix + path)
        except OSError as error:
            _raise_unless_gone(error)
            return None

    def text(self, path: str) -> str | None:
        """A text attribute without the white space around it."""
        data = self._read(path, _ATTRIBUTE_SIZE)
        return None if data is None else data.decode("ascii", "replace").strip()

    def number(self, path: str) -> int | None:
        """An attribute that is a number, decimal or ``0x...``; None too for one that is none."""
        text = self.text(path)
        if text is None:
            return None
        try:
            return int(text, 0)
        except ValueError:
            return None

    def binary(self, path: str) -> bytes | None:
        """A binary attribute; None too where the device or the kernel refuses to give it."""
        try:
            return self._read(path, _BINARY_SIZE)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EIO, errno.ETIMEDOUT}:
                return None
            raise

    def link(self, path: str) -> str | None:
        """The last component of a link's target: a driver's name, an address, a group's number."""
        target = self.target(path)
        return None if target is None else target.rpartition("/")[2]

    def target(self, path: str) -> str | None:
        """A link's target as it is written there."""
        try:
            return os.readlink(self._prefix + path)
        except OSError as error:
            _raise_unless_gone(error)
            return None

    def identity(self, path: str) -> int | None:
        """A number that a directory keeps as long as it lives: a device plugged anew has another."""
        try:
            return os.stat(self._prefix + path).st_ino
        except OSError as error:
            _raise_unless_gone(error)
            return None

    def _read(self, path: str, size: int) -> bytes | None:
        try:
            descriptor = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _raise_unless_gone(error)
            return None
        try:
            return os.read(descriptor, size)
        except OSError as error:
            _raise_unless_gone(error)
            return None
        finally:
            os.close(descriptor)


def _raise_unless_gone(error: OSError) -> None:
    if error.errno not in _GONE:
        raise error
