-- Claim devices: lock the trees, check, write. Each function is one round trip, so that no lock is held while a
-- message travels between the scheduler and PostgreSQL. The scheduler chooses which ports to try.

CREATE OR REPLACE FUNCTION claim_as_json(_claim_id uuid) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_build_object(
               'claim_id', c.id, 'instance_id', c.instance_id, 'status', c.status,
               'host', (SELECT host FROM compute_nodes WHERE id = c.compute_node_id),
               'reason', c.reason, 'step', c.step, 'created_at', c.created_at, 'updated_at', c.updated_at,
               'attach', c.attach, 'guest_deadline', c.guest_deadline,
               'devices', (
                   SELECT coalesce(json_agg(json_build_object(
                              'address', d.address, 'dev_type', p.dev_type, 'vendor_id', p.vendor_id,
                              'product_id', p.product_id, 'numa_node', d.numa_node, 'status', d.status,
                              'parent_address', pf.address, 'request_index', cd.request_index,
                              'tags', p.tags, 'trusted', lower(p.tags ->> 'trusted') = 'true',
                              'vf_num', CASE jsonb_typeof(d.attributes -> 'vf_num') -- an attribute may have any type
                                        WHEN 'number' THEN d.attributes -> 'vf_num' END,
                              'pf_mac_address', port.attributes ->> 'mac',
                              'pf_netdev', port.attributes ->> 'netdev',
                              'card_serial_number',
                              coalesce(d.attributes ->> 'serial', pf.attributes ->> 'serial'),
                              'network_settings', cd.network_settings)
                              ORDER BY cd.request_index, d.id), '[]')
                     FROM claim_devices cd
                     JOIN pci_devices d ON d.id = cd.device_id
                     JOIN pools p ON p.id = cd.pool_id
                     LEFT JOIN pci_devices pf ON pf.id = d.parent_id
                    CROSS JOIN LATERAL (
                          SELECT coalesce(pf.attributes, CASE p.dev_type WHEN 'type-PF' THEN d.attributes END)
                                 AS attributes) port
                    WHERE cd.claim_id = c.id))
      FROM claims c
     WHERE c.id = _claim_id
); END $$;
COMMENT ON FUNCTION claim_as_json IS 'the claim with its devices, as RPC answers carry it; null: there is none';

