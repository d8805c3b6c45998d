"""A database's schema as text that two databases can be compared by."""

import re
import subprocess
from pathlib import Path

import sqlalchemy as sa

from portclaim.cli import embedded


def schema_of(url: str) -> list[str]:
    """Every statement of `pg_dump --schema-only`, sorted; the columns of a table sorted too.

    The order of columns differs between a table that was created and one that was altered, and means nothing.
    """
    text = re.sub(r"^(--.*|\\(un)?restrict .*)?\n", "", pg_dump(url, "--schema-only"), flags=re.MULTILINE)
    return sorted(_plain(statement) for statement in _statements(text))


def pg_dump(url: str, *options: str) -> str:
    """What `pg_dump` prints of a database of the embedded PostgreSQL."""
    address = sa.make_url(url)
    socket = Path(str(address.query["host"]))
    program = socket / "programs" / embedded.PROGRAMS / "bin/pg_dump"
    if not program.exists():  # the server is not root's, and runs from where the wheel is installed
        program = embedded.install_programs(socket, None) / "pg_dump"
    command = [program, f"--host={socket}", f"--username={address.username}", "--no-owner", *options]
    return subprocess.run(
        [*command, str(address.database)], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def _statements(text: str) -> list[str]:
    """The statements; one with a function's body has semicolons in it, between two $$."""
    found, current, in_body = [], "", False
    for line in text.splitlines(keepends=True):
        current += line
        in_body ^= line.count("$$") % 2 == 1
        if not in_body and line.rstrip().endswith(";"):
            found.append(current)
            current = ""
    return found


def _plain(statement: str) -> str:
    if not statement.startswith("CREATE TABLE"):
        return statement
    first, *columns, last = statement.splitlines()
    return "\n".join([first, *sorted(column.strip(" ,") for column in columns), last])
