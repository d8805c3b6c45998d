"""Roles of PostgreSQL: one for each service, with the least that it needs.

``sql/service_roles.sql`` says what that is.

The roles cannot log in. An operator makes users, and gives each one a role.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common.db import migrate
from portclaim.common.errors import InvalidConfiguration, InvalidRequest, ServiceUnavailable

ROLES = ("conductor", "scheduler", "api", "operator", "metrics")

_UNDEFINED = {"42704", "0LP01"}  # undefined_object, invalid_grant_operation: PostgreSQL, appendix A
_DENIED = "42501"


def make_roles(url: str) -> list[str]:
    """Make the roles that are missing, and give all of them what they need. Answers those that were made.

    Raises :class:`InvalidConfiguration` if the connecting role may not, and :class:`ServiceUnavailable`.
    """
    with _connected(url) as connection:
        names = [f"portclaim_{role}" for role in ROLES]
        query = sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)")
        known = set(connection.scalars(query, {"names": names}))
        missing = [name for name in names if name not in known]
        for name in missing:
            connection.execute(sa.text(f"CREATE ROLE {name} NOLOGIN"))
        migrate.grant_again(connection)
        return missing


def give(url: str, role: str, user: str) -> None:
    """Give a user one of the roles. Raises :class:`InvalidRequest` if there is no such user or role."""
    if role not in ROLES:
        raise InvalidRequest(f"{role} is none of {', '.join(ROLES)}")
    with _connected(url) as connection:
        quoted = connection.scalar(sa.text("SELECT quote_ident(:user)"), {"user": user})
        try:
            connection.execute(sa.text(f"GRANT portclaim_{role} TO {quoted}".replace(":", r"\:")))
        except exc.DBAPIError as error:
            if getattr(error.orig, "pgcode", None) in _UNDEFINED:
                raise InvalidRequest(
                    f"there is no user {user}, or no role portclaim_{role}: make the user with CREATE USER, "
                    "and the roles with `portclaim db grant`"
                ) from None
            raise


@contextmanager
def _connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    except exc.DBAPIError as error:
        reason = str(error.orig).strip()
        if getattr(error.orig, "pgcode", None) == _DENIED:
            raise InvalidConfiguration(
                f"the user of [database] connection may not do this ({reason}): use the owner of the schema, "
                "with CREATEROLE, or a superuser"
            ) from error
        raise ServiceUnavailable(f"the database did not take it: {reason}") from error
