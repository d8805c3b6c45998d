"""How a message is signed, and how a signature travels.

What is signed is this JSON object in its canonical form: ASCII only, keys in order, no spaces.

- ``portclaim``: 1, the version of this form
- ``signer``: ``host:<name>`` or ``services``
- ``key``: the id of the key
- ``to``: whom the message is for: the topic of a service; for one server of it, ``<topic>.<server>``
- ``method``: the method that is called
- ``number``: microseconds since 1970 by the signer's clock. Each message has a higher number than the one
  before it, also if the clock is set back. So it is a time stamp and a nonce.
- ``body``: the arguments of the method

A message has no numbers with fractions, so there is one way to write each body. The signature travels in the
context of the RPC message, which services that do not know it ignore.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from portclaim.common.trust.keys import PrivateKey

CONTEXT = "portclaim_signature"
"""The key of the signature in the context of an RPC message."""

SERVICES = "services"
"""The signer of what schedulers and conductors send."""

_HOST = "host:"
_LONGEST = 300  # characters of a signer: a host's name has up to 255
_MOST = 2**62


class Head(NamedTuple):
    """Who signs a message, with which key, and the number of the message."""

    signer: str
    key_id: str
    number: int


class Signature(NamedTuple):
    """A signature as it came. Nothing of it is verified yet."""

    signer: str
    key_id: str
    number: int
    value: bytes

    @property
    def head(self) -> Head:
        return Head(self.signer, self.key_id, self.number)

    @property
    def host(self) -> str | None:
        """The host that the signer says it is; None: it says that it is no host."""
        return self.signer.removeprefix(_HOST) if self.signer.startswith(_HOST) else None


class Signer(Protocol):
    """Signs messages."""

    def sign(self, to: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The context of the message; empty: it is not signed."""


class Unsigned:
    """Signs nothing."""

    def sign(self, _to: str, _method: str, _body: Mapping[str, Any]) -> dict[str, Any]:
        return {}


class Numbers:
    """The numbers of a signer's messages. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    def exceed(self, number: int) -> None:
        """Begin above this number: it was used before, by a process whose clock was ahead of this one's."""
        with self._lock:
            self._last = max(self._last, number)


class KeySigner:
    """Signs with a key, in the name of ``signer``."""

    def __init__(self, signer: str, key: PrivateKey, numbers: Numbers | None = None) -> None:
        self.signer = signer
        self.key = key
        self._numbers = numbers or Numbers()

    def sign(self, to: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        number = self._numbers.next()
        head = Head(self.signer, self.key.id, number)
        value = self.key.sign(signed_bytes(head, to, method, body))
        signature = {
            "signer": self.signer,
            "key": self.key.id,
            "number": number,
            "value": base64.b64encode(value).decode(),
        }
        return {CONTEXT: signature}


def of_host(host: str) -> str:
    """The signer of what the agent of this host sends."""
    return _HOST + host


def canonical(value: Any) -> bytes:
    """The canonical form of a JSON value. Raises ValueError for a number that JSON does not have."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def signed_bytes(head: Head, to: str, method: str, body: Mapping[str, Any]) -> bytes:
    """What is signed."""
    return canonical(
        {
            "portclaim": 1,
            "signer": head.signer,
            "key": head.key_id,
            "to": to,
            "method": method,
            "number": head.number,
            "body": body,
        }
    )


def read(context: Mapping[str, Any]) -> Signature | None:
    """The signature in the context of a message; None: it has none.

    Raises ValueError if it is malformed.
    """
    found = context.get(CONTEXT)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ValueError("the signature is not an object")  # noqa: TRY004 - all of them are malformed
    signer, key_id, number, value = (found.get(name) for name in ("signer", "key", "number", "value"))
    if not (isinstance(signer, str) and isinstance(key_id, str) and isinstance(value, str)):
        raise ValueError("the signature lacks a part")  # noqa: TRY004 - all of them are malformed
    if type(number) is not int or not 0 < number < _MOST:
        raise ValueError("the signature has no number")
    if len(signer) > _LONGEST or len(key_id) > _LONGEST or len(value) > _LONGEST:
        raise ValueError("the signature is too long")
    try:
        return Signature(signer, key_id, number, base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("the signature is not base64") from None
