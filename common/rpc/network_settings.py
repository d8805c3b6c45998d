"""Messages about network settings: what a claim asks for, and what a step has the agent set."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from portclaim.common.pci.network_settings import MAX_QOS, MAX_RATE, MAX_VLAN, check_mac
from portclaim.common.rpc.fields import Message, Number

Mac = Annotated[str, Field(max_length=17), AfterValidator(check_mac)]
Rate = Annotated[int, Field(ge=0, le=MAX_RATE)]

FOR_VFS = ("vlan", "spoofchk", "trust", "link_state", "min_tx_rate", "max_tx_rate")
FOR_PFS = ("mtu",)


class VlanSettings(Message):
    """The VLAN of a VF. The card tags what the instance sends, and takes the tag off what it gets."""

    id: int = Field(ge=0, le=MAX_VLAN, description="VLAN id. 0: no VLAN.")
    qos: int = Field(default=0, ge=0, le=MAX_QOS, description="Priority.")
    protocol: Literal["802.1Q", "802.1ad"] = Field(default="802.1Q", description="Protocol of the tag.")

    @model_validator(mode="after")
    def _is_plain_without_an_id(self) -> Self:
        if not self.id and (self.qos or self.protocol != "802.1Q"):
            raise ValueError("id 0 means no VLAN: leave qos and protocol out")
        return self


class NetworkSettings(Message):
    """Settings of one device of a network card. Null: nothing is said.

    `mac` is for VFs and PFs, `mtu` for PFs, the others are for VFs.
    """

    mac: Mac | None = Field(default=None, description="MAC, for example `52:54:00:12:34:56`.")
    vlan: VlanSettings | None = Field(default=None, description="VLAN of the VF.")
    spoofchk: bool | None = Field(
        default=None, description="Whether the card drops what the VF sends under another MAC."
    )
    trust: bool | None = Field(
        default=None,
        description="Whether the instance may change what the card lets only trusted VFs change.",
    )
    link_state: Literal["auto", "enable", "disable"] | None = Field(
        default=None, description="The link that the VF sees. `auto`: the link of its PF."
    )
    min_tx_rate: Rate | None = Field(default=None, description="Guaranteed rate in Mbit/s. 0: none.")
    max_tx_rate: Rate | None = Field(default=None, description="Highest rate in Mbit/s. 0: no limit.")
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = Field(default=None, description="MTU of the PF.")

    @model_validator(mode="after")
    def _says_something_that_one_device_can_have(self) -> Self:
        said = {name for name in NetworkSettings.model_fields if getattr(self, name) is not None}
        if not said:
            raise ValueError("no setting is given: give one, or leave the entry out")
        if said.intersection(FOR_PFS) and (wrong := [name for name in FOR_VFS if name in said]):
            raise ValueError(f"mtu is for PFs, but {', '.join(wrong)} for VFs: no device can have both")
        if self.max_tx_rate and (self.min_tx_rate or 0) > self.max_tx_rate:
            raise ValueError(f"min_tx_rate {self.min_tx_rate} is above max_tx_rate {self.max_tx_rate}")
        return self

    @property
    def dev_type(self) -> str | None:
        """The type of the only devices that can have these settings. None: VFs and PFs can."""
        if self.mtu is not None:
            return "type-PF"
        return "type-VF" if any(getattr(self, name) is not None for name in FOR_VFS) else None


class DeviceNetworkSettings(NetworkSettings):
    """Network settings that a claim asks for, and which of its devices gets them."""

    request_index: Number = Field(
        default=0,
        description="The PCI request of the device, counted from 0: first those of the extra specs, then "
        "`requests`.",
    )
    device_index: Number = Field(
        default=0,
        description="Which of the devices of that request, counted from 0. They are alike, so a caller gives "
        "each one of its settings a number of its own.",
    )


def one_entry_for_each_device(asked: list[DeviceNetworkSettings]) -> list[DeviceNetworkSettings]:
    """The same entries. Raises ValueError if two are for the same device."""
    if len({(entry.request_index, entry.device_index) for entry in asked}) < len(asked):
        raise ValueError("two entries are for the same device: give each a device_index of its own")
    return asked
