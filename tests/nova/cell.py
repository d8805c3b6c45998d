"""The database of the Nova cell that ``make_cell.py`` describes: loaded from a file, or made by Nova now."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import NAMESPACE_DNS, UUID, uuid5

import sqlalchemy as sa

PEERS = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
"""The Python of the environment of requirements-peers.txt."""

FILE = Path(__file__).with_name("nova-34.sql")
TABLES = ("compute_nodes", "instances", "instance_extra", "pci_devices")
_MAKE = Path(__file__).with_name("make_cell.py")


def instance_id(name: str) -> UUID:
    """The UUID of an instance of the cell."""
    return uuid5(NAMESPACE_DNS, f"{name}.cell.example")


def load(url: str) -> None:
    """Fill an empty database with what Nova has made when the file was made: the tables that matter here."""
    script = re.sub(r"^\\.*$", "", FILE.read_text(), flags=re.MULTILINE)  # commands of psql
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def make(url: str) -> None:
    """Have Nova make the cell in an empty database. Takes some ten seconds."""
    made = subprocess.run(
        [PEERS, "-W", "ignore", _MAKE, url], capture_output=True, text=True, check=False, timeout=240
    )
    assert made.returncode == 0, made.stderr
