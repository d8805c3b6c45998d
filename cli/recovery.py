"""``portclaim host unknown-claims`` and ``host recover``: what to do after a restore of the database."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING
from uuid import UUID

import click

from portclaim.cli.completing import HOST
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.common.rpc.recovery_messages import UnknownClaim


@command("unknown-claims")
@click.argument("host", shell_complete=HOST)
@output_option
@click.pass_obj
def unknown_claims(session: Session, host: str, output: str) -> None:
    """List claims that HOST has devices for, and that the database does not know.

    Example: portclaim host unknown-claims compute-7

    There are some after an old backup of the database was restored. Their devices stay where they are, and
    no claim gets them.

    Next: portclaim host recover HOST makes these claims anew. With --release it gives their devices back too.
    """
    from portclaim.cli import documents, render

    found = _unknown(session, host)
    if output != "table":
        documents.document(output, [claim.model_dump(mode="json") for claim in found])
        return
    if not found:
        click.echo(f"the database knows all claims that {host} has devices for")
        return
    cells = [(str(each.claim_id), str(each.instance_id), " ".join(each.addresses)) for each in found]
    render.rows(("claim", "instance", "devices"), cells)


@command()
@click.argument("host", shell_complete=HOST)
@click.argument("claim_ids", nargs=-1, type=click.UUID, metavar="[CLAIM_ID]...")
@click.option("--reason", required=True, help="Why. The audit shows it.")
@click.option("--who", default=getpass.getuser, show_default="your user name here", help="Who decides this.")
@click.option("--release", is_flag=True, help="Release the claims at once: the agent detaches their devices.")
@click.pass_obj
def recover(
    session: Session, host: str, claim_ids: tuple[UUID, ...], reason: str, who: str, release: bool
) -> None:
    """Make claims anew that HOST has devices for and that the database does not know.

    Example: portclaim host recover compute-7 --reason "restored the backup of Monday"

    Without CLAIM_ID, all of them. The claims are allocated to the same instances, with the devices that these
    have. If the instance of a claim is not wanted any more, --release gives its devices back. It takes the
    devices from the instance, so name the claims.

    Next: portclaim claim list --host HOST shows the claims.
    """
    if release and not claim_ids:
        raise click.UsageError("--release takes devices from instances: name each CLAIM_ID")
    from portclaim.common.errors import ClaimNotFound
    from portclaim.common.rpc.recovery_messages import Recovery
    from portclaim.common.rpc.scheduler import SchedulerClient

    scheduler = session.client(SchedulerClient)
    found = {claim.claim_id: claim for claim in _unknown(session, host)}
    for claim_id in claim_ids or found:
        if claim_id not in found:
            raise ClaimNotFound(f"{host} has no unknown claim {claim_id}", claim_id=str(claim_id))
        wanted = Recovery(host=host, claim=found[claim_id], who=who, reason=reason)
        scheduler.recover(wanted)
        if release:
            scheduler.release(claim_id)
        click.echo(f"{claim_id} is {'recovered, and releasing' if release else 'recovered'}")
    if not found:
        click.echo(f"the database knows all claims that {host} has devices for: nothing to do")


def _unknown(session: Session, host: str) -> list[UnknownClaim]:
    """What the agent says, without claims that were recovered since it asked for its claims."""
    from portclaim.common.errors import ClaimNotFound
    from portclaim.common.rpc.compute_agent import ComputeAgentClient

    unknown = []
    for claim in session.client(ComputeAgentClient, host).unknown_claims():
        try:
            session.scheduler.show(claim.claim_id)
        except ClaimNotFound:
            unknown.append(claim)
    return unknown
