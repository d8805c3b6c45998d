"""The SQLSTATEs that the functions in the database raise, and the errors that they stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    HostInUse,
    HostIsAlive,
    HostOwnedByAnotherAgent,
    InvalidRequest,
    MoveConflict,
    NotAuthorized,
    PortclaimError,
    QuotaExceeded,
    StaleStep,
    UnknownHost,
)

_ERRORS: dict[str, type[PortclaimError]] = {
    "PC400": InvalidRequest,
    "PC403": HostOwnedByAnotherAgent,
    "PC404": ClaimNotFound,
    "PC405": UnknownHost,
    "PC409": ClaimConflict,
    "PC410": StaleStep,
    "PC411": NotAuthorized,
    "PC412": HostIsAlive,
    "PC423": HostInUse,
    "PC424": MoveConflict,
    "PC429": ClaimRefused,
    "PC430": QuotaExceeded,
}
_WITH_FACTS = {QuotaExceeded, NotAuthorized}


@contextmanager
def as_errors(**facts: object) -> Iterator[None]:
    """Raise the error that a function's SQLSTATE stands for, with PostgreSQL's message and these facts.

    Some have facts of their own in the detail, which is JSON.
    """
    try:
        yield
    except exc.DBAPIError as error:
        kind = _ERRORS.get(getattr(error.orig, "pgcode", None) or "")
        if kind is None:
            raise
        diagnosis = getattr(error.orig, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error.orig)
        more = json.loads(diagnosis.message_detail) if diagnosis and kind in _WITH_FACTS else {}
        raise kind(message, **{name: str(value) for name, value in facts.items()}, **more) from None
