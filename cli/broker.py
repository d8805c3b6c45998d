"""``portclaim broker grant|revoke|readmit|list``: a user of RabbitMQ for each host and each service."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.common import secret_files
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from portclaim.cli.rabbitmq import Management
    from portclaim.common.trust.broker_rights import Role

# A test compares these with the type, whose module imports oslo.messaging.
ROLES = ("host", "conductor", "scheduler", "api", "claimer", "operator")
URL = "PORTCLAIM_BROKER_URL"

_role = click.option(
    "--role",
    type=click.Choice(ROLES),
    help="What NAME is. Default: NAME itself if it is one of these words, else host.",
)
_ca_file = click.option(
    "--ca-file", type=click.Path(exists=True, dir_okay=False), help="The CA of an https URL."
)


@click.group()
def broker() -> None:
    """Give each host and each service a user of RabbitMQ with no more rights than it needs.

    It needs RabbitMQ's management API: PORTCLAIM_BROKER_URL is http(s)://user:password@host:port of an
    administrator. The virtual host is that of [DEFAULT] transport_url. `grant --print` only shows what a
    broker that others run needs.
    """


@command(group=broker)
@click.argument("name")
@_role
@click.option("--print", "is_printed", is_flag=True, help="Print commands of rabbitmqctl, and do nothing.")
@_ca_file
@output_option
@click.pass_obj
def grant(
    session: Session, name: str, role: Role | None, is_printed: bool, ca_file: str | None, output: str
) -> None:
    """Make a user for NAME, a host or a service, with a new password, and print its transport_url.

    Example: portclaim broker grant compute-7

    A host's user reaches the queue of its own agent, and the conductors. A claimer's user cannot call what
    only operators may. To grant again gives a new password, which ends the old one.

    Next: write it to [DEFAULT] transport_url on that machine, and restart the service there.
    """
    from portclaim.cli import rabbitmq
    from portclaim.common.trust.broker_rights import rights_of, user_of

    role = role or _role_of(name)
    user, password = user_of(role, name), secrets.token_urlsafe(24)
    rights = rights_of(role, name, user)
    virtual_host = _virtual_host(session)
    if is_printed:
        click.echo(f"rabbitmqctl add_user '{user}'")
        words = " ".join(f"'{each}'" for each in (user, rights.configure, rights.write, rights.read))
        click.echo(f"rabbitmqctl set_permissions -p '{virtual_host}' {words}")
        for exchange, topic in rights.topics.items():
            words = " ".join(f"'{each}'" for each in (user, exchange, topic.write, topic.read))
            click.echo(f"rabbitmqctl set_topic_permissions -p '{virtual_host}' {words}")
        if rights.own_exchange is not None:
            definitions = json.dumps(rabbitmq.definitions(virtual_host, rights.own_exchange))
            click.echo(f"echo '{definitions}' | rabbitmqctl import_definitions -")
        return
    _management(session, ca_file).grant(user, password, rights)
    url = _transport_url(session, user, password)
    documents.show(
        output, {"user": user, "transport_url": url}, lambda shown: click.echo(shown["transport_url"])
    )


@command(group=broker)
@click.argument("name")
@_role
@_ca_file
@click.pass_obj
def revoke(session: Session, name: str, role: Role | None, ca_file: str | None) -> None:
    """Delete the user of NAME and close its connections.

    Example: portclaim broker revoke compute-7

    Next: portclaim host revoke HOST makes the host's key void too.
    """
    from portclaim.common.trust.broker_rights import rights_of, user_of

    role = role or _role_of(name)
    user = user_of(role, name)
    _management(session, ca_file).revoke(user, rights_of(role, name, user).own_exchange)
    click.echo(f"the user {user} is deleted")


@command(group=broker)
@click.argument("host")
@_ca_file
@click.pass_obj
def readmit(session: Session, host: str, ca_file: str | None) -> None:
    """Let the conductors hear a host again that they have cut off because it sent too much.

    Example: portclaim broker readmit compute-7

    Next: portclaim broker list shows which hosts are cut off.
    """
    from portclaim.common.rpc.host_exchange import exchange_of_host

    _management(session, ca_file).readmit(exchange_of_host(host))
    click.echo(f"the conductors hear host {host}")


@command("list", group=broker)
@_ca_file
@output_option
@click.pass_obj
def list_(session: Session, ca_file: str | None, output: str) -> None:
    """List the users of the virtual host, what they may make, write and read, and which hosts are cut off.

    Example: portclaim broker list

    Next: portclaim broker revoke NAME deletes one.
    """
    from portclaim.cli import render
    from portclaim.cli.table import Table

    management = _management(session, ca_file)
    bound = management.bound_exchanges()
    rows = [
        {key: str(each[key]) for key in ("user", "configure", "write", "read")}
        | {"cut_off": _is_cut_off(str(each["user"]), str(each["write"]), bound)}
        for each in management.permissions()
    ]
    if output != "table":
        documents.document(output, rows)
        return
    table = Table("user", "configure", "write", "read", "cut off")
    for row in rows:
        *words, is_cut_off = row.values()
        table.add_row(*(str(word) for word in words), "yes" if is_cut_off else "")
    render.console().print(table)


def _is_cut_off(user: str, write: str, bound: Collection[str]) -> bool:
    """Whether this is the user of a host whose exchange leads nowhere. ``write``: what it may write to."""
    from portclaim.common.rpc.host_exchange import HOST_USER, exchange_of_host

    exchange = exchange_of_host(user.removeprefix(HOST_USER))
    is_host = user.startswith(HOST_USER) and re.search(write, exchange) is not None
    return is_host and exchange not in bound


def _role_of(name: str) -> Role:
    from portclaim.common.trust import broker_rights

    found: Role
    for found in get_args(broker_rights.Role):
        if found == name:
            return found
    return "host"


def _management(session: Session, ca_file: str | None) -> Management:
    from portclaim.cli.rabbitmq import Management

    url = secret_files.from_environment(URL)
    if not url:
        raise InvalidConfiguration(
            f"set {URL} to http(s)://user:password@host:port of RabbitMQ's management API, or {URL}_FILE to "
            "a file that has it"
        )
    return Management(url, _virtual_host(session), ca_file)


def _virtual_host(session: Session) -> str:
    from portclaim.common.rpc.bus_url import bus_url

    return bus_url(session.conf).virtual_host or "/"


def _transport_url(session: Session, user: str, password: str) -> str:
    """That of the configuration, with another user."""
    from portclaim.common.rpc.bus_url import bus_url

    url = bus_url(session.conf)
    login = f"{quote(user, safe='')}:{password}"
    hosts = ",".join(
        f"{login}@{f'[{host.hostname}]' if ':' in host.hostname else host.hostname}"
        + (f":{host.port}" if host.port else "")
        for host in url.hosts
    )
    query = "&".join(f"{key}={value}" for key, value in url.query.items())
    return f"rabbit://{hosts}/{quote(url.virtual_host or '', safe='')}" + (f"?{query}" if query else "")
