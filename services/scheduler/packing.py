"""Which of the devices that would do is taken first: the packing policies, as plug-ins."""

from __future__ import annotations

from dataclasses import dataclass

import stevedore
from stevedore.exception import NoMatches

from portclaim.common.errors import InvalidConfiguration

NAMESPACE = "portclaim.packing"


@dataclass(frozen=True, slots=True)
class Packing:
    """A policy, as PostgreSQL sorts by it; the first is taken first.

    ``ports`` orders the ports that have VFs to give, over the columns ``whole`` (no VF held), ``free``,
    ``held``, ``last_of_cell`` (this claim would take the last such VFs near that memory while others
    are left elsewhere), ``cell_free`` and ``port_id``. ``within`` orders ports that are all whole or
    all not, over ``free``, ``held`` and ``port_id``, and is best an index's order. ``devices`` and
    ``devices_within`` do the same for whole devices, over ``vfs`` (those it would take along),
    ``last_of_cell``, ``cell_free`` and ``id``.
    ``keeps_ports_whole``: rather wait for a port in use than begin a whole one, while these are few.
    """

    name: str
    ports: str
    within: str
    devices: str
    devices_within: str
    keeps_ports_whole: bool = False


PACK = Packing(
    "pack",
    ports="whole, last_of_cell, free, held DESC, cell_free DESC, port_id",
    within="free, held DESC, port_id",
    devices="last_of_cell, vfs, cell_free DESC, id",
    devices_within="vfs, id",
    keeps_ports_whole=True,
)
"""Keep whole ports whole: VFs from the fullest port with room, and the PF whose loss costs the fewest VFs."""

SPREAD = Packing(
    "spread",
    ports="whole DESC, last_of_cell, free DESC, held, cell_free DESC, port_id DESC",
    within="free DESC, held, port_id DESC",
    devices="last_of_cell, vfs DESC, cell_free DESC, id DESC",
    devices_within="vfs DESC, id DESC",
)
"""Use as many ports as there are, for the most bandwidth each."""


def load(name: str) -> Packing:
    """The policy of this name. Raises :class:`InvalidConfiguration` with the names there are."""
    try:
        found: object = stevedore.DriverManager(NAMESPACE, name).driver
    except NoMatches as error:
        known = ", ".join(sorted(stevedore.ExtensionManager(NAMESPACE).names())) or "none"
        raise InvalidConfiguration(f"[scheduler] packing = {name} is unknown; there is {known}") from error
    if not isinstance(found, Packing):
        raise InvalidConfiguration(f"[scheduler] packing = {name}: the plug-in is no Packing")
    return found
