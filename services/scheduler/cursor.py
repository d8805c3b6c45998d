"""Cursors: how far a list or a search has come, as text for the next call.

The cursor of a list holds the place of the last row in the list's order. So rows that are inserted or
deleted between two calls move no other row to another page. The cursor of a search for candidates holds the
hosts that the search has seen, because the order of candidates changes with every claim.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from portclaim.common.errors import InvalidRequest
from portclaim.common.rpc.fields import Message

_LONGEST = 2_000_000  # bytes: more than the hosts of any fleet need

P = TypeVar("P", bound=Message)


def write(asked: Mapping[str, Any], seen: Collection[int]) -> str:
    """The cursor of a search for what is ``asked``, after it has seen these hosts."""
    return _packed(asked, [after - before for before, after in pairwise([0, *sorted(seen)])])


def read(asked: Mapping[str, Any], cursor: str) -> set[int]:
    """The hosts that the search has seen. Raises :class:`InvalidRequest` for a cursor of another search."""
    try:
        digest, steps = _unpacked(cursor)
        seen = set(accumulate(map(_step, steps)))
    except (ValueError, TypeError, zlib.error):
        raise _invalid("candidates") from None
    _check(digest, asked)
    return seen


def write_place(asked: Mapping[str, Any], place: Message) -> str:
    """The cursor of a list of what is ``asked``, after the row at this place."""
    return _packed(asked, place.model_dump(mode="json"))


def read_place(asked: Mapping[str, Any], cursor: str, kind: type[P], name: str) -> P:
    """The place of the last row that was answered.

    ``name``: the list's, for the error. Raises :class:`InvalidRequest` for a cursor of another list.
    """
    try:
        digest, fields = _unpacked(cursor)
        place = kind.model_validate(fields)
    except (ValueError, TypeError, zlib.error):
        raise _invalid(name) from None
    _check(digest, asked)
    return place


def _packed(asked: Mapping[str, Any], content: object) -> str:
    packed = zlib.compress(json.dumps([_digest(asked), content]).encode())
    return base64.urlsafe_b64encode(packed).decode()


def _unpacked(cursor: str) -> tuple[Any, Any]:
    """The digest and the content. Raises ValueError, TypeError or zlib.error."""
    packed = base64.b64decode(cursor, altchars=b"-_", validate=True)
    digest, content = json.loads(zlib.decompressobj().decompress(packed, _LONGEST))
    return digest, content


def _check(digest: object, asked: Mapping[str, Any]) -> None:
    if digest != _digest(asked):
        raise InvalidRequest("after is from an answer to another request: call again without it")


def _invalid(name: str) -> InvalidRequest:
    return InvalidRequest(f"after is not from an answer of {name}: call again without it")


def _digest(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _step(step: object) -> int:
    if type(step) is not int or not 0 < step <= 2**40:  # so that their sum is an id
        raise ValueError(step)
    return step
