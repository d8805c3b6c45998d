"""Packing policies: which of the suitable devices a claim takes first. They are plug-ins."""

from __future__ import annotations

from dataclasses import dataclass

import stevedore
from stevedore.exception import NoMatches

from portclaim.common.errors import InvalidConfiguration

NAMESPACE = "portclaim.packing"


@dataclass(frozen=True, slots=True)
class Packing:
    """A policy as ORDER BY clauses of PostgreSQL. A claim takes the first.

    ``ports`` orders ports with free VFs by the columns ``whole`` (no VF is held), ``free``, ``held``,
    ``last_of_cell`` (the claim would take the last such VFs of this NUMA node while others have some),
    ``cell_free`` (free VFs of this NUMA node) and ``port_id``. ``within`` orders ports that are all whole, or
    all in use, by ``free``, ``held`` and ``port_id``; it should be the order of an index. ``devices`` and
    ``devices_within`` do the same for PFs and for devices without a tree, by ``vfs`` (VFs that the claim
    would make unclaimable), ``last_of_cell``, ``cell_free`` and ``id``. ``keeps_ports_whole``: while few
    whole ports are left, a claim waits for the lock of a port in use rather than take VFs of a whole port.
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
"""Keep ports whole: take VFs from the fullest port that has enough, and the PF that has the fewest VFs."""

SPREAD = Packing(
    "spread",
    ports="whole DESC, last_of_cell, free DESC, held, cell_free DESC, port_id DESC",
    within="free DESC, held, port_id DESC",
    devices="last_of_cell, vfs DESC, cell_free DESC, id DESC",
    devices_within="vfs DESC, id DESC",
)
"""Use as many ports as possible, so that each VF has more bandwidth."""


def load(name: str) -> Packing:
    """The policy of this name. Raises :class:`InvalidConfiguration` with the known names."""
    try:
        found: object = stevedore.DriverManager(NAMESPACE, name).driver
    except NoMatches as error:
        known = ", ".join(sorted(stevedore.ExtensionManager(NAMESPACE).names())) or "none"
        raise InvalidConfiguration(
            f"[scheduler] packing = {name} is unknown: choose one of {known}"
        ) from error
    if not isinstance(found, Packing):
        raise InvalidConfiguration(f"[scheduler] packing = {name}: the entry point is not a Packing")
    return found
