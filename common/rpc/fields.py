"""The base of all messages, and the types of their fields.

A request is strict: an unknown field, a missing field or a number written as text is refused.
Each message is a JSON object.
"""

from __future__ import annotations

import functools
import re
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress


# The devices of most hosts have the same addresses.
@functools.lru_cache(maxsize=16_384)
def _pci_address(text: str) -> str:
    try:
        return str(PciAddress.parse(text))
    except InvalidPciAddress as error:
        raise ValueError(str(error)) from None


# JSON can spell a NUL and half of a surrogate pair. PostgreSQL can store neither.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("the database cannot store text that contains a NUL or half of a surrogate pair")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Uuid = Annotated[UUID, Field(strict=False)]
Host = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:-]+$")]
Project = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:-]+$")]
Address = Annotated[str, AfterValidator(_pci_address)]
DevType = Literal["type-PCI", "type-PF", "type-VF"]
DeviceStatus = Literal["available", "claimed", "allocated", "unclaimable", "unavailable", "removed"]
HexId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}$")]
Number = Annotated[int, Field(ge=0, lt=2**31)]
ClaimStatus = Literal[
    "waiting", "claimed", "prepared", "allocated", "releasing", "released", "failed", "expired"
]
AttachMode = Literal["auto", "on-call"]
AnsweredClaimStatus = ClaimStatus | Annotated[str, Field(pattern=r"^[a-z]+$")]
"""A claim's status in an answer. A newer service may answer a status that this version does not know."""
MoveStatus = Literal["begun", "completing", "completed", "reverted"]


class Message(BaseModel):
    """The root of all messages: strict, immutable, without undeclared fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Message):
    """A request without arguments, or an answer that says only that the work is done."""
