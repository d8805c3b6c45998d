-- What the conductor asks when an agent reports its inventory or answers.

CREATE OR REPLACE FUNCTION host_of_agent(_host text, _agent_id uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _id bigint;
    _owner uuid;
BEGIN
    SELECT id, agent_id INTO _id, _owner FROM compute_nodes WHERE host = _host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format(
            'host %s is unknown: its agent must report its inventory first', _host);
    ELSIF _owner <> _agent_id THEN
        RAISE EXCEPTION USING ERRCODE = 'PC403', MESSAGE = format(
            'another agent reports for host %s: set another [DEFAULT] host for one of the two, or stop it',
            _host);
    END IF;
    RETURN _id;
END $$;
COMMENT ON FUNCTION host_of_agent IS 'the id of the host that this agent reports for, or an error';

CREATE OR REPLACE FUNCTION has_missing_device(_node_id bigint, _port_ids bigint[])
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pci_devices
                    WHERE compute_node_id = _node_id AND NOT present AND status <> 'removed'
                      AND coalesce(parent_id, id) = ANY(_port_ids))
$$;
COMMENT ON FUNCTION has_missing_device IS 'did the last report of the host not list a device of these trees?';

-- Reports
--
-- A report locks its host, and then the trees that it changes, in the order of their ports' ids. Only reports of the same
-- host write what a device is, so that can be read before its tree is locked. Whether a claim holds it cannot.
--
-- A report may have two devices or ten thousand, and the planner cannot know. A connection also keeps its plans while the
-- tables grow. Therefore the two sets of devices are joined by FULL JOIN, which is never a nested loop, and a row is
-- looked up where the planner has only one index to choose: by an array of ids, or in a subquery that stays one.

CREATE OR REPLACE FUNCTION report_inventory(
    _host text, _agent_id uuid, _agent_down_after double precision, _digest text, _base_digest text,
    _devices jsonb, _gone text[], _numa_cells jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint;
    _known_digest text;
    _changed jsonb;
    _missing bigint[];
BEGIN
    UPDATE compute_nodes SET last_seen = now()
     WHERE host = _host AND agent_id = _agent_id AND inventory_digest = _digest;
    IF FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO compute_nodes AS n (host, agent_id) VALUES (_host, _agent_id)
        ON CONFLICT (host) DO UPDATE SET agent_id = EXCLUDED.agent_id, last_seen = now()
     WHERE n.agent_id = EXCLUDED.agent_id OR n.last_seen < now() - make_interval(secs => _agent_down_after)
    RETURNING id, inventory_digest INTO _node_id, _known_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC403', MESSAGE = format(
            'another agent that is alive reports for host %s: set another [DEFAULT] host for one of the two, or stop it',
            _host);
    ELSIF _known_digest = _digest THEN -- the same report came at the same time
        RETURN false;
    ELSIF _devices IS NULL OR _base_digest <> coalesce(_known_digest, '') THEN
        RETURN true;
    END IF;

    IF _base_digest IS NULL THEN
        SELECT d.changed, d.missing INTO _changed, _missing FROM difference_to_report(_node_id, _devices) d;
        PERFORM apply_changes(_node_id, _changed, _missing, false);
    ELSE
        _missing := ARRAY(SELECT id FROM devices_at(_node_id, _gone) WHERE status <> 'removed');
        BEGIN
            PERFORM apply_changes(_node_id, _devices, _missing, true);
        EXCEPTION
            WHEN SQLSTATE 'PC000' THEN RETURN true; -- what apply_changes has written is undone
        END;
    END IF;
    UPDATE compute_nodes SET inventory_digest = _digest, numa_cells = _numa_cells, inventoried_at = now()
     WHERE id = _node_id;
    RETURN false;
END $$;
COMMENT ON FUNCTION report_inventory IS
    'apply an agent''s report, or note its sign of life; true: it is not applied, and a full report is wanted';

