"""``portclaim trust`` and ``portclaim host enroll|revoke|keys``: the keys of services and hosts."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portclaim.cli import documents
from portclaim.cli.completing import HOST
from portclaim.cli.options import age, output_option
from portclaim.cli.session import Session, command
from portclaim.cli.tokens import in_database

if TYPE_CHECKING:
    from portclaim.common.db import host_keys

_who = click.option(
    "--who", default=getpass.getuser, show_default="your user name here", help="Who decides this."
)
_COLUMNS = ("host", "key", "age", "state")


@click.group()
def trust() -> None:
    """Make the key with which the services sign steps."""


@command("new-key", group=trust)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def new_key(file: Path) -> None:
    """Make a private key for the services in FILE, which must not exist.

    Example: portclaim trust new-key /etc/portclaim/services.pem

    Schedulers and conductors sign the steps for agents with it. All of them need the same file, readable by
    their user only. Agents learn the public half when their host is enrolled.

    Next: set [trust] services_key_file, restart conductors and schedulers, then portclaim host enroll HOST.
    """
    from portclaim.common.errors import InvalidRequest
    from portclaim.common.trust import keys

    if file.exists():
        raise InvalidRequest(
            f"{file} exists: to add a key to it, make one in another file and append that one"
        )
    key = keys.PrivateKey.make()
    keys.write(file, key)
    click.echo(f"{file} has the key {key.id}")


@command()
@click.argument("host", shell_complete=HOST)
@click.option(
    "--valid-for", callback=age, default="1h", show_default=True, metavar="AGE", help="Until it expires."
)
@_who
@output_option
@click.pass_obj
def enroll(session: Session, host: str, valid_for: timedelta, who: str, output: str) -> None:
    """Make a token with which the agent of HOST registers its key, once. From then on the host must sign.

    Example: portclaim host enroll compute-7

    It needs [database] connection. Only the token's hash is kept. An earlier token of the host is void. The
    keys that the host has stay valid until the token is used.

    Next: write it to a file on HOST that only root can read, set [compute_agent] enrolment_token_file to its
    name, and restart the agent.
    """
    from portclaim.common.db import host_keys

    token = in_database(session, lambda c: host_keys.new_token(c, host, valid_for, who=who))
    documents.show(output, {"host": host, "token": token}, lambda shown: click.echo(shown["token"]))


@command()
@click.argument("host", shell_complete=HOST)
@_who
@click.pass_obj
def revoke(session: Session, host: str, who: str) -> None:
    """Make the keys and the enrolment token of HOST void. Its agent is not heard any more.

    Example: portclaim host revoke compute-7

    Conductors know it after two seconds. It needs [database] connection. Claims of the host stay as they are.

    Next: portclaim broker revoke HOST takes its access to the message bus. portclaim host enroll HOST lets it
    come back with a new key.
    """
    from portclaim.common.db import host_keys

    revoked = in_database(session, lambda c: host_keys.revoke(c, host, who=who))
    click.echo(f"{revoked} key{'' if revoked == 1 else 's'} of {host} revoked")


@command("keys")
@click.argument("host", required=False, shell_complete=HOST)
@output_option
@click.pass_obj
def keys_(session: Session, host: str | None, output: str) -> None:
    """List the keys of HOST, or of all hosts, also those that have ended.

    Example: portclaim host keys

    Next: portclaim host revoke HOST makes them void.
    """
    from portclaim.cli import render
    from portclaim.cli.table import Table
    from portclaim.common.db import host_keys

    found = in_database(session, lambda c: host_keys.keys(c, host))
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "host": each.host,
            "key": each.key_id,
            "age": (now - each.created_at).total_seconds(),
            "state": _state(each, now),
        }
        for each in found
    ]
    if output != "table":
        documents.document(output, rows)
        return
    table = Table(*_COLUMNS)
    for row in rows:
        days = timedelta(seconds=int(row["age"]))
        table.add_row(str(row["host"]), str(row["key"]), str(days), str(row["state"]))
    render.console().print(table)


def _state(key: host_keys.HostKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "replaced" if key.valid_until is not None and key.valid_until < now else "valid"
