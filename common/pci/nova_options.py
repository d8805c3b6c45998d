"""Nova's options about PCI devices, and which of them Portclaim can honour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from portclaim.common.pci.option_text import read_boolean

Setting = tuple[str, str]
"""A section and an option, as in nova.conf."""

OLD_NAMES: Mapping[str, Sequence[Setting]] = {
    "device_spec": (("pci", "passthrough_whitelist"), ("DEFAULT", "pci_passthrough_whitelist")),
    "alias": (("DEFAULT", "pci_alias"),),
}
"""Under which names Nova still reads the options of ``[pci]`` that Portclaim honours."""

DISHONOURED: Mapping[Setting, str] = {
    ("pci", "report_in_placement"): (
        "Portclaim keeps the inventory itself and reports none of it to Placement, under which a PF and its "
        "VFs could not both be offered"
    ),
    ("filter_scheduler", "pci_in_placement"): (
        "Portclaim chooses devices itself, and Placement has no part in it"
    ),
}
"""Switches of Nova's that Portclaim cannot turn on, and why."""

_HONOURED = {("pci", name) for name in OLD_NAMES} | {old for names in OLD_NAMES.values() for old in names}


def refusals(settings: Mapping[Setting, Sequence[str]]) -> dict[Setting, str]:
    """Which options of a nova.conf cannot be honoured, and what to do about each.

    ``settings`` are all of the file, with all values of each; only those about PCI are judged.
    """
    found: dict[Setting, str] = {}
    for setting, values in settings.items():
        if reason := DISHONOURED.get(setting):
            if not all(read_boolean(value) is False for value in values):
                found[setting] = f"{reason}: remove the option, or set it to false"
        elif setting[0] == "pci" and setting not in _HONOURED:
            found[setting] = "no option of [pci] that Portclaim knows: remove it, or correct its name"
    return found
