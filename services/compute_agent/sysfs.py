"""Read the text, links and names of a sysfs tree.

The root is a parameter. So the same code reads ``/sys``, a tree made by a test, a tree recorded on another
machine and a simulated tree.
"""
# ruff: noqa: PTH115, PTH116, PTH208 - a host has thousands of files and pathlib takes three times as long

from __future__ import annotations

import errno
import os
from pathlib import Path

PCI_DEVICES = "bus/pci/devices"
KERNELS_OWN = Path("/sys")

# Reading a function that was just unplugged fails with one of these.
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
_ATTRIBUTE_SIZE = 4096  # the kernel gives a text attribute one page at most
_BINARY_SIZE = 32768  # VPD's own limit: its address has 15 bits (PCI specification)


class SysfsTree:
    """Reads below ``root``. Every method answers None for a file that does not exist, or no longer exists.

    Any other OSError (for example, no file descriptors left) is raised: if it counted as absence, the devices
    of a host would vanish.
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
        """An attribute that is a number, decimal or ``0x...``; None also if it is not a number."""
        text = self.text(path)
        if text is None:
            return None
        try:
            return int(text, 0)
        except ValueError:
            return None

    def binary(self, path: str) -> bytes | None:
        """A binary attribute; None also if the device or the kernel refuses to show it."""
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
        """The target of a link, as the link has it."""
        try:
            return os.readlink(self._prefix + path)
        except OSError as error:
            _raise_unless_gone(error)
            return None

    def identity(self, path: str) -> int | None:
        """A number that identifies a directory while it exists. A device plugged in again has another."""
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
