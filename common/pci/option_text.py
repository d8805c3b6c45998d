"""Reading the JSON that ``[pci]`` options hold."""

from __future__ import annotations

import json
import reprlib

# oslo.utils' boolean words, which Nova takes.
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})

_MAX_DEPTH = 8

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def read_json(text: str) -> object:
    """The JSON value in ``text``. Raises ValueError with a reason for a person."""
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    layer = [value]
    for _ in range(_MAX_DEPTH):
        layer = [part for one in layer for part in _parts(one)]
    if layer:
        raise ValueError(_TOO_DEEP)
    return value


def read_boolean(value: object) -> bool | None:
    """What a boolean-like JSON value says (``"yes"``, ``"Off"``, ``1``, ``true``); None for neither."""
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def as_text(value: object) -> str:
    """A JSON value as the text that a tag holds: text as it is, all else as JSON writes it.

    Raises ValueError for text that no database can hold.
    """
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("contains a NUL or half of a surrogate pair; remove it")
    return text


def shown(value: object) -> str:
    """A value as a message quotes it, however long it is."""
    return _short.repr(value)


_TOO_DEEP = f"not JSON that an option can hold: nested more than {_MAX_DEPTH} deep"


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
