"""Read the JSON values of ``[pci]`` options."""

from __future__ import annotations

import json
import reprlib

# The boolean words of oslo.utils, as Nova accepts them.
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})

_MAX_DEPTH = 8

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def read_json(text: str) -> object:
    """The JSON value in ``text``. Raises ValueError with a reason."""
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
    """Read a JSON value as yes or no (``"yes"``, ``"Off"``, ``1``, ``true``); None: it is neither."""
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def as_text(value: object) -> str:
    """A JSON value as the text of a tag: a string as it is, any other value as JSON.

    Raises ValueError for text that a database cannot store.
    """
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("contains a NUL or half of a surrogate pair; remove it")
    return text


def shown(value: object) -> str:
    """A value as messages quote it. A long value is shortened."""
    return _short.repr(value)


_TOO_DEEP = f"the JSON is nested more than {_MAX_DEPTH} levels deep"


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
