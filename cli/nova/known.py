"""What Portclaim knows of hosts that are to be imported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

import sqlalchemy as sa

from portclaim.cli.nova.cell import NovaCell

AWAITED = "taken over from Nova: its agent has not reported it yet"
"""Why a device that was imported cannot be had until a report of its host lists it."""

_NO_AGENT = UUID(int=0)

_HOSTS = sa.text("""
    SELECT id, host, imported_at,
           agent_id <> :no_agent
           AND EXISTS (SELECT FROM pci_devices d WHERE d.compute_node_id = n.id AND d.status <> 'removed')
           AS has_agent
      FROM compute_nodes n WHERE host = ANY(:hosts)
""")
_DEVICES = sa.text("""
    SELECT d.compute_node_id, d.address, d.dev_type, p.vendor_id, p.product_id, pf.address AS parent_address,
           d.present AS is_shown,
           coalesce(d.unusable_reason = :awaited, false) AS is_awaited, d.drained_reason, d.claim_id
      FROM pci_devices d
      JOIN pools p ON p.id = d.pool_id
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE d.compute_node_id = ANY(:nodes) AND d.status <> 'removed'
""")
_CLAIMS = sa.text("""
    SELECT compute_node_id, id, status FROM claims
     WHERE compute_node_id = ANY(:nodes) AND instance_id = ANY(cast(:instances AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device as Portclaim has it.

    ``is_shown``: the last report of its host lists it. ``is_awaited``: it was imported, and no report has
    listed it since.
    """

    dev_type: str
    vendor_id: str
    product_id: str
    parent_address: str | None
    is_shown: bool
    is_awaited: bool
    drained_reason: str | None
    claim_id: UUID | None


@dataclass(frozen=True)
class KnownHost:
    """A host as Portclaim has it; without arguments, one that it does not have.

    ``imported_at``: when it was imported first; None: it was not, or it was removed since. ``has_agent``: its
    agent has reported. ``claims``: the statuses of its claims of Nova's instances, also of those that have
    ended.
    """

    imported_at: datetime | None = None
    has_agent: bool = False
    devices: Mapping[str, KnownDevice] = field(default_factory=dict)
    claims: Mapping[UUID, str] = field(default_factory=dict)

    @property
    def is_imported(self) -> bool:
        return self.imported_at is not None

    @property
    def is_over(self) -> bool:
        """Was it taken over, agent and all? Then Portclaim has the last word about it, and not Nova."""
        return self.is_imported and self.has_agent

    def vfs(self, address: str) -> Sequence[str]:
        """The VFs of a PF."""
        return self._vfs.get(address, ())

    @cached_property
    def _vfs(self) -> Mapping[str, Sequence[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for address, row in self.devices.items():
            if row.parent_address is not None:
                found[row.parent_address].append(address)
        return found


def read_known(connection: sa.Connection, cell: NovaCell) -> dict[str, KnownHost]:
    """What Portclaim has of the hosts of a cell; only of those that it has. Reads only."""
    hosts = connection.execute(_HOSTS, {"hosts": list(cell.hosts), "no_agent": _NO_AGENT}).all()
    devices: dict[int, dict[str, KnownDevice]] = {row.id: {} for row in hosts}
    claims: dict[int, dict[UUID, str]] = {row.id: {} for row in hosts}
    nodes = {"nodes": list(devices)}
    for node_id, address, *facts in connection.execute(_DEVICES, nodes | {"awaited": AWAITED}):
        devices[node_id][address] = KnownDevice(*facts)
    for node_id, id_, status in connection.execute(_CLAIMS, nodes | {"instances": list(cell.instances)}):
        claims[node_id][id_] = status
    return {
        row.host: KnownHost(row.imported_at, row.has_agent, devices[row.id], claims[row.id]) for row in hosts
    }
