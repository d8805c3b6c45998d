"""``portclaim demo`` and ``portclaim serve`` enrol their own hosts."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from portclaim.common.db import host_keys
from portclaim.common.trust import keys

_VALID_FOR = timedelta(hours=1)

OPTIONS = """
[trust]
require = all
services_key_file = {services_key}
operators_on_scheduler_topic = false
"""
"""The section of a configuration in which every host signs."""


def services_key(directory: Path) -> Path:
    """The file with the services' key. It is made if there is none."""
    file = directory / "services.pem"
    if not file.exists():
        keys.write(file, keys.PrivateKey.make())
    return file


def token_file(database_url: str, state_path: Path, host: str) -> Path:
    """The file with the host's enrolment token.

    It has a new one unless the agent has a key that the database knows: one of the two may be of a backup.
    """
    place = state_path / host
    place.mkdir(parents=True, exist_ok=True)
    file = place / "enrolment_token"
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        known = {
            key.key_id
            for key in host_keys.keys(connection, host)
            if key.revoked_at is None and key.valid_until is None
        }
        if _key_id(place) not in known:
            token = host_keys.new_token(connection, host, _VALID_FOR)
            keys.write_privately(file, token.encode())
    return file


def _key_id(place: Path) -> str | None:
    try:
        return str(json.loads((place / "trust.json").read_bytes())["key_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
