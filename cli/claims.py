"""``portclaim claim|attach|release|show|explain``."""

from __future__ import annotations

import getpass
import sys
import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import CLAIM
from portclaim.cli.options import (
    alias_option,
    apart_from_option,
    avoid_hosts_option,
    extra_specs_option,
    hosts_option,
    near_option,
    network_settings_option,
    numa_cells_option,
    output_option,
)
from portclaim.cli.session import Session, command
from portclaim.cli.waiting import wait_for

if TYPE_CHECKING:
    from portclaim.common.rpc.claim_messages import Claim
    from portclaim.common.rpc.fields import AttachMode
    from portclaim.common.rpc.network_settings import DeviceNetworkSettings

LONGEST_WAIT = 7 * 24 * 3600  # seconds. A test compares it with the message's own limit.

_DANGER = """\
DANGER: the devices were not detached. If host {host} still runs, instance {instance} still uses them. Do not
start the instance elsewhere before you are sure that {host} is off. If {host} comes back, its agent detaches
the devices from the instance."""


@command()
@alias_option
@extra_specs_option
@hosts_option
@avoid_hosts_option
@numa_cells_option
@near_option
@apart_from_option
@network_settings_option
@click.option("--instance", type=click.UUID, help="The instance's UUID. Default: a new one.")
@click.option(
    "--claim-id",
    type=click.UUID,
    help="The claim's UUID, so that the call can be repeated safely. Default: a new one.",
)
@click.option(
    "--wait",
    type=click.IntRange(1, LONGEST_WAIT),
    metavar="SECONDS",
    help="If no host can serve the claim now, wait in a queue for so many seconds.",
)
@click.option(
    "--attach",
    type=click.Choice(["auto", "on-call"]),
    default="auto",
    show_default=True,
    help="auto: the agent attaches the devices when the instance is on the host. on-call: not before "
    "portclaim attach.",
)
@click.option(
    "--guest-within",
    type=click.IntRange(0, LONGEST_WAIT),
    metavar="SECONDS",
    help="The claim expires so many seconds after it is prepared if the instance has not got the devices. 0: "
    "never. Default: [conductor] guest_within.",
)
@output_option
@click.pass_obj
def claim(
    session: Session,
    alias: str,
    extra_specs: tuple[str, ...],
    hosts: tuple[str, ...],
    avoid_hosts: tuple[str, ...],
    numa_cells: tuple[int, ...],
    near: tuple[uuid.UUID, ...],
    apart_from: tuple[uuid.UUID, ...],
    network_settings: list[DeviceNetworkSettings],
    instance: uuid.UUID | None,
    claim_id: uuid.UUID | None,
    wait: int | None,
    attach: AttachMode,
    guest_within: int | None,
    output: str,
) -> None:
    """Reserve devices for an instance: all of them on one host, or none.

    Example: portclaim claim --alias nic-vf:2

    The command answers when the devices are reserved. Then the host's agent prepares them for the instance,
    and the claim is prepared. When the instance is on the host and has them, the claim is allocated. The same
    --claim-id with the same request gives the same claim.

    With --wait, claims with the same requests are served in the order of their arrival. Ctrl-C ends this
    program, but not the claim: it keeps its position in the queue.

    Next: portclaim wait CLAIM_ID --for prepared, then start the instance on that host. If the claim is
    refused: portclaim claim refusals says why. portclaim claim list shows the claims that there are.
    """
    from portclaim.cli import documents, render
    from portclaim.common.rpc.claim_messages import ClaimRequest

    request = ClaimRequest(
        claim_id=claim_id or uuid.uuid4(),
        instance_id=instance or uuid.uuid4(),
        extra_specs=specs(alias, extra_specs),
        hosts=list(hosts) or None,
        avoid_hosts=list(avoid_hosts),
        numa_cells=list(numa_cells),
        near=list(near),
        apart_from=list(apart_from),
        network_settings=network_settings,
        wait=wait,
        attach=attach,
        guest_within=guest_within,
    )
    made = wait_for(session, session.scheduler.claim(request))
    documents.show(output, made, render.claim)
    if made.host is None:
        why = made.reason or "it was released while it waited"
        click.echo(f"portclaim: the claim was not served, and is {made.status}: {why}", err=True)
        sys.exit(1)


@command()
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@output_option
@click.pass_obj
def attach(session: Session, claim_id: uuid.UUID, output: str) -> None:
    """Attach the devices of a claim that was made with --attach on-call.

    Example: portclaim attach 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10

    The host's agent attaches the devices as soon as the instance is on the host. A claim that was made with
    --attach auto, or that has ended, does not change.

    Next: portclaim wait CLAIM_ID --for allocated, until the instance has the devices.
    """
    from portclaim.cli import documents, render

    called = session.scheduler.attach(claim_id)
    documents.show(output, called, render.claim)


