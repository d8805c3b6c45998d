"""What a check of the PCI options finds out about one entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from portclaim.common.pci.device import PciDevice

Verdict = Literal["ok", "takes nothing", "warning", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one entry, option or device.

    ``refused`` is the reason why no service would start with the entry; None: the entry is valid. ``takes``
    are the devices that the entry of device_spec, or the alias, gets on the given host; None: this was not
    checked. ``warnings`` say what is probably a mistake, and what to write instead. ``notes`` say what may
    surprise.
    """

    entry: str
    refused: str | None = None
    takes: tuple[PciDevice, ...] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The result in a word."""
        if self.refused is not None:
            return "refused"
        if self.takes == ():
            return "takes nothing"
        return "warning" if self.warnings else "ok"


def in_short(items: list[str], few: int = 4) -> str:
    """The first few of them in words."""
    rest = f" and {len(items) - few} more" if len(items) > few else ""
    return ", ".join(items[:few]) + rest


def number(count: int, what: str) -> str:
    """A number of things in words."""
    return f"{count} {what}{'' if count == 1 else 's'}"
