"""Who has sent the message that this thread handles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Caller(NamedTuple):
    """The sender. Null: the message is not signed, and need not be."""

    host: str | None = None
    number: int | None = None


_NOBODY = Caller()
_CALLER: ContextVar[Caller] = ContextVar("portclaim_caller", default=_NOBODY)


def caller() -> Caller:
    """The sender of the message that this thread handles."""
    return _CALLER.get()


@contextmanager
def sent_by(sender: Caller) -> Iterator[None]:
    """In this block, :func:`caller` answers this sender."""
    token = _CALLER.set(sender)
    try:
        yield
    finally:
        _CALLER.reset(token)
