"""Read the PCI requests from a flavor's extra specs. Other keys are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import InvalidAlias
from portclaim.common.pci.option_text import shown
from portclaim.common.pci.request import GroupPolicy, NumaPolicy, PciRequest

ALIAS = "pci_passthrough:alias"
NUMA_POLICY = "hw:pci_numa_affinity_policy"
GROUP_POLICY = "group_policy"

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class FlavorRequests:
    """What one instance asks for. If its flavor names no alias, there are no requests."""

    requests: tuple[PciRequest, ...] = ()
    group_policy: GroupPolicy = GroupPolicy.NONE


def requests_from_extra_specs(extra_specs: Mapping[str, str], aliases: Aliases) -> FlavorRequests:
    """Read ``pci_passthrough:alias``, ``hw:pci_numa_affinity_policy`` and ``group_policy``.

    An empty policy counts as none. Raises :class:`InvalidAlias`, whose ``key`` is the extra spec.
    """
    numa_policy = _word(extra_specs, NUMA_POLICY, NumaPolicy)
    group_policy = _word(extra_specs, GROUP_POLICY, GroupPolicy) or GroupPolicy.NONE
    value = extra_specs.get(ALIAS)
    requests = () if value is None else aliases.requests(value, numa_policy)
    return FlavorRequests(requests, group_policy)


def _word(extra_specs: Mapping[str, str], key: str, words: type[Word]) -> Word | None:
    value = extra_specs.get(key)
    if not value:
        return None
    try:
        return words(value)
    except ValueError:
        raise InvalidAlias(f"{shown(value)} is none of {', '.join(words)}", key=key) from None
