"""Resource classes and traits: Nova's rules for names that Placement would accept.

A device is of one resource class and has any number of traits. Both come from device_spec, and aliases and
requests ask for them. Portclaim compares them itself. It asks no Placement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from portclaim.common.pci.option_text import shown
from portclaim.common.pci.standard_names import STANDARD_CLASSES, STANDARD_TRAITS

RESOURCE_CLASS = "resource_class"
TRAITS = "traits"
KEYS = frozenset({RESOURCE_CLASS, TRAITS})
"""The tags of a device, and keys of a request, that hold these names."""

MAX_NAME = 255
CUSTOM = "CUSTOM_"
CLASS_OF_IDS = "CUSTOM_PCI_"
_ALWAYS = frozenset({"COMPUTE_MANAGED_PCI_DEVICE"})
_OF_TAGS = {"live_migratable": "HW_PCI_LIVE_MIGRATABLE", "one_time_use": "HW_PCI_ONE_TIME_USE"}

_ANYTHING_ELSE = re.compile("[^0-9A-Z]+")
_INVALID = re.compile("[^0-9A-Z_]+")


@lru_cache(maxsize=4096)
def class_name(text: str) -> str:
    """A resource class as Placement names it: ``gpu vf`` is ``CUSTOM_GPU_VF``. Blank text is no class: ""."""
    name = text.strip().upper()
    return name if not name or name in STANDARD_CLASSES else _custom(name)


def default_class(vendor_id: str, product_id: str) -> str:
    """The class of a device whose entry names none: ``CUSTOM_PCI_8086_154C``."""
    return f"{CLASS_OF_IDS}{vendor_id}_{product_id}".upper()


@lru_cache(maxsize=4096)
def trait_names(text: str) -> frozenset[str]:
    """The traits in a text with commas between them, as Placement names them.

    A standard trait counts only in upper case, as for Nova: ``hw_nic_sriov`` is ``CUSTOM_HW_NIC_SRIOV``.
    """
    names = (part.strip() for part in text.split(","))
    return frozenset(name if name in STANDARD_TRAITS else _custom(name.upper()) for name in names if name)


def traits_of(tags: Mapping[str, str]) -> frozenset[str]:
    """The traits of a device with these tags: those of its entry, and those that Nova adds."""
    implied = {trait for tag, trait in _OF_TAGS.items() if tags.get(tag, "").lower() == "true"}
    return trait_names(tags.get(TRAITS, "")) | _ALWAYS | implied


def normalised(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags with Placement's names, so that devices that mean the same have the same tags."""
    result = dict(tags)
    if (name := class_name(result.pop(RESOURCE_CLASS, ""))) != "":
        result[RESOURCE_CLASS] = name
    if names := trait_names(result.pop(TRAITS, "")):
        result[TRAITS] = ",".join(sorted(names))
    return result


def check_class(text: str) -> str:
    """A resource class of a configuration or request, as it was written. Raises ValueError with a reason."""
    _check_length(class_name(text), text)
    return text


def check_traits(text: str) -> str:
    """Traits of a configuration or request, as they were written. Raises ValueError with a reason."""
    for name in trait_names(text):
        _check_length(name, text)
    return text


def _custom(name: str) -> str:
    """The custom name for a name in upper case."""
    if name.startswith(CUSTOM):
        return _INVALID.sub("_", name)
    return CUSTOM + _ANYTHING_ELSE.sub("_", name)


def _check_length(name: str, text: str) -> None:
    if len(name) > MAX_NAME:
        raise ValueError(f"{shown(text)} is longer than the {MAX_NAME} characters that a name may have")
