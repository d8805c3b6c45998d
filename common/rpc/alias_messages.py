"""Messages about the aliases of a scheduler."""

from __future__ import annotations

from pydantic import Field

from portclaim.common.rpc.fields import Message, Number


class AliasSummary(Message):
    """An alias, and how many devices of the fleet are of its kind now."""

    name: str = Field(description="Name of the alias.")
    numa_policy: str = Field(description="Its NUMA policy.")
    spec: list[dict[str, str | None]] = Field(
        description="Its alternatives, as a request of the extra spec has them."
    )
    devices: Number = Field(description="Devices that match, whatever their status.")
    available: Number = Field(description="Of these, the devices that a claim could get now.")
    of_other_types: dict[str, Number] = Field(
        description="Devices that would match but for their type, by type. If no device matches, the alias "
        "probably asks for the wrong type."
    )


class Aliases(Message):
    """The aliases of the scheduler that answers."""

    aliases: list[AliasSummary] = Field(description="In the order of their names.")
