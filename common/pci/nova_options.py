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
"""The old names of the options of ``[pci]`` that Portclaim honours. Nova still reads these names."""

DISHONOURED: Mapping[Setting, str] = {
    ("pci", "report_in_placement"): (
        "Portclaim keeps its own inventory and does not report it to Placement, because Placement could not "
        "offer both a PF and its VFs"
    ),
    ("filter_scheduler", "pci_in_placement"): ("Portclaim chooses devices itself and does not ask Placement"),
}
"""Options of Nova that must be off for Portclaim, and why."""

_HONOURED = {("pci", name) for name in OLD_NAMES} | {old for names in OLD_NAMES.values() for old in names}


def refusals(settings: Mapping[Setting, Sequence[str]]) -> dict[Setting, str]:
    """The options of a nova.conf that Portclaim cannot honour, and what to do about each.

    ``settings`` are all options of the file with all their values. Only options about PCI are checked.
    """
    found: dict[Setting, str] = {}
    for setting, values in settings.items():
        if reason := DISHONOURED.get(setting):
            if not all(read_boolean(value) is False for value in values):
                found[setting] = f"{reason}: remove the option, or set it to false"
        elif setting[0] == "pci" and setting not in _HONOURED:
            found[setting] = "Portclaim does not know this option of [pci]: remove it, or correct its name"
    return found
