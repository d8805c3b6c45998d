"""The versions of the services' RPC interfaces, and which version a call needs.

A version is ``major.minor``. A service answers calls of its own major version and of its own minor version or
an older one. Services and their callers can be upgraded one at a time because of these rules:

- A new method or a new field of a request makes a new minor version. The number in ``SPOKEN`` rises. The
  method (``since`` of ``Client._call``) or the field (:class:`Since`) names the version. A new field has a
  default, with which the request means what it meant before.
- A call carries the oldest version that has everything it uses. A new caller therefore works with an old
  service until it uses something new.
- A request is strict: a service refuses a field that it does not know. A new field that has its default is
  therefore not sent.
- An answer may have fields that the caller does not know. The caller ignores them. A claim may have a status
  that the caller does not know. The caller shows it and does nothing for it.
- Everything else makes a new major version: to remove or rename something, or to change its meaning.

A caller that is given a *pin*, ``[upgrade_levels] scheduler = 1.0``, sends nothing newer than that.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from portclaim.common.rpc.fields import Message

FIRST = "1.0"
SPOKEN = {"scheduler": "1.1", "conductor": "1.1", "compute_agent": "1.1"}
"""The version that each service speaks in this release, by its topic."""


@dataclass(frozen=True)
class Since:
    """Marks a field that came with a later version: ``speed: Annotated[int | None, Since("1.1")] = None``.

    With ``values``, only these values of an older field came with that version.
    """

    version: str
    values: tuple[object, ...] = ()


def spoken(topic: str) -> str:
    """The version that the service of ``topic`` speaks in this release."""
    return SPOKEN.get(topic, FIRST)


def to_send(message: Message) -> tuple[dict[str, Any], str]:
    """The fields of a request as they are sent, and the oldest version that knows all of them."""
    unused, needed = _newer_fields(message)
    return message.model_dump(mode="json", exclude=unused or None), needed


def as_json(message: Message, without: Set[str] = frozenset()) -> str:
    """The same fields as JSON, ``without`` some of them."""
    unused, _ = _newer_fields(message)
    return message.model_dump_json(exclude={**unused, **dict.fromkeys(without, True)})


def newest(*versions: str) -> str:
    return max(versions, key=_number)


@functools.cache
def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _newer_fields(message: Message) -> tuple[dict[str, Any], str]:
    """The marked fields that have their default, in pydantic's form for ``exclude``; what the others need."""
    unused: dict[str, Any] = {}
    needed = FIRST
    for field in _watched(type(message)):
        if field.name not in message.__dict__:
            continue  # the message was not checked here; the other side will
        value = message.__dict__[field.name]
        for mark in field.values:
            if value in mark.values:
                needed = newest(needed, mark.version)
        if field.since != FIRST:
            if value == field.default:
                unused[field.name] = True
                continue
            needed = newest(needed, field.since)
        if not field.has_messages:
            continue
        inner: dict[Any, Any] = {}
        several = isinstance(value, list)
        for place, part in enumerate(value if several else [value]):
            if isinstance(part, Message) and _has_newer_fields(type(part)):
                within, needed_within = _newer_fields(part)
                needed = newest(needed, needed_within)
                if within:
                    inner[place] = within
        if inner:
            unused[field.name] = inner if several else inner[0]
    return unused, needed


class _Watched(NamedTuple):
    """A field that came ``since`` a version, or ``values`` of which did, or whose messages can have such."""

    name: str
    since: str
    default: Any
    values: tuple[Since, ...]
    has_messages: bool


@functools.cache
def _watched(kind: type[Message]) -> tuple[_Watched, ...]:
    """The fields to look at in each message of this kind. Most fields of most messages are not among them."""
    found = []
    for name, field in kind.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Since)]
        has_messages = any(_has_newer_fields(inner) for inner in _messages_in(field.annotation))
        if marks or has_messages:
            since = next((mark.version for mark in marks if not mark.values), FIRST)
            values = tuple(mark for mark in marks if mark.values)
            default = field.get_default(call_default_factory=True)
            found.append(_Watched(name, since, default, values, has_messages))
    return tuple(found)


@functools.cache
def _has_newer_fields(kind: type[Message]) -> bool:
    """Whether a message of this kind can have a marked field, itself or in the messages that it contains."""
    fields = kind.model_fields.values()
    return any(isinstance(mark, Since) for field in fields for mark in field.metadata) or any(
        _has_newer_fields(inner) for field in fields for inner in _messages_in(field.annotation)
    )


def _messages_in(annotation: Any) -> list[type[Message]]:
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in _messages_in(part)]
