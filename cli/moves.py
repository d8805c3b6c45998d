"""``portclaim move begin|complete|revert``: an instance's devices on another host."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli.claims import specs
from portclaim.cli.completing import CLAIM
from portclaim.cli.options import output_option, reason_option, who_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.common.rpc.move_messages import Move

_to_claim = click.argument("to_claim", type=click.UUID, shell_complete=CLAIM)


@click.group()
def move() -> None:
    """Move the devices of an instance to another host.

    `begin` makes a target claim on another host. The instance then holds both claims. `complete` releases the
    source claim, `revert` releases the target claim. Both take the id of the target claim.
    """


@command(group=move)
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@click.option(
    "--to-claim",
    type=click.UUID,
    help="The target claim's UUID, so that the call can be repeated safely. Default: a new one.",
)
@click.option("--host", "hosts", multiple=True, help="Only to this host. May be repeated.")
@click.option(
    "--avoid-host",
    "avoid_hosts",
    multiple=True,
    help="Not to this host. The source's host is always avoided.",
)
@click.option(
    "--numa-cell",
    "numa_cells",
    type=int,
    multiple=True,
    help="A NUMA node of the new host that the instance will run on.",
)
@click.option("--alias", help="For a resize: other devices than now, as for `claim`.")
@click.option(
    "--extra-spec", "extra_specs", multiple=True, metavar="KEY=VALUE", help="With --alias: as for `claim`."
)
@click.option(
    "--live",
    is_flag=True,
    help="The guest runs on while it moves: its devices are unplugged before, and those of the target are "
    "attached when it has arrived.",
)
@reason_option
@who_option
@output_option
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
    live: bool,
    reason: str | None,
    who: str,
    output: str,
) -> None:
    """Claim on another host what CLAIM_ID asked for, for the same instance.

    Example: portclaim move begin 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10

    The instance holds both claims until `complete` or `revert`. With --live, repeat the command with the same
    --to-claim until it says that the move is ready, then migrate the guest. A live move needs no `complete`:
    the source claim is released when the guest has the devices of the target claim.

    Next: move the instance. Then, without --live, portclaim move complete TO_CLAIM. If the instance stays:
    portclaim move revert TO_CLAIM.
    """
    if extra_specs and alias is None:
        raise click.UsageError("--extra-spec needs --alias: together they replace what CLAIM_ID asked for")
    from portclaim.common.rpc.move_messages import MoveRequest

    request = MoveRequest(
        claim_id=to_claim or uuid.uuid4(),
        source_claim_id=claim_id,
        extra_specs=None if alias is None else specs(alias, extra_specs),
        hosts=list(hosts) or None,
        avoid_hosts=list(avoid_hosts),
        numa_cells=list(numa_cells),
        live=live,
        who=who,
        reason=reason,
    )
    _show(session.scheduler.move(request), output)


@command(group=move)
@_to_claim
@reason_option
@who_option
@output_option
@click.pass_obj
def complete(session: Session, to_claim: uuid.UUID, reason: str | None, who: str, output: str) -> None:
    """Release the source claim: now, or as soon as TO_CLAIM is allocated.

    Example: portclaim move complete 0f6d2c1e-52b5-4e0f-9d0a-1c3f4f2b7a11

    Next: portclaim show TO_CLAIM, until the move is completed.
    """
    _show(session.scheduler.complete_move(to_claim, who=who, reason=reason), output)


@command(group=move)
@_to_claim
@reason_option
@who_option
@output_option
@click.pass_obj
def revert(session: Session, to_claim: uuid.UUID, reason: str | None, who: str, output: str) -> None:
    """Release TO_CLAIM. The instance keeps the devices of the source claim.

    Example: portclaim move revert 0f6d2c1e-52b5-4e0f-9d0a-1c3f4f2b7a11

    Next: portclaim show TO_CLAIM, until the claim is released.
    """
    _show(session.scheduler.revert_move(to_claim, who=who, reason=reason), output)


def _show(shown: Move, output: str) -> None:
    from portclaim.cli import documents, render

    documents.show(output, shown, render.move)
