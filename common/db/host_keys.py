"""The hosts' public keys in the database: enrolment, rotation and revocation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from portclaim.common.db import audit
from portclaim.common.errors import InvalidRequest, NotAuthorized
from portclaim.common.trust import enrolment
from portclaim.common.trust.keys import key_id

_PUT_TOKEN = sa.text("""
    INSERT INTO host_enrolments AS e (host, sha256, expires_at) VALUES (:host, :sha256, now() + :valid_for)
        ON CONFLICT (host) DO UPDATE
       SET sha256 = EXCLUDED.sha256, expires_at = EXCLUDED.expires_at, created_at = now(), key_id = NULL
""")
_TOKEN = sa.text("""
    SELECT sha256, key_id, expires_at > now() AS is_valid FROM host_enrolments WHERE host = :host FOR UPDATE
""")
_USE_TOKEN = sa.text("UPDATE host_enrolments SET key_id = :key_id WHERE host = :host")
_INSERT = sa.text("""
    INSERT INTO host_keys (host, key_id, public_key) VALUES (:host, :key_id, :public_key)
        ON CONFLICT (host, key_id) DO NOTHING
    RETURNING key_id
""")
# The old key is valid a little longer, for messages that are under way.
_END_OTHERS = sa.text("""
    UPDATE host_keys SET valid_until = now() + :after, changed_at = now()
     WHERE host = :host AND key_id <> :key_id AND revoked_at IS NULL
       AND (valid_until IS NULL OR valid_until > now() + :after)
""")
_REVOKE = sa.text("""
    UPDATE host_keys SET revoked_at = now(), changed_at = now() WHERE host = :host AND revoked_at IS NULL
""")
_FORGET_TOKEN = sa.text("DELETE FROM host_enrolments WHERE host = :host")
_STATE = sa.text("""
    SELECT revoked_at IS NULL AND (valid_until IS NULL OR valid_until > now()) AS is_valid
      FROM host_keys WHERE host = :host AND key_id = :key_id
""")
_LIST = sa.text("""
    SELECT host, key_id, created_at, valid_until, revoked_at FROM host_keys
     WHERE (cast(:host AS text) IS NULL OR host = :host) ORDER BY host, created_at, key_id
""")
# A transaction that began long ago may commit a change with an older time: once a minute all are read.
_CHANGED = sa.text("""
    SELECT host, key_id, public_key, valid_until, revoked_at FROM host_keys
     WHERE changed_at > coalesce(now() - cast(:within AS interval), '-infinity')
""")

ROTATION_OVERLAP = timedelta(minutes=2)
"""For so long an agent's old key is valid beside the new one."""


class HostKey(NamedTuple):
    """A key of a host, as operators see it. Null: it does not end, and was not revoked."""

    host: str
    key_id: str
    created_at: datetime
    valid_until: datetime | None
    revoked_at: datetime | None


class StoredKey(NamedTuple):
    """A key of a host, as conductors need it."""

    host: str
    key_id: str
    public_key: bytes
    valid_until: datetime | None
    revoked_at: datetime | None


def new_token(connection: sa.Connection, host: str, valid_for: timedelta, *, who: str | None = None) -> str:
    """Make a token with which the agent of ``host`` can register one key. An earlier token is void."""
    token = enrolment.new_token()
    facts = {"host": host, "sha256": enrolment.digest(token), "valid_for": valid_for}
    connection.execute(_PUT_TOKEN, facts)
    audit.record(connection, who, "enrol-host", host)
    return token


def enrol(connection: sa.Connection, host: str, public_key: str, proof: str) -> bytes:
    """Register the key of a host that proves its token. Answers the token's digest.

    The key replaces the keys that the host had, at once: the machine may be another one. The same call again
    changes nothing. Raises :class:`NotAuthorized`.
    """
    row = connection.execute(_TOKEN, {"host": host}).one_or_none()
    given = None if row is None else bytes(row.sha256)
    if given is None or not enrolment.is_equal(proof, enrolment.proof_of_host(given, host, public_key)):
        raise NotAuthorized(
            f"host {host} has another enrolment token, or none: make one with `portclaim host enroll {host}`",
            reason="unknown-key",
        )
    public = bytes.fromhex(public_key)
    facts = {"host": host, "key_id": key_id(public), "public_key": public, "after": timedelta(0)}
    if row is not None and row.key_id is not None:
        if row.key_id != facts["key_id"]:
            raise NotAuthorized(
                f"the enrolment token of host {host} was used before: if its agent did not do that, somebody "
                f"else has read the token. Make a new one with `portclaim host enroll {host}`",
                reason="replayed",
            )
        return given
    if row is not None and not row.is_valid:
        raise NotAuthorized(
            f"the enrolment token of host {host} has expired: make one with `portclaim host enroll {host}`",
            reason="stale",
        )
    connection.execute(_USE_TOKEN, facts)
    _insert(connection, facts)
    connection.execute(_END_OTHERS, facts)
    return given


def rotate(connection: sa.Connection, host: str, public_key: bytes) -> None:
    """Register the next key of a host. The same call again changes nothing. Raises :class:`NotAuthorized`."""
    facts = {"host": host, "key_id": key_id(public_key), "public_key": public_key, "after": ROTATION_OVERLAP}
    _insert(connection, facts)
    connection.execute(_END_OTHERS, facts)


def revoke(connection: sa.Connection, host: str, *, who: str | None = None) -> int:
    """Make all keys and tokens of a host void. Answers how many keys those were.

    Raises :class:`InvalidRequest` if it has none.
    """
    revoked = connection.execute(_REVOKE, {"host": host}).rowcount
    forgotten = connection.execute(_FORGET_TOKEN, {"host": host}).rowcount
    if revoked + forgotten == 0:
        raise InvalidRequest(f"host {host} has no key and no enrolment token: is its name right?")
    audit.record(connection, who, "revoke-host", host)
    return revoked


def keys(connection: sa.Connection, host: str | None = None) -> list[HostKey]:
    """The keys of a host, or of all, also those that have ended."""
    return [HostKey(*row) for row in connection.execute(_LIST, {"host": host})]


def changed_keys(connection: sa.Connection, within: timedelta | None) -> Sequence[StoredKey]:
    """The keys that were changed within this time; None: all."""
    return [
        StoredKey(row.host, row.key_id, bytes(row.public_key), row.valid_until, row.revoked_at)
        for row in connection.execute(_CHANGED, {"within": within})
    ]


def _insert(connection: sa.Connection, facts: dict[str, object]) -> None:
    if connection.execute(_INSERT, facts).one_or_none() is None and not connection.scalar(_STATE, facts):
        raise NotAuthorized(
            f"the key {facts['key_id']} of host {facts['host']} has ended: remove it on the host, and enrol "
            f"the host again with `portclaim host enroll {facts['host']}`",
            reason="unknown-key",
        )
