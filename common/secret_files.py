"""Secrets from the environment, or from files that the environment names, as containers get them."""

from __future__ import annotations

import os
from pathlib import Path

from portclaim.common.errors import InvalidConfiguration

SUFFIX = "_FILE"


def from_environment(name: str) -> str | None:
    """The value of the variable ``name``, or of the file that ``name_FILE`` names. None: neither is set.

    The end of the line is no part of the value. Raises :class:`InvalidConfiguration` if both are set, and if
    the file has not one line. No message has the value.
    """
    value, file = os.environ.get(name), os.environ.get(name + SUFFIX)
    return value if not file else _read(name, value, Path(file))


def from_file(name: str) -> str | None:
    """What is in the file that ``name_FILE`` names; None: not set. Raises as :func:`from_environment`."""
    file = os.environ.get(name + SUFFIX)
    return None if not file else _read(name, os.environ.get(name), Path(file))


def _read(name: str, value: str | None, file: Path) -> str:
    if value:
        raise InvalidConfiguration(f"{name} and {name}{SUFFIX} are both set: unset one of them")
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidConfiguration(f"{name}{SUFFIX}: {file} cannot be read: {reason}") from None
    if len(lines) != 1 or not lines[0]:
        raise InvalidConfiguration(
            f"{name}{SUFFIX}: {file} has {len(lines)} lines: write the value in one line, and nothing else"
        )
    return lines[0]
