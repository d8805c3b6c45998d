"""URLs that have a password: refused with a message that says nothing of them if they cannot be right.

A password with a special character that is not written as its code is taken for something else. A part of it
would stand in messages as the name of a host, or as a port.
"""

from __future__ import annotations

import re

from portclaim.common.errors import InvalidConfiguration

ENCODE = "In user and password write %40 for @, %2F for /, %3F for ?, %23 for #, %2C for , and %25 for %"
"""What a message about such a URL says."""

_DRIVER = "postgresql+psycopg2://"
_LOGIN = re.compile(r"^[^:/@]*(?::[^@]*)?@")  # as SQLAlchemy reads it
_HOST = re.compile(r"(?:\[[^]]*\]|[^:\[\]]*)(?::\d*)?")
_WITH_PASSWORD = re.compile(r"://[^/@]*:[^@]+@|[?&]password=[^&]")


def has_password(url: str) -> bool:
    """Whether there is a password in the URL."""
    return _WITH_PASSWORD.search(url) is not None


def check_database(url: str, option: str) -> None:
    """Raise :class:`InvalidConfiguration` unless this can be the URL of a PostgreSQL database."""
    say = f"{option} is not the URL of a PostgreSQL database; write {_DRIVER}user:password@host/name"
    if not url.startswith(_DRIVER):
        raise InvalidConfiguration(say)
    place = _LOGIN.sub("", url.removeprefix(_DRIVER), count=1).partition("?")[0]
    if "@" in place or _HOST.fullmatch(place.partition("/")[0]) is None:
        raise InvalidConfiguration(f"{say}. {ENCODE}")


def bus_is_wrong(why: str = "") -> InvalidConfiguration:
    """``[DEFAULT] transport_url`` cannot be read. ``why`` has nothing of a password."""
    return InvalidConfiguration(
        f"[DEFAULT] transport_url is not the URL of a message bus{why and f': {why}'}. Write "
        f"rabbit://user:password@host:5672/virtual_host. {ENCODE}"
    )
