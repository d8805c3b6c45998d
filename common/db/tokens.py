"""Bearer tokens of the HTTP API: who has one, what it allows, and how it is stored.

A token has 256 random bits, so its SHA-256 is enough to keep it secret at rest: no list of words leads to it.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import sqlalchemy as sa

from portclaim.common.db import audit
from portclaim.common.db.audit import NOT_SAID, Order
from portclaim.common.errors import InvalidRequest

Role = Literal["reader", "claimer", "operator"]

PREFIX = "portclaim_"
"""What every token begins with, so that a search for leaked secrets finds it."""

_CREATE = sa.text("""
    INSERT INTO api_tokens (name, role, project, sha256, expires_at)
    VALUES (:name, :role, :project, :sha256, now() + :valid_for)
    ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
    RETURNING name
""")
_LIST = sa.text("""
    SELECT name, role, project, created_at, expires_at, revoked_at
      FROM api_tokens
     WHERE :all OR revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
     ORDER BY name, created_at
""")
_REVOKE = sa.text("UPDATE api_tokens SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL")
_HOLDER = sa.text("""
    SELECT name, role, project FROM api_tokens
     WHERE sha256 = :sha256 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")


class Token(NamedTuple):
    """What is kept of a token. ``revoked_at`` and ``expires_at``: null if it is not, or does not."""

    name: str
    role: Role
    project: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Holder(NamedTuple):
    """Who has sent a token. ``project`` is null if the token sees the claims of all projects."""

    name: str
    role: Role
    project: str | None


def create(
    connection: sa.Connection, name: str, role: Role, project: str | None, valid_for: timedelta | None = None
) -> str:
    """Make a token and answer it. Nobody can read it again.

    Raises :class:`InvalidRequest` if a token that is not revoked has this name, or if role and project do
    not fit: a claimer needs a project, an operator has none.
    """
    if (role == "claimer") != (project is not None) and role != "reader":
        raise InvalidRequest(
            "a claimer's token needs a project" if role == "claimer" else "an operator's token has no project"
        )
    token = PREFIX + secrets.token_urlsafe(32)
    facts = {"name": name, "role": role, "project": project, "sha256": _digest(token), "valid_for": valid_for}
    if connection.execute(_CREATE, facts).one_or_none() is None:
        raise InvalidRequest(f"there is already a token of the name {name!r}: choose another, or revoke it")
    return token


def tokens(connection: sa.Connection, *, every: bool = False) -> list[Token]:
    """The valid tokens, by name; with ``every`` also those that were revoked or have expired."""
    return [Token(*row) for row in connection.execute(_LIST, {"all": every})]


def revoke(connection: sa.Connection, name: str, order: Order = NOT_SAID) -> None:
    """Make a token invalid. Raises :class:`InvalidRequest` if no valid token has this name."""
    if connection.execute(_REVOKE, {"name": name}).rowcount == 0:
        raise InvalidRequest(f"there is no token of the name {name!r}")
    audit.record(connection, order.who, "revoke-token", name, order.reason)


def holder(connection: sa.Connection, token: str) -> Holder | None:
    """Who has this token. None: it is unknown, revoked or expired."""
    row = connection.execute(_HOLDER, {"sha256": _digest(token)}).one_or_none()
    return None if row is None else Holder(*row)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
