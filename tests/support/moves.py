"""Helpers for tests of moves."""

from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.fleet import Fleet


def instance_on_h1(fleet: Fleet) -> Claim:
    """An allocated claim of two VFs on h1. Each of h1, h2 and h3 has two ports with two VFs each."""
    for name in ("h1", "h2", "h3"):
        fleet.host(name, ports=2, vfs=2)
    return fleet.attached(fleet.claim("nic-vf:2", hosts=["h1"]))


def standing(fleet: Fleet, move: Move) -> tuple[str, str, str]:
    """The current status of the move, of its source and of its target."""
    target = fleet.show(move.target)
    assert target.move is not None
    return target.move.status, fleet.show(move.source).status, target.status


def reason(fleet: Fleet, move: Move) -> str | None:
    """Why the move ended, if no caller ended it."""
    shown = fleet.show(move.target).move
    assert shown is not None
    return shown.reason


def causes(fleet: Fleet, claim: Claim) -> list[str]:
    """The causes of all status changes of a claim, oldest first."""
    found = fleet.sql("SELECT cause FROM claim_events WHERE claim_id = :id ORDER BY id", id=claim.claim_id)
    return [cause for (cause,) in found]