-- A host that is locked is left out: its agent is reporting, or shows life again soon. A signed sign of life that is
-- older than the last report or sign of its host changes nothing: somebody may have sent it again.
CREATE OR REPLACE FUNCTION record_signs_of_life(
    _hosts text[], _agent_ids uuid[], _digests text[], _numbers bigint[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    _fitting bigint[];
    _fitting_numbers bigint[];
    _others text[];
BEGIN
    SELECT array_agg(n.id) FILTER (WHERE n.id IS NOT NULL), array_agg(sign.number) FILTER (WHERE n.id IS NOT NULL),
           array_agg(sign.host) FILTER (WHERE n.id IS NULL)
      INTO _fitting, _fitting_numbers, _others
      FROM unnest(_hosts, _agent_ids, _digests, _numbers) AS sign (host, agent_id, digest, number)
      LEFT JOIN LATERAL (SELECT id FROM compute_nodes
                          WHERE host = sign.host AND agent_id = sign.agent_id AND inventory_digest = sign.digest
                         OFFSET 0) n ON true;
    UPDATE compute_nodes n SET last_seen = now(), last_number = coalesce(sign.number, n.last_number)
      FROM unnest(_fitting, _fitting_numbers) AS sign (id, number)
     WHERE n.id = sign.id
       AND n.id = ANY(ARRAY(SELECT id FROM compute_nodes WHERE id = ANY(_fitting) ORDER BY id
                               FOR NO KEY UPDATE SKIP LOCKED))
       AND (sign.number IS NULL OR n.last_number IS NULL OR n.last_number < sign.number);
    RETURN coalesce(_others, '{}');
END $$;
COMMENT ON FUNCTION record_signs_of_life IS
    'note that these agents live; answers the hosts whose inventory or agent is another, so that a report is wanted';

CREATE OR REPLACE FUNCTION devices_at(_node_id bigint, _addresses text[])
RETURNS SETOF pci_devices LANGUAGE sql STABLE AS $$
    SELECT d.*
      FROM unnest(_addresses) AS wanted (address)
     CROSS JOIN LATERAL (SELECT * FROM pci_devices
                          WHERE compute_node_id = _node_id AND address = wanted.address
                         OFFSET 0) d -- OFFSET 0 keeps the subquery
$$;
COMMENT ON FUNCTION devices_at IS 'the devices of a host at these addresses';

CREATE OR REPLACE FUNCTION difference_to_report(_node_id bigint, _devices jsonb, OUT changed jsonb, OUT missing bigint[])
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pci_devices WHERE compute_node_id = _node_id) THEN
        changed := _devices;
        missing := '{}';
        RETURN;
    END IF;
    SELECT coalesce(jsonb_agg(r.device ORDER BY r.place) FILTER (WHERE r.address IS NOT NULL), '[]'),
           coalesce(array_agg(d.id) FILTER (WHERE r.address IS NULL), '{}')
      INTO changed, missing
      FROM ROWS FROM (
               jsonb_array_elements(_devices),
               jsonb_to_recordset(_devices) AS (
                   address text, dev_type text, vendor_id text, product_id text, numa_node integer,
                   parent_address text, offered boolean, unusable_reason text, tags jsonb, attributes jsonb)
           ) WITH ORDINALITY AS r (device, address, dev_type, vendor_id, product_id, numa_node,
                                   parent_address, offered, unusable_reason, tags, attributes, place)
      FULL JOIN (SELECT * FROM pci_devices WHERE compute_node_id = _node_id AND status <> 'removed') d
        ON d.address = r.address
     WHERE r.address IS NULL OR d.id IS NULL OR NOT d.present
        OR (d.dev_type, d.numa_node, d.offered, d.unusable_reason, d.attributes)
           IS DISTINCT FROM (r.dev_type, r.numa_node, r.offered, r.unusable_reason, r.attributes)
        OR r.parent_address IS DISTINCT FROM (SELECT pf.address FROM pci_devices pf WHERE pf.id = d.parent_id)
        OR (SELECT (p.vendor_id, p.product_id, p.tags) IS DISTINCT FROM (r.vendor_id, r.product_id, r.tags)
              FROM pools p WHERE p.id = d.pool_id);
END $$;
COMMENT ON FUNCTION difference_to_report IS
    'the devices of a full report that are new or changed, and those of its host that it does not list';

-- _is_partial: the agent says what has changed since its last report, and not what its VFs' PFs are. If a VF would be left
-- without a PF, nothing is applied (PC000).
CREATE OR REPLACE FUNCTION apply_changes(_node_id bigint, _devices jsonb, _missing bigint[], _is_partial boolean)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _listed text[];
    _parents text[];
    _held_as_others text[];
    _were_ports bigint[];
    _are_ports bigint[];
BEGIN
    SELECT coalesce(array_agg(r.address), '{}'),
           coalesce(array_agg(DISTINCT r.parent_address) FILTER (WHERE r.parent_address IS NOT NULL), '{}')
      INTO _listed, _parents
      FROM jsonb_to_recordset(_devices) AS r (address text, parent_address text);
    _were_ports := ARRAY(
        SELECT coalesce(parent_id, id) FROM devices_at(_node_id, _listed || _parents)
         UNION
        SELECT coalesce(parent_id, id) FROM pci_devices WHERE id = ANY(_missing));
    PERFORM FROM pci_devices WHERE id = ANY(_were_ports) ORDER BY id FOR UPDATE;

    -- A VF cannot have a parent that a claim holds as something other than a PF. Such a VF counts as not reported until
    -- the parent is free: then a full report is asked for.
    _held_as_others := ARRAY(SELECT address FROM devices_at(_node_id, _parents)
                              WHERE dev_type <> 'type-PF' AND NOT unheld);
    IF _held_as_others <> '{}' THEN
        SELECT coalesce(jsonb_agg(device), '[]') INTO _devices
          FROM jsonb_array_elements(_devices) device
         WHERE (device ->> 'parent_address' = ANY(_held_as_others)) IS NOT TRUE;
        _missing := _missing || ARRAY(
            SELECT id FROM devices_at(_node_id, _listed)
             WHERE status <> 'removed'
               AND address NOT IN (SELECT device ->> 'address' FROM jsonb_array_elements(_devices) device));
    END IF;

    PERFORM mark_missing(_were_ports, _devices, _missing);
    PERFORM add_pools(_devices);
    -- A report may change a PF into another type and give its VFs another parent. The tree must be right at the end.
    SET CONSTRAINTS parent_is_a_pf_of_the_same_host DEFERRED;
    PERFORM write_devices(_node_id, _devices, false);
    PERFORM write_devices(_node_id, _devices, true);

    _are_ports := ARRAY(
        SELECT id FROM pci_devices WHERE id = ANY(_were_ports) AND parent_id IS NULL
         UNION
        SELECT id FROM devices_at(_node_id, _listed) WHERE parent_id IS NULL);
    IF _is_partial AND (
        EXISTS (SELECT FROM pci_devices
                 WHERE id = ANY(_were_ports) AND (dev_type <> 'type-PF' OR status = 'removed') AND count_vfs(id) > 0)
        OR EXISTS (SELECT unnest(_parents)
                   EXCEPT
                   SELECT address FROM devices_at(_node_id, _parents)
                    WHERE dev_type = 'type-PF' AND status <> 'removed')) THEN
        RAISE EXCEPTION USING ERRCODE = 'PC000', MESSAGE = 'a VF has no PF';
    END IF;
    UPDATE pci_devices SET vfs = count_vfs(id)
     WHERE id = ANY(_were_ports || _are_ports) AND vfs <> count_vfs(id);
    PERFORM refresh_port_pools(ARRAY(SELECT unnest(_were_ports) EXCEPT SELECT unnest(_are_ports)));
    PERFORM update_tree_statuses(_are_ports);
END $$;
COMMENT ON FUNCTION apply_changes IS
    'write devices of a locked host as they were reported, and that others are missing; locks their trees';

CREATE OR REPLACE FUNCTION count_vfs(_port_id bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM pci_devices WHERE parent_id = _port_id AND status <> 'removed'
$$;

-- Held devices are never removed. Nor are the VFs of a held PF, which do not exist on the host while a guest has the
-- PF, or of a PF that its agent reports as unusable. VFs that were missing before are judged again with their port.
CREATE OR REPLACE FUNCTION mark_missing(_port_ids bigint[], _devices jsonb, _missing bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _absent bigint[] := _missing || ARRAY(
        SELECT id FROM pci_devices
         WHERE parent_id = ANY(_port_ids) AND NOT present AND status <> 'removed'
           AND address NOT IN (SELECT device ->> 'address' FROM jsonb_array_elements(_devices) AS device));
    _stay bigint[] := ARRAY(
        WITH listed AS MATERIALIZED (
            SELECT r.address, r.dev_type = 'type-PF' AND r.unusable_reason IS NOT NULL AS is_unusable_pf
              FROM jsonb_to_recordset(_devices) AS r (address text, dev_type text, unusable_reason text)
        )
        SELECT d.id
          FROM pci_devices d
          LEFT JOIN LATERAL (SELECT * FROM pci_devices WHERE id = d.parent_id OFFSET 0) pf ON true
         WHERE d.id = ANY(_absent)
           AND (NOT d.unheld
                OR NOT pf.unheld
                OR CASE WHEN pf.address IN (SELECT address FROM listed)
                        THEN pf.address IN (SELECT address FROM listed WHERE is_unusable_pf)
                        ELSE pf.dev_type = 'type-PF' AND pf.unusable_reason IS NOT NULL
                             AND pf.id NOT IN (SELECT unnest(_missing)) END
                OR (SELECT true FROM pci_devices vf
                     WHERE vf.parent_id = d.id AND vf.status IN ('claimed', 'allocated') LIMIT 1)));
BEGIN
    UPDATE pci_devices SET present = false WHERE id = ANY(_stay) AND present;
    UPDATE pci_devices SET present = false, status = 'removed'
     WHERE id = ANY(ARRAY(SELECT unnest(_absent) EXCEPT SELECT unnest(_stay)));
END $$;
COMMENT ON FUNCTION mark_missing IS 'record that a report does not list these devices of locked trees';

-- Ordered, so that two hosts that report the same new pools cannot deadlock.
CREATE OR REPLACE FUNCTION add_pools(_devices jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pools (dev_type, vendor_id, product_id, tags)
    SELECT *
      FROM (SELECT DISTINCT * FROM jsonb_to_recordset(_devices)
                AS r (dev_type text, vendor_id text, product_id text, tags jsonb)) r
     WHERE (SELECT true FROM pools p
             WHERE (p.dev_type, p.vendor_id, p.product_id, p.tags)
                 = (r.dev_type, r.vendor_id, r.product_id, r.tags)) IS NULL
     ORDER BY dev_type, vendor_id, product_id, tags
        ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION add_pools IS 'add the pools of these reported devices that are new';

-- The parent, pool and type of a held device do not change while it is held. If the report says otherwise, the device
-- counts as not present: once it is free, it is not handed out, and a full report is asked for.
CREATE OR REPLACE FUNCTION write_devices(_node_id bigint, _devices jsonb, _are_vfs boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pci_devices AS d (compute_node_id, parent_id, pool_id, numa_node, offered, present, address, dev_type,
                                  status, drained_reason, reserved_for, unusable_reason, attributes)
    SELECT _node_id, pf.id,
           (SELECT p.id FROM pools p
             WHERE (p.dev_type, p.vendor_id, p.product_id, p.tags)
                 = (r.dev_type, r.vendor_id, r.product_id, r.tags)),
           r.numa_node, r.offered, true, r.address, r.dev_type,
           derived_status(r.offered, true, coalesce(pf.reserved_for::text, pf.drained_reason, r.unusable_reason),
                          pf.status),
           pf.drained_reason, pf.reserved_for, r.unusable_reason, r.attributes
      FROM jsonb_to_recordset(_devices) AS r (
               address text, dev_type text, vendor_id text, product_id text, numa_node integer,
               parent_address text, offered boolean, unusable_reason text, tags jsonb, attributes jsonb)
      LEFT JOIN LATERAL (SELECT * FROM pci_devices
                          WHERE compute_node_id = _node_id AND address = r.parent_address
                         OFFSET 0) pf ON true
     WHERE (r.dev_type = 'type-VF') = _are_vfs AND (pf.id IS NOT NULL) = _are_vfs
        ON CONFLICT (compute_node_id, address) DO UPDATE
       SET (parent_id, pool_id, dev_type, drained_reason, reserved_for, present) = (
               SELECT CASE WHEN it.is_free THEN EXCLUDED.parent_id ELSE d.parent_id END,
                      CASE WHEN it.is_free THEN EXCLUDED.pool_id ELSE d.pool_id END,
                      CASE WHEN it.is_free THEN EXCLUDED.dev_type ELSE d.dev_type END,
                      -- A VF takes over whether the port of its new parent is drained or reserved.
                      CASE WHEN it.is_free AND _are_vfs THEN EXCLUDED.drained_reason ELSE d.drained_reason END,
                      CASE WHEN it.is_free AND _are_vfs THEN EXCLUDED.reserved_for ELSE d.reserved_for END,
                      it.is_free OR (d.parent_id, d.pool_id, d.dev_type)
                                    IS NOT DISTINCT FROM (EXCLUDED.parent_id, EXCLUDED.pool_id, EXCLUDED.dev_type)
                 FROM (SELECT d.unheld AND (SELECT true FROM pci_devices vf
                                             WHERE vf.parent_id = d.id AND vf.status IN ('claimed', 'allocated')
                                             LIMIT 1) IS NULL AS is_free) it),
           status = CASE WHEN d.status = 'removed' THEN 'unavailable' ELSE d.status END,
           numa_node = EXCLUDED.numa_node,
           offered = EXCLUDED.offered,
           unusable_reason = EXCLUDED.unusable_reason,
           attributes = known_attributes(d.unheld, d.attributes, EXCLUDED.attributes)
     WHERE d.status = 'removed'
        OR (d.parent_id, d.pool_id, d.dev_type, d.numa_node, d.offered, d.present, d.unusable_reason, d.attributes)
           IS DISTINCT FROM
           (EXCLUDED.parent_id, EXCLUDED.pool_id, EXCLUDED.dev_type, EXCLUDED.numa_node, EXCLUDED.offered, true,
            EXCLUDED.unusable_reason, known_attributes(d.unheld, d.attributes, EXCLUDED.attributes));
END $$;
COMMENT ON FUNCTION write_devices IS 'write the VFs, or all other devices, of a report; update_tree_statuses must follow';

-- A host does not see the MAC of a PF that is prepared for an instance: such a PF has no network interface.
CREATE OR REPLACE FUNCTION known_attributes(_unheld boolean, _known jsonb, _reported jsonb)
RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _unheld OR _reported ->> 'mac' IS NOT NULL THEN _reported
                ELSE _reported || jsonb_strip_nulls(jsonb_build_object('mac', _known -> 'mac')) END
$$;
