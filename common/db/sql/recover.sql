-- After a restore: take a claim back that an agent holds devices for, and that the database does not know any more.

-- _devices: address of each device, and the index of the request that it is for. The host is locked before its trees,
-- in the order of a report. The same again changes nothing.
CREATE OR REPLACE FUNCTION recover_claim(
    _claim_id uuid, _instance_id uuid, _host text, _step integer, _request jsonb, _devices jsonb, _cause text
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint;
    _port_ids bigint[];
    _unfit text;
BEGIN
    SELECT id INTO _node_id FROM compute_nodes WHERE host = _host FOR NO KEY UPDATE;
    IF _node_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format('host %s is not known', _host);
    END IF;
    IF EXISTS (SELECT FROM claims WHERE id = _claim_id) THEN
        IF EXISTS (SELECT FROM claims WHERE id = _claim_id AND instance_id = _instance_id
                      AND compute_node_id = _node_id AND live) THEN
            RETURN claim_as_json(_claim_id);
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'claim %s is known, so there is nothing to recover: its status says what becomes of it', _claim_id);
    END IF;
    SELECT array_agg(DISTINCT coalesce(parent_id, id)) INTO _port_ids
      FROM pci_devices WHERE compute_node_id = _node_id AND _devices ? address;
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    SELECT string_agg(format('%s %s', wanted.address, CASE
               WHEN d.id IS NULL OR d.status = 'removed' THEN 'is not in the inventory'
               ELSE format('is held by claim %s', coalesce(d.claim_id, partner.claim_id)) END), ', ') INTO _unfit
      FROM jsonb_object_keys(_devices) AS wanted (address)
      LEFT JOIN pci_devices d ON d.compute_node_id = _node_id AND d.address = wanted.address
      LEFT JOIN LATERAL (
           SELECT claim_id FROM pci_devices
            WHERE (id = d.parent_id OR parent_id = d.id) AND claim_id IS NOT NULL LIMIT 1) partner ON true
     WHERE d.id IS NULL OR d.status = 'removed' OR d.claim_id IS NOT NULL OR partner.claim_id IS NOT NULL;
    IF _unfit IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'claim %s cannot be recovered on %s: %s. End what holds the device first', _claim_id, _host, _unfit);
    END IF;

    INSERT INTO claims (id, instance_id, compute_node_id, status, step, request, first_device_id)
    SELECT _claim_id, _instance_id, _node_id, 'allocated', _step, _request, min(id)
      FROM pci_devices WHERE compute_node_id = _node_id AND _devices ? address;
    WITH taken AS (
        UPDATE pci_devices SET status = 'allocated', claim_id = _claim_id
         WHERE compute_node_id = _node_id AND _devices ? address
        RETURNING id, pool_id, address
    )
    INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
    SELECT _claim_id, id, pool_id, (_devices ->> address)::integer FROM taken;
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (_claim_id, NULL, 'claimed', _cause), (_claim_id, 'claimed', 'allocated', _cause);
    PERFORM update_tree_statuses(_port_ids);
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION recover_claim IS
    'take back an allocated claim that the agent of its host knows and the database does not; the claim';
