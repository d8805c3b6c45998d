"""Which of the devices that would do is taken first: the packing policies, as plug-ins."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import stevedore
from stevedore.exception import NoMatches

from common.errors import InvalidConfiguration

NAMESPACE = "portclaim.packing"


class Room(NamedTuple):
    """What a policy may look at: a free device, and how its port is used."""

    dev_type: str
    port_held: int  # VFs of its port that somebody holds
    port_free: int  # VFs of its port that are available


class Packing(Protocol):
    """Orders free devices; those of the lowest key are taken first."""

    def __call__(self, room: Room) -> tuple[int, ...]: ...


def pack(room: Room) -> tuple[int, ...]:
    """Keep whole ports whole: VFs of the most used port, and the PF whose loss costs the fewest VFs."""
    return (room.port_free,) if room.dev_type == "type-PF" else (-room.port_held, room.port_free)


def spread(room: Room) -> tuple[int, ...]:
    """Use as many ports as there are, for the most bandwidth each."""
    return (-room.port_free,) if room.dev_type == "type-PF" else (room.port_held, -room.port_free)


def load(name: str) -> Packing:
    """The policy of this name. Raises :class:`InvalidConfiguration` with the names there are."""
    try:
        found: Packing = stevedore.DriverManager(NAMESPACE, name).driver
    except NoMatches as error:
        known = ", ".join(sorted(stevedore.ExtensionManager(NAMESPACE).names()))
        raise InvalidConfiguration(f"[scheduler] packing = {name}: there is {known or 'none'}") from error
    return found
