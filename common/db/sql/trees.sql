-- The status that the devices of a tree have while no claim holds them.
--
-- A tree is a PF with its VFs. The row of the PF is the lock of the whole tree: every function here expects that
-- its caller has locked it.

-- Nova's rules: a device is unclaimable while its tree partner is claimed, and unavailable while its tree partner
-- is allocated. _partner is the status of the tree partner that is held; null: none is.
CREATE OR REPLACE FUNCTION derived_status(
    _offered boolean, _present boolean, _unusable_reason text, _partner text
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN NOT _offered THEN 'unavailable'
                WHEN _partner = 'claimed' THEN 'unclaimable'
                WHEN _partner = 'allocated' THEN 'unavailable'
                WHEN _unusable_reason IS NOT NULL OR NOT _present THEN 'unavailable'
                ELSE 'available' END
$$;
COMMENT ON FUNCTION derived_status IS 'the status of a device that no claim holds';

CREATE OR REPLACE FUNCTION refresh_port_pools(_port_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO port_pools AS pp (port_id, pool_id, compute_node_id, numa_node, devices, free, held)
    SELECT vf.parent_id, vf.pool_id, min(vf.compute_node_id),
           CASE WHEN count(vf.numa_node) = count(*) AND min(vf.numa_node) = max(vf.numa_node) THEN min(vf.numa_node) END,
           count(*) FILTER (WHERE vf.status <> 'removed'),
           count(*) FILTER (WHERE vf.status = 'available'),
           sum(count(*) FILTER (WHERE NOT vf.unheld)) OVER (PARTITION BY vf.parent_id)
      FROM pci_devices vf
     WHERE vf.parent_id = ANY(_port_ids)
     GROUP BY vf.parent_id, vf.pool_id
        ON CONFLICT (port_id, pool_id) DO UPDATE
       SET free = EXCLUDED.free, held = EXCLUDED.held, numa_node = EXCLUDED.numa_node, devices = EXCLUDED.devices,
           counted = CASE WHEN (pp.numa_node, pp.devices) IS DISTINCT FROM (EXCLUDED.numa_node, EXCLUDED.devices)
                          THEN -1 ELSE pp.counted END
     WHERE (pp.free, pp.held, pp.numa_node, pp.devices)
           IS DISTINCT FROM (EXCLUDED.free, EXCLUDED.held, EXCLUDED.numa_node, EXCLUDED.devices);

    -- Only a report moves a device to another pool or port, and it has locked the host.
    WITH gone AS (
        DELETE FROM port_pools pp
         WHERE pp.port_id = ANY(_port_ids)
           AND NOT EXISTS (SELECT FROM pci_devices vf
                            WHERE vf.parent_id = pp.port_id AND vf.pool_id = pp.pool_id)
        RETURNING compute_node_id
    )
    UPDATE compute_nodes SET counted = false WHERE id IN (SELECT compute_node_id FROM gone) AND counted;
END $$;
COMMENT ON FUNCTION refresh_port_pools IS 'count the free and held VFs of these locked ports again';

-- Nova's rule: a PF that became unavailable stays so until all of its VFs are free.
CREATE OR REPLACE FUNCTION update_tree_statuses(_port_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pci_devices d
       SET status = derived.status
      FROM (SELECT port.id,
                   derived_status(port.offered, port.present,
                       coalesce(port.reserved_for::text, port.drained_reason, port.unusable_reason),
                       CASE WHEN vfs.allocated OR vfs.held AND port.status = 'unavailable' THEN 'allocated'
                            WHEN vfs.held THEN 'claimed' END) AS status
              FROM pci_devices port
             CROSS JOIN LATERAL (
                   SELECT count(*) > 0 AS held, bool_or(vf.status = 'allocated') AS allocated
                     FROM pci_devices vf
                    WHERE vf.parent_id = port.id AND vf.status IN ('claimed', 'allocated')
                   ) vfs
             WHERE port.id = ANY(_port_ids) AND port.unheld AND port.status <> 'removed'
           ) derived
     WHERE d.id = derived.id AND d.status <> derived.status;

    UPDATE pci_devices vf
       SET status = derived_status(
               vf.offered, vf.present, coalesce(vf.reserved_for::text, vf.drained_reason, vf.unusable_reason),
               pf.status)
      FROM pci_devices pf
     WHERE pf.id = ANY(_port_ids) AND vf.parent_id = pf.id AND vf.unheld AND vf.status <> 'removed'
       AND vf.status <> derived_status(
               vf.offered, vf.present, coalesce(vf.reserved_for::text, vf.drained_reason, vf.unusable_reason),
               pf.status);

    PERFORM refresh_port_pools(_port_ids);
END $$;
COMMENT ON FUNCTION update_tree_statuses IS
    'derive again the status of every device of these locked trees that no claim holds';

CREATE OR REPLACE FUNCTION ports_of(VARIADIC _claim_ids uuid[]) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT DISTINCT coalesce(parent_id, id) FROM pci_devices WHERE claim_id = ANY(_claim_ids))
$$;
COMMENT ON FUNCTION ports_of IS 'the ports whose trees these claims hold devices of';
