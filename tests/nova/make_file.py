"""``python -m tests.nova.make_file``: have Nova make the cell, and write ``nova-34.sql`` anew.

Needs the environment of requirements-peers.txt (``make .venv/peers/ready``). After a change of
``make_cell.py``, or of the version of Nova.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from portclaim.cli.embedded import start_postgresql
from tests.nova import cell
from tests.support.dump import pg_dump

_HEAD = "-- Tables of a cell's database, made by Nova for python -m tests.nova.make_file.\n"
_ENUMS = sa.text("""
    SELECT format('CREATE TYPE public.%I AS ENUM (%s);', typname, string_agg(quote_literal(enumlabel), ', '))
      FROM pg_enum JOIN pg_type t ON t.oid = enumtypid GROUP BY typname ORDER BY typname
""")


def main() -> None:
    server, url = start_postgresql()
    try:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE nova"))
        made = sa.make_url(url).set(database="nova").render_as_string(hide_password=False)
        cell.make(made)
        tables = [f"--table={name}" for name in cell.TABLES]
        with sa.create_engine(made, poolclass=sa.NullPool).connect() as connection:
            enums = connection.scalars(_ENUMS).all()  # pg_dump of a table leaves its types out
        text = pg_dump(made, "--inserts", "--rows-per-insert=100", "--no-privileges", *tables)
    finally:
        server.stop()
    plain = re.sub(r"^(--.*|\\.*)?\n", "", text, flags=re.MULTILINE)
    cell.FILE.write_text("\n".join([_HEAD.rstrip(), *enums, plain]))


if __name__ == "__main__":
    main()
