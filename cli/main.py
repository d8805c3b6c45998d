"""``portclaim``: the commands, and which module each comes from."""

from __future__ import annotations

import click

from portclaim.cli.claims import add_claim_commands
from portclaim.cli.config_check import config
from portclaim.cli.database import db
from portclaim.cli.demo import demo
from portclaim.cli.devices import add_device_commands
from portclaim.cli.events import add_event_commands
from portclaim.cli.host import host
from portclaim.cli.maintenance import add_maintenance_commands
from portclaim.cli.moves import move
from portclaim.cli.outbox import outbox
from portclaim.cli.session import Session
from portclaim.cli.waiting import add_waiting_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The services' configuration. Default: portclaim.conf in ~/.portclaim, ~, /etc/portclaim or /etc.",
)
@click.version_option(package_name="portclaim")
@click.pass_context
def main(context: click.Context, config_files: tuple[str, ...]) -> None:
    """Hand out SR-IOV ports, whole (PF) or in slices (VF).

    \b
    portclaim tree                             what the fleet has, and who holds it
    portclaim claim --alias nic-vf:2           two VFs, on one host, for a new instance
    portclaim explain --alias nic-pf:1         would a whole port be had, and if not, why?
    portclaim show CLAIM_ID                    what became of a claim
    portclaim release CLAIM_ID                 give everything back
    portclaim claim --wait 300 --alias ...     wait in line for what cannot be had now
    portclaim waiting                          who waits for what
    portclaim move begin CLAIM_ID              the same once more on another host, to go there
    portclaim host list                        which hosts take claims, and what they have left
    portclaim host drain HOST --reason WHY     no new claims for a host, or for one of its ports
    portclaim outbox list                      what agents have been told to do and have not done
    portclaim events                           what becomes of claims and devices, as it happens

    Exit status: 0 done; 1 refused or failed, with the reason on standard error; 2 bad usage.
    """
    context.obj = Session(config_files)


add_claim_commands(main)
add_device_commands(main)
add_waiting_command(main)
add_event_commands(main)
main.add_command(config)
main.add_command(db)
main.add_command(demo)
add_maintenance_commands(host)
main.add_command(host)
main.add_command(move)
main.add_command(outbox)