CREATE OR REPLACE FUNCTION existing_claim(_claim_id uuid, _request jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _same boolean;
BEGIN
    SELECT request = _request INTO _same FROM claims WHERE id = _claim_id;
    IF _same THEN
        RETURN claim_as_json(_claim_id);
    ELSIF NOT _same THEN
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'claim id %s is already used for another request: choose a new id', _claim_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION existing_claim IS 
    'the claim with this id; null: there is none; an error if the id belongs to another request';

-- A claimed PF makes its VFs unclaimable, a claimed VF its PF. Nothing else changes by itself.
CREATE OR REPLACE FUNCTION take_partners(_begun_ports bigint[], _whole_devices bigint[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF _begun_ports IS NOT NULL THEN
        UPDATE pci_devices SET status = 'unclaimable' WHERE id = ANY(_begun_ports) AND status = 'available';
    END IF;
    IF _whole_devices IS NOT NULL THEN
        UPDATE pci_devices SET status = 'unclaimable'
         WHERE parent_id = ANY(_whole_devices) AND status = 'available';
        UPDATE port_pools SET free = 0 WHERE port_id = ANY(_whole_devices);
    END IF;
END $$;
COMMENT ON FUNCTION take_partners IS
    'mark the tree partners of devices that were claimed: PFs of which a first VF was, and what was claimed whole';

-- The caller has checked that the devices are available and has locked their trees.
CREATE OR REPLACE FUNCTION write_claim(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[]
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _count integer;
    _begun_ports bigint[];
    _whole_devices bigint[];
    _before text;
    _attach text := coalesce(_request ->> 'attach', 'auto');
BEGIN
    INSERT INTO claims (id, instance_id, compute_node_id, request, first_device_id, attach)
    SELECT _claim_id, _instance_id, compute_node_id, _request, id, _attach
      FROM pci_devices WHERE id = _device_ids[1]
        ON CONFLICT DO NOTHING; -- on any index: if one were named, the others could still raise an error
    IF NOT FOUND THEN -- another call with this id was first, or the claim has waited and is served now
        UPDATE claims c
           SET status = 'claimed', compute_node_id = d.compute_node_id, first_device_id = d.id,
               reason = NULL, created_at = now(), updated_at = now()
          FROM pci_devices d
         WHERE c.id = _claim_id AND c.status = 'waiting' AND d.id = _device_ids[1]
           AND NOT EXISTS (SELECT FROM waiting_claims WHERE id = _claim_id)
        RETURNING 'waiting', c.attach INTO _before, _attach;
        IF NOT FOUND THEN
            RETURN existing_claim(_claim_id, _request);
        END IF;
    END IF;
    IF _request ->> 'project' IS NOT NULL AND lock_quota_use(_request ->> 'project') THEN
        PERFORM change_quota_use(
            _request,
            ARRAY(SELECT d.pool_id FROM unnest(_device_ids) WITH ORDINALITY AS chosen (id, place)
                    JOIN pci_devices d USING (id) ORDER BY place),
            _request_indexes, 0, 1);
    END IF;

    WITH taken AS (
        UPDATE pci_devices SET status = 'claimed', claim_id = _claim_id
         WHERE id = ANY(_device_ids) AND status = 'available'
        RETURNING id, parent_id, pool_id
    ), history AS (
        INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
        SELECT _claim_id, id, pool_id, _request_indexes[array_position(_device_ids, id)] FROM taken
    ), room AS (
        UPDATE port_pools pp
           SET held = held + (SELECT count(*) FROM taken WHERE parent_id = pp.port_id),
               free = free - (SELECT count(*) FROM taken
                               WHERE parent_id = pp.port_id AND pool_id = pp.pool_id)
         WHERE port_id = ANY(ARRAY(SELECT parent_id FROM taken))
    ), step AS (
        INSERT INTO outbox (claim_id, step, action, sends, send_after, traceparent)
        VALUES (_claim_id, 1, CASE _attach WHEN 'auto' THEN 'attach' ELSE 'prepare' END, 1,
                now() + make_interval(secs => _resend_after), trace_of(_claim_id))
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _before, 'claimed', CASE WHEN _before IS NULL THEN 'claim' ELSE 'served' END)
    )
    SELECT count(*),
           array_agg(parent_id) FILTER (
               WHERE 'available' = (SELECT status FROM pci_devices pf WHERE pf.id = taken.parent_id)),
           array_agg(id) FILTER (WHERE parent_id IS NULL)
      INTO _count, _begun_ports, _whole_devices
      FROM taken;
    IF _count < cardinality(_device_ids) THEN
        RAISE serialization_failure USING MESSAGE = 'a device changed although its tree was locked';
    END IF;

    PERFORM take_partners(_begun_ports, _whole_devices);
    PERFORM write_network_settings(_claim_id, _request);
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION write_claim IS 'write a claim of these devices, which are available and locked';

CREATE OR REPLACE FUNCTION claim_on_locked_port(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _count integer, _pool_ids integer[], _port_id bigint
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    -- The port itself, if its pool is asked for, or else VFs of it.
    _device_ids bigint[] := ARRAY(
        SELECT id FROM pci_devices
         WHERE id = _port_id AND status = 'available' AND pool_id = ANY(_pool_ids)
         UNION ALL
        (SELECT id FROM pci_devices
          WHERE parent_id = _port_id AND status = 'available' AND pool_id = ANY(_pool_ids)
          ORDER BY id LIMIT _count));
BEGIN
    IF cardinality(_device_ids) <> _count THEN
        RETURN NULL;
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after,
                       _device_ids, array_fill(0, ARRAY[_count]));
END $$;
COMMENT ON FUNCTION claim_on_locked_port IS
    'claim devices of one request on this locked port; null: it has too few available ones';

-- The most frequent claim. With _wait, only the first port is tried: a transaction that waits for a port's lock
-- must hold no other port's.
CREATE OR REPLACE FUNCTION claim_on_one_port(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _count integer, _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _port_id bigint;
    _claim json;
BEGIN
    FOREACH _port_id IN ARRAY _port_ids LOOP
        IF _wait THEN
            PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE;
        ELSE
            PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
        END IF;
        _claim := claim_on_locked_port(
            _claim_id, _instance_id, _request, _resend_after, _count, _pool_ids, _port_id);
        IF _claim IS NOT NULL THEN
            RETURN _claim;
        END IF;
        EXIT WHEN _wait;
    END LOOP;
    RETURN existing_claim(_claim_id, _request);
END $$;
COMMENT ON FUNCTION claim_on_one_port IS
    'claim devices of one request on the first of these ports that has them; null: none has';

-- Every other claim. A device must still be in the pool and on the port that it was chosen for.
CREATE OR REPLACE FUNCTION claim_chosen_devices(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _found integer;
    _claim json := existing_claim(_claim_id, _request);
BEGIN
    IF _claim IS NOT NULL THEN
        RETURN _claim;
    END IF;
    IF _wait THEN
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    ELSE
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE SKIP LOCKED;
        GET DIAGNOSTICS _found = ROW_COUNT;
        IF _found < (SELECT count(DISTINCT port_id) FROM unnest(_port_ids) AS port_id) THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM FROM pci_devices d
      JOIN unnest(_device_ids, _pool_ids, _port_ids) AS chosen (id, pool_id, port_id)
        ON d.id = chosen.id AND d.pool_id = chosen.pool_id AND coalesce(d.parent_id, d.id) = chosen.port_id
     WHERE d.status = 'available';
    GET DIAGNOSTICS _found = ROW_COUNT;
    IF _found < cardinality(_device_ids) THEN
        RETURN NULL;
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after, _device_ids, _request_indexes);
END $$;
COMMENT ON FUNCTION claim_chosen_devices IS
    'claim exactly these devices; null: without _wait, a tree is locked, or a device is no longer available';
