"""Instances that move, in words for tests."""

from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.fleet import Fleet


def instance_on_h1(fleet: Fleet) -> Claim:
    """What an instance has on h1; h2 and h3 are as large. Each has two ports with two VFs each."""
    for name in ("h1", "h2", "h3"):
        fleet.host(name, ports=2, vfs=2)
    return fleet.attached(fleet.claim("nic-vf:2", hosts=["h1"]))


def standing(fleet: Fleet, move: Move) -> tuple[str, str, str]:
    """The status of the move now, of its source, and of its target."""
    target = fleet.show(move.target)
    assert target.move is not None
    return target.move.status, fleet.show(move.source).status, target.status


def reason(fleet: Fleet, move: Move) -> str | None:
    """Why it ended, if no caller ended it."""
    shown = fleet.show(move.target).move
    assert shown is not None
    return shown.reason


def causes(fleet: Fleet, claim: Claim) -> list[str]:
    """Why it became what it was, one after the other."""
    found = fleet.sql("SELECT cause FROM claim_events WHERE claim_id = :id ORDER BY id", id=claim.claim_id)
    return [cause for (cause,) in found]
