"""A PCI request of a claim that does not come from the flavor."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.placement_names import RESOURCE_CLASS, TRAITS, check_class, check_traits
from portclaim.common.pci.request import MAX_COUNT
from portclaim.common.rpc.fields import Message, Text
from portclaim.common.rpc.versions import Since


def _one_trait(text: str) -> str:
    if not text.strip() or text.startswith(("!", "in:")) or "," in text:
        raise ValueError(
            "write the name of one trait; forbidden (!) and alternative (in:) traits are unknown here"
        )
    return check_traits(text)


ClassName = Annotated[Text, Field(min_length=1), AfterValidator(check_class)]
TraitName = Annotated[Text, AfterValidator(_one_trait)]


class DeviceRequest(Message):
    """A number of devices that satisfy the same spec.

    It is for requests that do not come from the flavor, for example those of a Neutron port.
    """

    count: Annotated[int, Field(ge=1, le=MAX_COUNT, description="How many devices.")]
    spec: list[dict[Text, Text | None]] = Field(
        default=[],
        max_length=16,
        description="Alternatives. Each device must satisfy one of them. An alternative maps `vendor_id`, "
        "`product_id`, `dev_type` and tags (`physical_network`, `trusted`, …) to values. A tag with the "
        "value null must be absent. It may be empty only if there are `resources`.",
    )
    numa_policy: Literal["required", "socket", "preferred", "legacy"] = Field(
        default="legacy", description="How close to `numa_cells` the devices must be, as in Nova."
    )
    resources: Annotated[dict[ClassName, int], Since("1.1")] = Field(
        default={},
        max_length=1,
        description="The resource class of each device, beside `spec`, as in a granular request to "
        "Placement: `{class: 1}`. Instead of 1 it may say `count`.",
    )
    required: Annotated[list[TraitName], Since("1.1")] = Field(
        default=[], max_length=64, description="Traits that each device must have."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.spec and not self.resources:
            raise ValueError("spec is empty: give at least one alternative, or resources")
        if any(amount not in {1, self.count} for amount in self.resources.values()):
            raise ValueError(f"resources: say 1, for each device, or the count, which is {self.count}")
        return self

    @property
    def alternatives(self) -> tuple[dict[str, str | None], ...]:
        """``spec`` with what ``resources`` and ``required`` say besides."""
        more = dict.fromkeys([RESOURCE_CLASS], *self.resources) if self.resources else {}
        if self.required:
            more[TRAITS] = ",".join(self.required)
        for key in more:
            if any(key in alternative for alternative in self.spec):
                raise InvalidRequest(f"spec names {key} too: say it in one of the two places")
        return tuple({**alternative, **more} for alternative in self.spec or [{}])
