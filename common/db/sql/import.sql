-- Take a host over from Nova: its devices, and a claim for each instance that has some of them.

-- The agent has the last word about its host. Until its first report, the devices that no claim holds are unavailable:
-- nobody knows whether the host has them, and nobody would prepare them.
--
-- _imported_at: when the host was imported first, or now. _devices: those that the host does not have here yet. _claims:
-- each with its devices, as addresses and the index of the request that each is for. _withheld: addresses of ports that
-- are drained, with the reason. What is there already stays as it is, so that the same import again changes nothing. The
-- host and its trees are locked in the order of a report.
CREATE OR REPLACE FUNCTION import_host(
    _host text, _imported_at timestamptz, _devices jsonb, _claims jsonb, _withheld jsonb
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _no_agent CONSTANT uuid := '00000000-0000-0000-0000-000000000000'::uuid;
    _node compute_nodes;
    _is_vf boolean;
    _port_ids bigint[];
    _new_claims uuid[];
BEGIN
    INSERT INTO compute_nodes (host, agent_id, last_seen) VALUES (_host, _no_agent, 'epoch')
        ON CONFLICT (host) DO NOTHING;
    SELECT * INTO _node FROM compute_nodes WHERE host = _host FOR NO KEY UPDATE;
    IF _node.imported_at <> _imported_at OR _node.imported_at IS NOT NULL AND _node.agent_id <> _no_agent THEN
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'host %s was imported, or its agent has begun to report, a moment ago: import again', _host);
    END IF;
    -- A host that was removed, and is taken over for a second time: its agent comes later.
    UPDATE compute_nodes SET agent_id = _no_agent, last_seen = 'epoch', inventory_digest = NULL
     WHERE id = _node.id
       AND NOT EXISTS (SELECT FROM pci_devices WHERE compute_node_id = _node.id AND status <> 'removed');
    PERFORM FROM pci_devices WHERE compute_node_id = _node.id AND parent_id IS NULL ORDER BY id FOR UPDATE;

    INSERT INTO pools (dev_type, vendor_id, product_id, tags)
    SELECT DISTINCT dev_type, vendor_id, product_id, tags
      FROM jsonb_to_recordset(_devices) AS new (dev_type text, vendor_id text, product_id text, tags jsonb)
     ORDER BY dev_type, vendor_id, product_id, tags
        ON CONFLICT DO NOTHING;
    FOREACH _is_vf IN ARRAY ARRAY[false, true] LOOP -- a VF needs its PF
        INSERT INTO pci_devices AS d (compute_node_id, parent_id, pool_id, numa_node, offered, address, dev_type,
                                      status, drained_reason, reserved_for, unusable_reason)
        SELECT _node.id, pf.id, p.id, new.numa_node, new.offered, new.address, new.dev_type, 'unavailable',
               pf.drained_reason, pf.reserved_for, new.unusable_reason
          FROM jsonb_to_recordset(_devices) AS new (
               address text, dev_type text, vendor_id text, product_id text, numa_node integer,
               parent_address text, offered boolean, tags jsonb, unusable_reason text)
          JOIN pools p USING (dev_type, vendor_id, product_id, tags)
          LEFT JOIN pci_devices pf ON pf.compute_node_id = _node.id AND pf.address = new.parent_address
         WHERE (new.dev_type = 'type-VF') = _is_vf
         ORDER BY new.address
            ON CONFLICT (compute_node_id, address) DO UPDATE
           SET parent_id = EXCLUDED.parent_id, pool_id = EXCLUDED.pool_id, numa_node = EXCLUDED.numa_node,
               offered = EXCLUDED.offered, dev_type = EXCLUDED.dev_type, status = EXCLUDED.status, present = true,
               drained_reason = EXCLUDED.drained_reason, reserved_for = EXCLUDED.reserved_for,
               unusable_reason = EXCLUDED.unusable_reason
         WHERE d.status = 'removed';
    END LOOP;
    SELECT coalesce(array_agg(id ORDER BY id), '{}') INTO _port_ids
      FROM pci_devices WHERE compute_node_id = _node.id AND parent_id IS NULL;
    UPDATE pci_devices port SET vfs = vfs.number
      FROM (SELECT parent_id, count(*) AS number FROM pci_devices
             WHERE parent_id = ANY(_port_ids) AND status <> 'removed' GROUP BY parent_id) vfs
     WHERE port.id = vfs.parent_id AND port.vfs <> vfs.number;
    UPDATE pci_devices d SET drained_reason = withheld.value
      FROM jsonb_each_text(_withheld) withheld
      JOIN pci_devices port ON port.compute_node_id = _node.id AND port.address = withheld.key
     WHERE (d.id = port.id OR d.parent_id = port.id) AND d.drained_reason IS NULL;

    SELECT coalesce(array_agg(id), '{}') INTO _new_claims
      FROM jsonb_to_recordset(_claims) AS new (id uuid)
     WHERE NOT EXISTS (SELECT FROM claims WHERE claims.id = new.id);
    INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
    SELECT new.id, new.instance_id, _node.id, 'allocated', new.request,
           (SELECT d.id FROM pci_devices d
             WHERE d.compute_node_id = _node.id AND new.devices ? d.address ORDER BY d.id LIMIT 1)
      FROM jsonb_to_recordset(_claims) AS new (id uuid, instance_id uuid, request jsonb, devices jsonb)
        ON CONFLICT (id) DO UPDATE SET request = EXCLUDED.request, updated_at = now() -- it gets another device
     WHERE claims.status = 'allocated';
    WITH taken AS (
        UPDATE pci_devices d SET status = 'allocated', claim_id = new.id
          FROM jsonb_to_recordset(_claims) AS new (id uuid, devices jsonb)
         CROSS JOIN jsonb_each_text(new.devices) AS held (address, request_index)
         WHERE d.compute_node_id = _node.id AND d.address = held.address AND d.unheld AND d.status <> 'removed'
        RETURNING new.id AS claim_id, d.id, d.pool_id, held.request_index
    )
    INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
    SELECT claim_id, id, pool_id, request_index::integer FROM taken;
    IF EXISTS (SELECT FROM jsonb_to_recordset(_claims) AS new (id uuid, devices jsonb)
                CROSS JOIN jsonb_object_keys(new.devices) AS wanted (address)
                 LEFT JOIN pci_devices d ON d.compute_node_id = _node.id AND d.address = wanted.address
                WHERE d.claim_id IS DISTINCT FROM new.id) THEN
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'a device of host %s was claimed or removed a moment ago: import again', _host);
    END IF;
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    SELECT id, from_status, to_status, 'import from Nova'
      FROM unnest(_new_claims) AS id
     CROSS JOIN (VALUES (1, NULL, 'claimed'), (2, 'claimed', 'allocated')) AS change (place, from_status, to_status)
     ORDER BY id, place;

    PERFORM update_tree_statuses(_port_ids);
    UPDATE compute_nodes SET imported_at = _imported_at WHERE id = _node.id AND imported_at IS NULL;
END $$;
COMMENT ON FUNCTION import_host IS
    'make a host, the devices that it lacks, and allocated claims, as Nova has them; an error once its agent has taken over';
