"""``portclaim claim|release|show|explain``."""

from __future__ import annotations

import getpass
import sys
import uuid

import click

from portclaim.cli import render
from portclaim.cli.session import Session, command
from portclaim.cli.waiting import wait_for
from portclaim.common.rpc.messages import MAX_WAIT, ClaimRequest, ExplainRequest

_alias = click.option(
    "--alias",
    required=True,
    help="How many of which kinds, as in the extra spec pci_passthrough:alias: NAME:COUNT[,NAME:COUNT...].",
)
_extra_specs = click.option(
    "--extra-spec",
    "extra_specs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another extra spec of the flavor; may be given more than once.",
)
_hosts = click.option(
    "--host", "hosts", multiple=True, help="Only on this host; may be given more than once."
)
_numa_cells = click.option(
    "--numa-cell", "numa_cells", type=int, multiple=True, help="A host NUMA node that the instance is on."
)
_avoid = click.option("--avoid-host", "avoid_hosts", multiple=True, help="Not on this host.")

_DANGER = """\
DANGER: nobody has detached anything. If {host} still runs, so does instance {instance}, with the devices:
start it nowhere else before {host} is off for certain. If {host} comes back, it loses the devices."""


def add_claim_commands(main: click.Group) -> None:
    @command(main)
    @_alias
    @_extra_specs
    @_hosts
    @_avoid
    @_numa_cells
    @click.option("--instance", type=click.UUID, help="The instance; default: a new id.")
    @click.option(
        "--claim-id", type=click.UUID, help="The claim's id, to call again safely; default: a new id."
    )
    @click.option(
        "--wait",
        type=click.IntRange(1, MAX_WAIT),
        metavar="SECONDS",
        help="If it cannot be served now, wait in line for so long.",
    )
    @render.output_option
    @click.pass_obj
    def claim(
        session: Session,
        alias: str,
        extra_specs: tuple[str, ...],
        hosts: tuple[str, ...],
        avoid_hosts: tuple[str, ...],
        numa_cells: tuple[int, ...],
        instance: uuid.UUID | None,
        claim_id: uuid.UUID | None,
        wait: int | None,
        output: str,
    ) -> None:
        """Reserve devices for an instance: all of them on one host, or none.

        The claim is answered once its devices are reserved; they are attached after that.
        The same --claim-id with the same request answers with the same claim.

        With --wait it is served in its turn, first come first served among those that want the same. Ctrl-C
        ends this program and not the claim: it keeps its place, and the same command with its id shows
        it again.
        """
        request = ClaimRequest(
            claim_id=claim_id or uuid.uuid4(),
            instance_id=instance or uuid.uuid4(),
            extra_specs=specs(alias, extra_specs),
            hosts=list(hosts) or None,
            avoid_hosts=list(avoid_hosts),
            numa_cells=list(numa_cells),
            wait=wait,
        )
        scheduler = session.scheduler
        made = wait_for(scheduler, scheduler.claim(request))
        render.as_json(made) if output == "json" else render.claim(made)
        if made.host is None:
            why = made.reason or "it was given up before it was served"
            click.echo(f"portclaim: the claim is {made.status}: {why}", err=True)
            sys.exit(1)

    @command(main)
    @click.argument("claim_id", type=click.UUID)
    @click.option(
        "--force", is_flag=True, help="End the claim unasked, because its host will not come back. DANGEROUS."
    )
    @click.option("--reason", help="With --force: how you know that. Kept in the claim's history.")
    @click.option(
        "--who",
        default=getpass.getuser,
        show_default="your user name here",
        help="With --force: who says so. Kept in the claim's history.",
    )
    @render.output_option
    @click.pass_obj
    def release(
        session: Session, claim_id: uuid.UUID, force: bool, reason: str | None, who: str, output: str
    ) -> None:
        """Give a claim's devices back. They are free once the host's agent has detached them.

        With --force the claim is over at once, though nobody has detached anything. It is refused while
        the agent of the host gives signs of life. See first that the host is off: where it is only cut
        off, the instance runs on with the devices, and started elsewhere it would run twice. No device of
        the claim is offered before its host has come back; then its agent takes them from the instance.
        """
        if force != (reason is not None):
            raise click.UsageError("--force and --reason go together")
        if reason is None:
            released = session.scheduler.release(claim_id)
        else:
            released = session.scheduler.force_release(claim_id, who, reason)
            if released.host is not None:
                danger = _DANGER.format(host=released.host, instance=released.instance_id)
                click.echo(danger, err=True)
        render.as_json(released) if output == "json" else render.claim(released)

    @command(main)
    @click.argument("claim_id", type=click.UUID)
    @render.output_option
    @click.pass_obj
    def show(session: Session, claim_id: uuid.UUID, output: str) -> None:
        """Show a claim and its devices."""
        shown = session.scheduler.show(claim_id)
        render.as_json(shown) if output == "json" else render.claim(shown)

    @command(main)
    @_alias
    @_extra_specs
    @_hosts
    @_avoid
    @_numa_cells
    @render.output_option
    @click.pass_obj
    def explain(
        session: Session,
        alias: str,
        extra_specs: tuple[str, ...],
        hosts: tuple[str, ...],
        avoid_hosts: tuple[str, ...],
        numa_cells: tuple[int, ...],
        output: str,
    ) -> None:
        """Say whether a claim would be served now, and why not. Reserves nothing."""
        request = ExplainRequest(
            extra_specs=specs(alias, extra_specs),
            hosts=list(hosts) or None,
            avoid_hosts=list(avoid_hosts),
            numa_cells=list(numa_cells),
        )
        explained = session.scheduler.explain(request)
        render.as_json(explained) if output == "json" else render.explanation(explained)


def specs(alias: str, extra_specs: tuple[str, ...]) -> dict[str, str]:
    """The extra specs that --alias and --extra-spec make. Raises ``click.BadParameter``."""
    found = {"pci_passthrough:alias": alias}
    for spec in extra_specs:
        key, equals, value = spec.partition("=")
        if not equals:
            raise click.BadParameter(f"{spec!r} is not KEY=VALUE", param_hint="--extra-spec")
        found[key] = value
    return found
