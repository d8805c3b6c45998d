"""A small host whose devices change bit by bit, as Hypothesis draws it."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st

from portclaim.common.rpc.agent_messages import DeviceReport
from tests.support.fleet import CONNECTX5, X710, Card, gpu, pf, port_devices, slice_of, vf
from tests.support.happenings import PORTS, VFS

Facts = dict[str, object]


class Edit(NamedTuple):
    """A change of one fact of a host."""

    what: Literal["card", "vfs", "move", "facts of the port", "facts of a VF"]
    port: int
    value: Any


@dataclass
class Shape:
    """What a host has at the address of each PF, and which VFs.

    ``cards``: a card with SR-IOV, "PCI" for a plain device, "VF" for a VF of the other port, or nothing.
    ``moved``: the VFs that belong to the other port.
    """

    cards: dict[int, Card | str | None] = field(default_factory=lambda: dict.fromkeys(PORTS, X710))
    vfs: dict[int, frozenset[int]] = field(default_factory=lambda: dict.fromkeys(PORTS, frozenset(VFS)))
    moved: frozenset[str] = frozenset()
    facts: dict[str, Facts] = field(default_factory=dict)

    def edit(self, edit: Edit) -> None:
        port, value = edit.port, edit.value
        match edit.what:
            case "card":
                self.cards[port] = value
            case "vfs":
                self.vfs[port] = value
            case "move":
                self.moved ^= {vf(port, value)}
            case "facts of the port":
                self.facts[pf(port)] = value
            case "facts of a VF":
                self.facts[vf(port, value[0])] = value[1]

    def devices(self) -> list[DeviceReport]:
        """All devices, in order of address."""
        found: list[DeviceReport] = []
        for port, card in self.cards.items():
            if isinstance(card, Card):
                found += port_devices(port, 0, card)
            elif card == "PCI":
                found.append(gpu(port))
            elif card == "VF":
                found += self._vf_of(1 - port, pf(port))
        for port, numbers in self.vfs.items():
            for address in (vf(port, number) for number in numbers):
                found += self._vf_of(1 - port if address in self.moved else port, address)
        changed = [device.model_copy(update=self.facts.get(device.address, {})) for device in found]
        return sorted(changed, key=lambda device: device.address)

    def _vf_of(self, port: int, address: str) -> list[DeviceReport]:
        card = self.cards[port]
        if not isinstance(card, Card):
            return []
        return [slice_of(port, 0, card).model_copy(update={"address": address})]


FACTS: list[Facts] = [
    {},
    {"unusable_reason": "not in order"},
    {"offered": False},
    {"tags": {"physical_network": "blue"}},
    {"tags": {"physical_network": "blue"}, "unusable_reason": "not in order"},
    {"attributes": {"driver": "vfio-pci", "mac": None}},
    {"attributes": {"mac": "3c:fd:fe:00:00:01"}},
    {"numa_node": 1},
]
_ports, _vfs, _facts = st.sampled_from(PORTS), st.sampled_from(VFS), st.sampled_from([*FACTS[:2] * 3, *FACTS])
edits: st.SearchStrategy[Edit] = st.sampled_from(
    [st.builds(Edit, st.just("facts of a VF"), _ports, st.tuples(_vfs, _facts))] * 2
    + [st.builds(Edit, st.just("facts of the port"), _ports, _facts)] * 6
    + [st.builds(Edit, st.just("vfs"), _ports, st.frozensets(_vfs))] * 4
    + [st.builds(Edit, st.just("move"), _ports, _vfs)]
    + [st.builds(Edit, st.just("card"), _ports, st.sampled_from([X710, X710, CONNECTX5, "PCI", "VF", None]))]
    * 2
).flatmap(lambda strategy: strategy)
