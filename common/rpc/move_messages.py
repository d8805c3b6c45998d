"""Messages about moves: an instance's devices on another host."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portclaim.common.rpc.claim_messages import (
    AvoidHosts,
    Claim,
    NetworkSettingsOfDevices,
    NumaCells,
    OnlyHosts,
)
from portclaim.common.rpc.device_request import DeviceRequest
from portclaim.common.rpc.fields import Message, MoveStatus, Text, Uuid
from portclaim.common.rpc.operator_messages import Grounds, Orderer
from portclaim.common.rpc.versions import Since


class MoveRequest(Message):
    """A claim on another host for the instance of an allocated claim (the source).

    ``hosts``, ``avoid_hosts`` and ``numa_cells`` are never taken from the source. The source's host never
    serves the move.
    """

    claim_id: Uuid = Field(
        description="The caller chooses the id of the new claim (the target). A repeated call with the same "
        "id and the same request gets the same move."
    )
    source_claim_id: Uuid = Field(description="The claim to move. It must be allocated.")
    extra_specs: dict[Text, Text] | None = Field(
        default=None, description="The flavor's extra specs, for a resize. Null: those of the source."
    )
    requests: Annotated[list[DeviceRequest], Field(max_length=16)] | None = Field(
        default=None, description="PCI requests in addition to those in `extra_specs`. Null: the source's."
    )
    hosts: OnlyHosts = None
    avoid_hosts: AvoidHosts = []
    numa_cells: NumaCells = []
    network_settings: Annotated[NetworkSettingsOfDevices | None, Since("1.1")] = Field(
        default=None, description="Network settings of the target's devices. Null: the source's."
    )
    live: Annotated[bool, Since("1.1")] = Field(
        default=False,
        description="True: the guest runs on while it moves. When the target is prepared, the agent of the "
        "source unplugs the devices that are not `live_migratable`. The source is released when the guest "
        "has the devices of the target. If the move is reverted, the guest gets the source's devices back.",
    )
    who: Orderer = None
    reason: Grounds = None


class EndOfMove(Message):
    """Complete or revert a move."""

    claim_id: Uuid = Field(description="The target of the move.")
    who: Orderer = None
    reason: Grounds = None


class Move(Message):
    """A move as it is now, with both of its claims."""

    status: MoveStatus = Field(
        description="`begun`: both claims hold devices. `completing`: the source is released as soon as the "
        "target is allocated. `completed`: the source is being released, or has ended. `reverted`: the "
        "target is being released, or has ended."
    )
    reason: str | None = Field(description="Why the move ended. Null: a caller ended it, or it goes on.")
    begun_at: str = Field(description="When the target was claimed, ISO 8601.")
    updated_at: str = Field(description="When the status of the move changed last, ISO 8601.")
    kind: str = Field(default="cold", description="`cold`, or `live`: the guest runs on while it moves.")
    ready: bool = Field(
        default=False,
        description="For a live move. True: the target is prepared and the guest has no device that cannot "
        "go with it. Now migrate the guest.",
    )
    source: Claim = Field(description="The claim that the instance moves from.")
    target: Claim = Field(description="The claim that the instance moves to.")
