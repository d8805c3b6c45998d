"""How hard the tests try that could go on for ever: a short time, or with PORTCLAIM_CHAOS=long a long one."""

import os
from typing import TypeVar

T = TypeVar("T")

IS_LONG = os.environ.get("PORTCLAIM_CHAOS") == "long"


def short_or_long(short: T, long: T) -> T:
    return long if IS_LONG else short
