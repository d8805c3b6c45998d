"""Nova's options about PCI devices, and which of them Portclaim can honour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Setting = tuple[str, str]
"""A section and an option, as in nova.conf."""

OLD_NAMES: Mapping[str, Sequence[Setting]] = {
    "device_spec": (("pci", "passthrough_whitelist"), ("DEFAULT", "pci_passthrough_whitelist")),
    "alias": (("DEFAULT", "pci_alias"),),
}
"""The old names of the options of ``[pci]`` that Portclaim honours. Nova still reads these names."""

EXPLAINED: Mapping[Setting, str] = {
    ("pci", "report_in_placement"): (
        "Portclaim keeps the inventory; a PF and its VFs can both be offered here, which Placement does not "
        "allow"
    ),
    ("filter_scheduler", "pci_in_placement"): (
        "Portclaim chooses the devices, by resource class and traits too; it asks no Placement"
    ),
}
"""Options of Nova that give Placement a part. Portclaim takes this part, and says so once when it starts."""

_HONOURED = {
    *(("pci", name) for name in OLD_NAMES),
    *(old for names in OLD_NAMES.values() for old in names),
    *EXPLAINED,
}


def refusals(settings: Mapping[Setting, Sequence[str]]) -> dict[Setting, str]:
    """The options of a nova.conf that Portclaim cannot honour, and what to do about each.

    ``settings`` are all options of the file with all their values. Only options of ``[pci]`` are checked.
    """
    return {
        setting: "Portclaim does not know this option of [pci]: remove it, or correct its name"
        for setting in settings
        if setting[0] == "pci" and setting not in _HONOURED
    }