@command()
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@click.option(
    "--force",
    is_flag=True,
    help="End the claim without its agent, because its host will not come back. DANGEROUS.",
)
@click.option("--reason", help="With --force: how you know that. The claim's history keeps it.")
@click.option(
    "--who",
    default=getpass.getuser,
    show_default="your user name here",
    help="With --force: who decides this. The claim's history keeps it.",
)
@output_option
@click.pass_obj
def release(
    session: Session, claim_id: uuid.UUID, force: bool, reason: str | None, who: str, output: str
) -> None:
    """Release a claim: its agent detaches the devices. They are free when the agent has confirmed that.

    Example: portclaim release 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10

    With --force the claim ends at once, although the devices are not detached. This is refused while the
    host's agent is alive. First make sure that the host is off. If it is only cut off from the network, the
    instance still runs with the devices, and would run twice if it were started elsewhere. No other claim
    gets the devices before the host is back; then its agent detaches them from the instance.

    Next: portclaim wait CLAIM_ID --for ended, until the devices are free.
    """
    if force != (reason is not None):
        raise click.UsageError("--force and --reason go together")
    from portclaim.cli import documents, render

    if reason is None:
        released = session.scheduler.release(claim_id)
    else:
        released = session.scheduler.force_release(claim_id, who, reason)
        if released.host is not None:
            danger = _DANGER.format(host=released.host, instance=released.instance_id)
            click.echo(danger, err=True)
    documents.show(output, released, render.claim)


@command()
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@click.option("--xml", is_flag=True, help="Show only its devices, as <hostdev> of libvirt's domain XML.")
@click.option("--unmanaged", is_flag=True, help="With --xml: managed='no', libvirt binds no drivers.")
@output_option
@click.pass_obj
def show(session: Session, claim_id: uuid.UUID, xml: bool, unmanaged: bool, output: str) -> None:
    """Show a claim and its devices.

    Example: portclaim show 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10

    With --xml, put the output into <devices> of the domain's definition. The alias of each device names the
    claim: do not change it. <rom> and <boot> are up to you. Start the domain when the claim is prepared.

    Next: portclaim describe claim CLAIM_ID shows its history, the step that its agent has not answered, and
    what to do next.
    """
    from portclaim.cli import documents, render

    if unmanaged and not xml:
        raise click.UsageError("--unmanaged needs --xml")
    if xml and output != "table":
        raise click.UsageError(f"--xml and --output {output} do not go together")
    shown = session.scheduler.show(claim_id)
    if xml:
        _show_xml(shown, managed=not unmanaged)
    else:
        documents.show(output, shown, render.claim)


def _show_xml(claim: Claim, *, managed: bool) -> None:
    from portclaim.common.rpc.claim_xml import hostdev_xml

    for element in hostdev_xml(claim, managed):
        click.echo(element)
    if claim.status == "claimed":
        click.echo(
            f"portclaim: claim {claim.claim_id} is claimed, but not prepared yet. Do not start the instance "
            f"before portclaim show {claim.claim_id} says that it is",
            err=True,
        )


@command()
@alias_option
@extra_specs_option
@hosts_option
@avoid_hosts_option
@numa_cells_option
@near_option
@apart_from_option
@output_option
@click.pass_obj
def explain(
    session: Session,
    alias: str,
    extra_specs: tuple[str, ...],
    hosts: tuple[str, ...],
    avoid_hosts: tuple[str, ...],
    numa_cells: tuple[int, ...],
    near: tuple[uuid.UUID, ...],
    apart_from: tuple[uuid.UUID, ...],
    output: str,
) -> None:
    """Say whether a claim would be served now, and why not. Reserves nothing.

    Example: portclaim explain --alias nic-pf:1

    The table shows how many hosts and devices each filter leaves. The first one that leaves none is the
    reason by which portclaim top counts refusals.

    Next: portclaim claim with the same options, or with --wait to wait in a queue.
    """
    from portclaim.cli import documents, render
    from portclaim.common.rpc.claim_messages import ExplainRequest

    request = ExplainRequest(
        extra_specs=specs(alias, extra_specs),
        hosts=list(hosts) or None,
        avoid_hosts=list(avoid_hosts),
        numa_cells=list(numa_cells),
        near=list(near),
        apart_from=list(apart_from),
    )
    explained = session.scheduler.explain(request)
    documents.show(output, explained, render.explanation)


def specs(alias: str, extra_specs: tuple[str, ...]) -> dict[str, str]:
    """The extra specs that --alias and --extra-spec make. Raises ``click.BadParameter``."""
    found = {"pci_passthrough:alias": alias}
    for spec in extra_specs:
        key, equals, value = spec.partition("=")
        if not equals:
            raise click.BadParameter(f"{spec!r} is not KEY=VALUE", param_hint="--extra-spec")
        found[key] = value
    return found
