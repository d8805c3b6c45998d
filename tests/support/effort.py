"""How long open-ended tests run: a short time, or a long time with PORTCLAIM_CHAOS=long."""

import os
from typing import TypeVar

T = TypeVar("T")

IS_LONG = os.environ.get("PORTCLAIM_CHAOS") == "long"


def short_or_long(short: T, long: T) -> T:
    return long if IS_LONG else short
