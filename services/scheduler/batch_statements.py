"""The statements of several claims or releases at once.

The functions are in common/db/sql: batches.sql, release.sql.
"""

from __future__ import annotations

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import (
    PORTS_WITH_ROOM,
    WHOLE_DEVICES,
    free_pci_devices,
    free_ports,
    open_host,
)

# needed: how many ports the claims need if they get the best ones. No more are locked. shares: how many of
# the claims a port has room for.
_CLAIM_ALIKE = """
    SELECT made.claim_id::text, made.claim::text
      FROM (SELECT coalesce(array_agg(id ORDER BY rank), '{{}}') AS ids,
                   count(*) FILTER (WHERE before < :number::integer) AS needed
              FROM (SELECT id, rank, sum(shares) OVER (ORDER BY rank) - shares AS before
                      FROM ({best}) best) ranked) ports
     CROSS JOIN LATERAL claim_alike(
           CAST(:claim_ids::text[] AS uuid[]), CAST(:instance_ids::text[] AS uuid[]),
           CAST(:requests::text[] AS jsonb[]), :resend_after::double precision,
           :count::integer, :pool_ids::integer[], ports.ids, ports.needed::integer, {port_by_port}) made
"""

_BEST_PORTS = """
    SELECT port_id AS id, {shares} AS shares, row_number() OVER (ORDER BY {ports}) AS rank
      FROM ({ports_with_room}) candidate
"""

_BEST_DEVICES = """
    SELECT id, 1 AS shares, row_number() OVER (ORDER BY {devices}) AS rank FROM ({whole_devices}) candidate
"""

BEGIN_RELEASES = PreparedStatement(
    "begin_releases",
    """
    SELECT claim_id::text, claim::text
      FROM begin_releases(CAST(:claim_ids::text[] AS uuid[]), :resend_after::double precision,
                          :wait::boolean)
    """,
)


def claim_vfs_alike(packing: Packing) -> PreparedStatement:
    """Make claims of VFs of one port each. A policy that keeps ports whole fills one port after the other."""
    with_room = PORTS_WITH_ROOM.format(
        port_pools=free_ports("anywhere"), open_host=open_host("pp", "anywhere"), within=packing.within
    )
    best = _BEST_PORTS.format(
        shares="free / :count" if packing.keeps_ports_whole else "1",
        ports=packing.ports,
        ports_with_room=with_room,
    )
    sql = _CLAIM_ALIKE.format(best=best, port_by_port=str(packing.keeps_ports_whole).lower())
    return PreparedStatement(f"claim_vfs_alike_{packing.name}", sql)


def claim_whole_alike(packing: Packing) -> PreparedStatement:
    """Make claims of one PF each, or of one device without a tree."""
    whole = WHOLE_DEVICES.format(
        pci_devices=free_pci_devices("anywhere"),
        open_host=open_host("d", "anywhere"),
        devices_within=packing.devices_within,
    )
    best = _BEST_DEVICES.format(devices=packing.devices, whole_devices=whole)
    return PreparedStatement(
        f"claim_whole_alike_{packing.name}", _CLAIM_ALIKE.format(best=best, port_by_port="true")
    )
