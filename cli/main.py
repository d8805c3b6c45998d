"""``portclaim``: the commands, and which module each comes from."""

from __future__ import annotations

import click

from portclaim.cli.lazy import Lazy, LazyGroup
from portclaim.cli.session import Session

COMMANDS = {
    "alias": Lazy("portclaim.cli.aliases", "alias", "See which devices the aliases of [pci] alias get."),
    "broker": Lazy(
        "portclaim.cli.broker",
        "broker",
        "Give each host and each service a user of RabbitMQ with no more rights than it needs.",
    ),
    "candidates": Lazy(
        "portclaim.cli.candidates",
        "candidates",
        "List the hosts that could serve a claim now, the best first.",
    ),
    "attach": Lazy(
        "portclaim.cli.claims", "attach", "Attach the devices of a claim that was made with --attach on-call."
    ),
    "claim": Lazy(
        "portclaim.cli.claims", "claim", "Reserve devices for an instance: all of them on one host, or none."
    ),
    "claim list": Lazy("portclaim.cli.claim_list", "claim_list", "List claims, the oldest first."),
    "claim refusals": Lazy(
        "portclaim.cli.refusals",
        "claim_refusals",
        "List the claims that were refused last, the newest first.",
    ),
    "completion": Lazy(
        "portclaim.cli.completion",
        "completion",
        "Print what a shell needs to complete commands, options and names.",
    ),
    "config": Lazy(
        "portclaim.cli.config_check", "config", "Check a configuration before a service reads it."
    ),
    "db": Lazy("portclaim.cli.database", "db", "Set up the database, upgrade it and prune its history."),
    "demo": Lazy("portclaim.cli.demo", "demo", "See Portclaim work, in one process and in under a minute."),
    "describe": Lazy(
        "portclaim.cli.describe",
        "describe",
        "Show everything about one claim, host or port, its history, and what to do next.",
    ),
    "devices": Lazy(
        "portclaim.cli.devices", "devices", "List devices with their effective status and its reason."
    ),
    "doctor": Lazy(
        "portclaim.cli.doctor",
        "doctor",
        "Check configuration, versions, bus, database, agents, steps and data, and say what to do.",
    ),
    "events": Lazy(
        "portclaim.cli.events",
        "events",
        "Follow changes of claims and devices as they happen, until Ctrl-C.",
    ),
    "explain": Lazy(
        "portclaim.cli.claims", "explain", "Say whether a claim would be served now, and why not."
    ),
    "host": Lazy(
        "portclaim.cli.host",
        "host",
        "List, drain, remove and enrol hosts, renew used devices, recover claims; scan this machine.",
    ),
    "import": Lazy(
        "portclaim.cli.import_nova", "import_", "Take over what Nova has given out, without stopping a guest."
    ),
    "move": Lazy("portclaim.cli.moves", "move", "Move the devices of an instance to another host."),
    "outbox": Lazy("portclaim.cli.outbox", "outbox", "List and retry steps that agents have not answered."),
    "ping": Lazy(
        "portclaim.cli.devices",
        "ping",
        "Ask a service over the bus whether it answers; with --url, ask the API whether a scheduler does.",
    ),
    "release": Lazy("portclaim.cli.claims", "release", "Release a claim: its agent detaches the devices."),
    "serve": Lazy(
        "portclaim.cli.serve",
        "serve",
        "Run all of Portclaim on this machine, until Ctrl-C: database, services and HTTP API.",
    ),
    "show": Lazy("portclaim.cli.claims", "show", "Show a claim and its devices."),
    "audit": Lazy("portclaim.cli.audit", "audit", "Show who did what to what, when and why."),
    "quota": Lazy(
        "portclaim.cli.quotas",
        "quota",
        "Set, list and unset how many devices the claims of a project may have.",
    ),
    "token": Lazy("portclaim.cli.tokens", "token", "Make, list and revoke tokens of the HTTP API."),
    "top": Lazy(
        "portclaim.cli.top",
        "top",
        "Show how the fleet is, live: what is free and held, what stands still, why claims are refused.",
    ),
    "trust": Lazy("portclaim.cli.trust", "trust", "Make the key with which the services sign steps."),
    "tree": Lazy("portclaim.cli.devices", "tree", "Show the ports of each host as a tree of PFs and VFs."),
    "wait": Lazy("portclaim.cli.wait", "wait", "Wait until a claim is prepared or allocated, or has ended."),
    "waiting": Lazy(
        "portclaim.cli.waiting",
        "waiting",
        "List the claims that wait in queues, and their reserved ports.",
    ),
}


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        from portclaim.common.db.schema_version import HEAD

        click.echo(f"portclaim {version('portclaim')}, schema {HEAD}")
        context.exit()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The services' configuration. Default: portclaim.conf in ~/.portclaim, ~, /etc/portclaim or /etc.",
)
@click.option(
    "--url",
    envvar="PORTCLAIM_URL",
    show_envvar=True,
    help="The HTTP API, to speak HTTP and not RPC. The token is in PORTCLAIM_TOKEN, or in the file that "
    "PORTCLAIM_TOKEN_FILE names.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version, and the database schema that it needs.",
)
@click.pass_context
def main(context: click.Context, config_files: tuple[str, ...], url: str | None) -> None:
    """Hand out SR-IOV ports to virtual machines: whole (PF) or in slices (VF).

    \b
    portclaim tree                             what the fleet has, and who holds it
    portclaim claim --alias nic-vf:2           claim two VFs on one host, for a new instance
    portclaim explain --alias nic-pf:1         would a claim of a whole port be served, and why not?
    portclaim alias list                       how many devices each alias gets, or would but for their type
    portclaim candidates --alias nic-vf:2      which hosts could serve it now, the best first
    portclaim claim list --host HOST           the claims that hold devices of a host
    portclaim claim refusals                   the claims that were refused last, and why
    portclaim show CLAIM_ID                    the status and the devices of a claim
    portclaim describe claim CLAIM_ID          what happened to a claim, and what to do next
    portclaim describe host HOST               the same of a host; describe port HOST ADDRESS of a port
    portclaim wait CLAIM_ID --for allocated    wait until the instance has the devices
    portclaim release CLAIM_ID                 give its devices back
    portclaim claim --wait 300 --alias ...     wait in a queue if no host can serve the claim now
    portclaim waiting                          the claims in the queues
    portclaim move begin CLAIM_ID              claim the same on another host, to move the instance
    portclaim host list                        which hosts take claims, and what they have free
    portclaim host drain HOST --reason WHY     stop new claims on a host, or on one of its ports
    portclaim outbox list                      the steps that agents have not answered
    portclaim top                              the fleet in numbers, live
    portclaim doctor                           what is wrong, and what to do about it
    portclaim events                           changes of claims and devices, as they happen

    Exit status: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage.
    """
    context.obj = Session(config_files, url)


if __name__ == "__main__":
    main(prog_name="portclaim")
