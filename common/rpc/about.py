"""What a service says of itself."""

from __future__ import annotations

from pydantic import Field

from portclaim.common.rpc.fields import Message


class About(Message):
    """The answer to ``about``."""

    release: str = Field(description="The release of Portclaim that answers.")
    clock: float = Field(description="Its clock, in seconds since 1970.")
