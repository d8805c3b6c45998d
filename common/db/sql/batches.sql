-- Several claims in one call and one commit. Each has its own outcome.

-- Claims that ask for the same number of devices of the same pools. _needed ports are locked without waiting, so this
-- cannot deadlock: the first of _port_ids that nobody else has locked. A claim that is missing in the answer was not
-- served here: its id is known already, a queue comes first, its project has a quota, or the ports that could be locked have too few devices. The
-- caller makes it by itself.
CREATE OR REPLACE FUNCTION claim_alike(
    _claim_ids uuid[], _instance_ids uuid[], _requests jsonb[], _resend_after double precision,
    _count integer, _pool_ids integer[], _port_ids bigint[], _needed integer, _port_by_port boolean
) RETURNS TABLE (claim_id uuid, claim json) LANGUAGE plpgsql AS $$
DECLARE
    _locked bigint[];
    _served uuid[];
    _begun_ports bigint[];
    _whole_devices bigint[];
    _taken integer;
BEGIN
    SELECT array_agg(id) INTO _locked
      FROM (SELECT pf.id
              FROM unnest(_port_ids) WITH ORDINALITY AS port (id, place)
              JOIN pci_devices pf ON pf.id = port.id
             ORDER BY port.place LIMIT _needed
               FOR UPDATE OF pf SKIP LOCKED) port;

    -- The next statement sees the devices as they are while their ports are locked. Claims are inserted in the order
    -- of their ids: another call may insert the same.
    WITH new AS (
        SELECT id, instance_id, request, row_number() OVER (ORDER BY place) AS number
          FROM unnest(_claim_ids, _instance_ids, _requests) WITH ORDINALITY AS asked (id, instance_id, request, place)
         WHERE NOT EXISTS (SELECT FROM claims WHERE claims.id = asked.id)
           AND NOT EXISTS (SELECT FROM waiting_claims WHERE requests = queue_key(asked.request))
           AND NOT EXISTS (SELECT FROM project_quotas WHERE project = asked.request ->> 'project')
    ), device AS (
        SELECT port.place, device.id, device.compute_node_id,
               (row_number() OVER (PARTITION BY port.id ORDER BY device.id) - 1) / _count AS turn
          FROM unnest(_port_ids) WITH ORDINALITY AS port (id, place)
         CROSS JOIN LATERAL (
               SELECT d.id, d.compute_node_id FROM pci_devices d
                WHERE d.id = port.id AND d.status = 'available' AND d.pool_id = ANY(_pool_ids)
                UNION ALL
              (SELECT d.id, d.compute_node_id FROM pci_devices d
                WHERE d.parent_id = port.id AND d.status = 'available' AND d.pool_id = ANY(_pool_ids)
                ORDER BY d.id LIMIT _count * cardinality(_claim_ids))) device
         WHERE port.id = ANY(_locked)
    ), share AS (
        SELECT array_agg(device.id ORDER BY device.id) AS device_ids, min(compute_node_id) AS compute_node_id,
               row_number() OVER (ORDER BY CASE WHEN _port_by_port THEN place ELSE turn END,
                                           CASE WHEN _port_by_port THEN turn ELSE place END) AS number
          FROM device
         GROUP BY place, turn
        HAVING count(*) = _count
    ), made AS (
        INSERT INTO claims (id, instance_id, compute_node_id, request, first_device_id, attach)
        SELECT new.id, new.instance_id, share.compute_node_id, new.request, share.device_ids[1],
               coalesce(new.request ->> 'attach', 'auto')
          FROM new JOIN share USING (number)
         ORDER BY new.id
            ON CONFLICT DO NOTHING
        RETURNING id, attach
    ), taken AS (
        UPDATE pci_devices d SET status = 'claimed', claim_id = wanted.claim_id
          FROM (SELECT made.id AS claim_id, unnest(share.device_ids) AS id
                  FROM made JOIN new ON new.id = made.id JOIN share USING (number)) wanted
         WHERE d.id = wanted.id AND d.status = 'available'
        RETURNING d.id, d.parent_id, d.pool_id, d.claim_id
    ), history AS (
        INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
        SELECT taken.claim_id, id, pool_id, 0 FROM taken
    ), room AS (
        UPDATE port_pools pp
           SET held = held + port.taken,
               free = free - (SELECT count(*) FROM taken
                               WHERE parent_id = pp.port_id AND taken.pool_id = pp.pool_id)
          FROM (SELECT parent_id, count(*) AS taken FROM taken GROUP BY parent_id) port
         WHERE pp.port_id = port.parent_id
    ), step AS (
        INSERT INTO outbox (claim_id, step, action, sends, send_after, traceparent)
        SELECT id, 1, CASE attach WHEN 'auto' THEN 'attach' ELSE 'prepare' END, 1,
               now() + make_interval(secs => _resend_after), trace_of(id)
          FROM made
    ), event AS (
        INSERT INTO claim_events (claim_id, to_status, cause) SELECT id, 'claimed', 'claim' FROM made
    )
    SELECT (SELECT array_agg(id) FROM made), count(*),
           array_agg(DISTINCT parent_id) FILTER (
               WHERE 'available' = (SELECT status FROM pci_devices pf WHERE pf.id = taken.parent_id)),
           array_agg(id) FILTER (WHERE parent_id IS NULL)
      INTO _served, _taken, _begun_ports, _whole_devices
      FROM taken;
    IF _taken <> _count * coalesce(cardinality(_served), 0) THEN
        RAISE serialization_failure USING MESSAGE = 'a device changed although its tree was locked';
    END IF;
    IF EXISTS (SELECT FROM unnest(_requests) AS request WHERE request ->> 'project' IS NOT NULL) THEN
        PERFORM refuse_new_quotas(_served);
    END IF;
    PERFORM take_partners(_begun_ports, _whole_devices);
    PERFORM write_network_settings(id, request)
       FROM unnest(_claim_ids, _requests) AS asked (id, request) WHERE id = ANY(_served);
    RETURN QUERY SELECT id, claim_as_json(id) FROM unnest(_served) AS id;
END $$;
COMMENT ON FUNCTION claim_alike IS
    'make claims of so many devices each on these ports; those that are served, with their claims';
