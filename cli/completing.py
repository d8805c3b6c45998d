"""What a shell completes: names of hosts, aliases, claims and addresses, asked of the service.

A shell waits for the answer, so it is asked once and briefly. Whatever goes wrong, nothing is completed: a
message would disturb the line that is being typed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from portclaim.cli.session import Session

TIMEOUT = 1.0  # seconds
_MOST = 200

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(find: Callable[[Session, click.Context, str], Iterable[str]]) -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            names = find(_session(context), context, incomplete)
            return [name for name in names if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


def _session(context: click.Context) -> Session:
    """A session like the command's: a shell completes without running the group that makes it."""
    from portclaim.cli.session import Session

    asked = context.find_root().params
    session = Session(
        tuple(asked.get("config_files") or ()), asked.get("url") or os.environ.get("PORTCLAIM_URL")
    )
    if session.http is not None:
        session.http.hurry(TIMEOUT)
    else:
        session.conf.set_override("timeout", TIMEOUT, "rpc")
    return session


def _hosts(session: Session, _context: click.Context, incomplete: str) -> Iterable[str]:
    from portclaim.common.rpc.operator_messages import HostFilter

    wanted = HostFilter(prefix=incomplete or None, limit=_MOST)
    return [host.host for host in session.scheduler.hosts(wanted).hosts]


def _claims(session: Session, _context: click.Context, _incomplete: str) -> Iterable[str]:
    from portclaim.common.rpc.operator_messages import ClaimFilter

    return [str(claim.claim_id) for claim in session.scheduler.claims(ClaimFilter(limit=_MOST)).claims]


def _aliases(session: Session, _context: click.Context, incomplete: str) -> Iterable[str]:
    """Of `a:1,b` the last name is completed, with the colon that a number follows."""
    before = re.sub(r"[^,]*$", "", incomplete)
    return [f"{before}{alias.name}:" for alias in session.scheduler.aliases().aliases]


def _addresses(session: Session, context: click.Context, _incomplete: str) -> Iterable[str]:
    from portclaim.common.rpc.claim_messages import DeviceFilter

    host = context.params.get("host")
    if not host:
        return []
    return [
        device.address for device in session.scheduler.devices(DeviceFilter(host=host, limit=1000)).devices
    ]


HOST = _completer(_hosts)
CLAIM = _completer(_claims)
ALIAS = _completer(_aliases)
ADDRESS = _completer(_addresses)
