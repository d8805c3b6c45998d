"""The cursor of a search for candidates: the hosts that it has seen, as text for the next call.

It names the hosts themselves, not a position in their order. So no host is answered twice, however the order
changes between two calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from itertools import accumulate, pairwise
from typing import Any

from portclaim.common.errors import InvalidRequest

_LONGEST = 2_000_000  # bytes: more than the hosts of any fleet need


def write(asked: Mapping[str, Any], seen: Collection[int]) -> str:
    """The cursor of a search for what is ``asked``, after it has seen these hosts."""
    steps = [after - before for before, after in pairwise([0, *sorted(seen)])]
    packed = zlib.compress(json.dumps([_digest(asked), steps]).encode())
    return base64.urlsafe_b64encode(packed).decode()


def read(asked: Mapping[str, Any], cursor: str) -> set[int]:
    """The hosts that the search has seen. Raises :class:`InvalidRequest` for a cursor of another search."""
    try:
        packed = base64.b64decode(cursor, altchars=b"-_", validate=True)
        digest, steps = json.loads(zlib.decompressobj().decompress(packed, _LONGEST))
        seen = set(accumulate(map(_step, steps)))
    except (ValueError, TypeError, zlib.error):
        raise InvalidRequest("after is not from an answer of candidates: call again without it") from None
    if digest != _digest(asked):
        raise InvalidRequest("after is from an answer to another request: call again without it")
    return seen


def _digest(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _step(step: object) -> int:
    if type(step) is not int or not 0 < step <= 2**40:  # so that their sum is an id
        raise ValueError(step)
    return step
