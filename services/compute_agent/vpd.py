"""Vital Product Data of a card (PCI Local Bus specification 3.0, appendix I): its serial number."""

from __future__ import annotations

from collections.abc import Iterator

_LARGE = 0x80  # this bit set: a large resource, two bytes of length; clear: a small one, three bits
_READ_ONLY = 0x90
_END = 0x0F
_KEYWORD_HEADER = 3  # two letters and one byte of length


def serial_number(vpd: bytes) -> str | None:
    """The ``SN`` field of the read-only section, or None where it is missing or the data is broken."""
    for tag, resource in _resources(vpd):
        if tag == _READ_ONLY:
            for keyword, value in _fields(resource):
                if keyword == b"SN":
                    text = value.decode("ascii", "replace").strip("\0 ")
                    return text if text.isprintable() and text else None
    return None


def _resources(vpd: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(vpd):
        tag = vpd[at]
        if tag & _LARGE:
            header, size = 3, int.from_bytes(vpd[at + 1 : at + 3], "little")
        else:
            header, size, tag = 1, tag & 0x07, tag >> 3
        end = at + header + size
        if tag == _END or end > len(vpd):
            return
        yield tag, vpd[at + header : end]
        at = end


def _fields(resource: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + _KEYWORD_HEADER <= len(resource):
        end = at + _KEYWORD_HEADER + resource[at + 2]
        if end > len(resource):
            return
        yield resource[at : at + 2], resource[at + _KEYWORD_HEADER : end]
        at = end
