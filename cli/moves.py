"""``portclaim move begin|complete|revert``: an instance's devices on another host."""

from __future__ import annotations

import uuid

import click

from portclaim.cli import render
from portclaim.cli.claims import specs
from portclaim.cli.session import Session, command
from portclaim.common.rpc.move_messages import Move, MoveRequest

_to_claim = click.argument("to_claim", type=click.UUID)


@click.group()
def move() -> None:
    """Move what an instance has to another host, for a cold migration or a resize.

    First the new claim, beside the one that there is: `begin`. Then one of the two is let go of, the old
    one by `complete` or the new one by `revert`, both of which name the new claim.
    """


@command(move)
@click.argument("claim_id", type=click.UUID)
@click.option(
    "--to-claim", type=click.UUID, help="The new claim's id, to call again safely; default: a new id."
)
@click.option("--host", "hosts", multiple=True, help="Only to this host; may be given more than once.")
@click.option(
    "--avoid-host", "avoid_hosts", multiple=True, help="Not to this host; where it is now is avoided anyway."
)
@click.option(
    "--numa-cell",
    "numa_cells",
    type=int,
    multiple=True,
    help="A NUMA node of the new host that it will be on.",
)
@click.option("--alias", help="For a resize: other devices than it has now, as with `claim`.")
@click.option(
    "--extra-spec", "extra_specs", multiple=True, metavar="KEY=VALUE", help="With --alias: as with `claim`."
)
@render.output_option
@click.pass_obj
def begin(
    session: Session,
    claim_id: uuid.UUID,
    to_claim: uuid.UUID | None,
    hosts: tuple[str, ...],
    avoid_hosts: tuple[str, ...],
    numa_cells: tuple[int, ...],
    alias: str | None,
    extra_specs: tuple[str, ...],
    output: str,
) -> None:
    """Claim on another host what CLAIM_ID asked for, for the same instance, which keeps both meanwhile."""
    if extra_specs and alias is None:
        raise click.UsageError("--extra-spec needs --alias: the two replace what CLAIM_ID asked for")
    request = MoveRequest(
        claim_id=to_claim or uuid.uuid4(),
        source_claim_id=claim_id,
        extra_specs=None if alias is None else specs(alias, extra_specs),
        hosts=list(hosts) or None,
        avoid_hosts=list(avoid_hosts),
        numa_cells=list(numa_cells),
    )
    _show(session.scheduler.move(request), output)


@command(move)
@_to_claim
@render.output_option
@click.pass_obj
def complete(session: Session, to_claim: uuid.UUID, output: str) -> None:
    """Release the old claim, now or as soon as TO_CLAIM is attached."""
    _show(session.scheduler.complete_move(to_claim), output)


@command(move)
@_to_claim
@render.output_option
@click.pass_obj
def revert(session: Session, to_claim: uuid.UUID, output: str) -> None:
    """Release TO_CLAIM again. The old claim stays as it is."""
    _show(session.scheduler.revert_move(to_claim), output)


def _show(shown: Move, output: str) -> None:
    render.as_json(shown) if output == "json" else render.move(shown)
