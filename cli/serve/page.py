"""Open the page in a browser, with a token that no other user of the machine can see."""

from __future__ import annotations

import html
import webbrowser
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import sqlalchemy as sa

from portclaim.common.db import tokens

_VALID = timedelta(hours=12)
_FILE = "open.html"


def open_page(address: str, database_url: str, directory: Path) -> None:
    """Open the page, or say that there is no browser.

    The arguments of a browser are for every user to see. So it gets the name of a file that only this user
    can read, and the file has the token.
    """
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        name = f"page-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        token = tokens.create(connection, name, "operator", None, _VALID)
    file = directory / _FILE
    file.touch(mode=0o600)
    file.chmod(0o600)
    target = html.escape(f"{address}/#token={token}")
    file.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={target}">\n')
    if not webbrowser.open(file.as_uri()):
        click.echo(f"There is no browser to open: {file} is the way to the page, with a token.")
