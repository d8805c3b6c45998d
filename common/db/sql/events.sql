-- Record every change of a device that no claim causes. A claim's changes are in claim_events already, so claims write
-- nothing more for events.

-- The status that the device would have if no claim held anything of its tree, and why.
CREATE OR REPLACE FUNCTION own_status(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'removed'
                ELSE derived_status(_d.offered, _d.present, coalesce(_d.drained_reason, _d.unusable_reason),
                                    NULL) END
$$;

CREATE OR REPLACE FUNCTION own_reason(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'its host no longer reports it'
                WHEN NOT _d.offered THEN 'no device_spec entry of its host matches it'
                WHEN _d.drained_reason IS NOT NULL THEN 'port drained: ' || _d.drained_reason
                WHEN _d.unusable_reason IS NOT NULL THEN _d.unusable_reason
                WHEN NOT _d.present THEN 'its host does not report it now'
                ELSE 'its host reports it as usable' END
$$;

-- Claims and releases write none of the columns of the second trigger, so it costs them nothing.
CREATE OR REPLACE FUNCTION record_new_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_events (device_id, to_status, cause)
    SELECT d.id, own_status(d), own_reason(d) FROM new_devices d ORDER BY d.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER record_new_devices AFTER INSERT ON pci_devices
    REFERENCING NEW TABLE AS new_devices
    FOR EACH STATEMENT EXECUTE FUNCTION record_new_devices();

CREATE OR REPLACE FUNCTION record_changed_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (own_status(OLD), own_reason(OLD)) IS DISTINCT FROM (own_status(NEW), own_reason(NEW)) THEN
        INSERT INTO device_events (device_id, from_status, to_status, cause)
        VALUES (NEW.id, own_status(OLD), own_status(NEW), own_reason(NEW));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER record_changed_device
    AFTER UPDATE OF offered, present, drained_reason, unusable_reason ON pci_devices
    FOR EACH ROW EXECUTE FUNCTION record_changed_device();

-- Publishing. A change is recorded while its claim or device is locked, so the ids of one claim's events are in the
-- order of its changes. Ids of different claims are not committed in their order: a higher id may be visible before a
-- lower one. event_gaps lists the ids that were missing when a higher one was published. They are read first.
--
-- plpgsql plans these statements once per connection, perhaps while the tables are empty. Then all indexes look the same
-- to PostgreSQL, and a plan that reads a whole index stays for as long as the connection. So they look up row by row,
-- in subqueries that are not turned into joins, and what only the primary key can answer: the first row from an id on.
CREATE OR REPLACE FUNCTION unpublished_claim_events(_limit integer)
RETURNS TABLE (id bigint, host text, to_status text, claim_id uuid, body text) LANGUAGE plpgsql STRICT AS $$
#variable_conflict use_column
DECLARE
    _last_id bigint := (SELECT last_id FROM event_cursors WHERE kind = 'claim');
BEGIN
    RETURN QUERY
    WITH new AS MATERIALIZED (
        SELECT e.*
          FROM event_gaps g
         CROSS JOIN LATERAL (SELECT * FROM claim_events WHERE id >= g.id ORDER BY id LIMIT 1) e
         WHERE g.kind = 'claim' AND e.id = g.id
         UNION ALL
       (SELECT * FROM claim_events WHERE id > _last_id ORDER BY id LIMIT _limit)
    ), changed AS MATERIALIZED ( -- once for each claim, however often it has changed
        SELECT c.id, c.instance_id,
               (SELECT host FROM compute_nodes WHERE id = c.compute_node_id) AS host,
               coalesce((SELECT json_agg(json_build_object(
                                    'address', (SELECT address FROM pci_devices WHERE id = held.device_id),
                                    'dev_type', (SELECT dev_type FROM pools WHERE id = held.pool_id)))
                           FROM (SELECT * FROM claim_devices cd
                                  WHERE cd.claim_id = c.id
                                  ORDER BY cd.request_index, cd.device_id) held), '[]') AS devices
          FROM (SELECT DISTINCT claim_id FROM new) n
         CROSS JOIN LATERAL (SELECT * FROM claims WHERE id >= n.claim_id ORDER BY id LIMIT 1) c
         WHERE c.id = n.claim_id
    )
    SELECT e.id, c.host, e.to_status, e.claim_id, json_build_object(
               'version', 1, 'id', 'claim-' || e.id, 'at', e.at, 'kind', 'claim', 'host', c.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', e.claim_id, 'instance_id', c.instance_id, 'devices', c.devices)::text
      FROM new e
      JOIN changed c ON c.id = e.claim_id
     ORDER BY e.id;
END $$;
COMMENT ON FUNCTION unpublished_claim_events IS
    'so many of the oldest events of claims after the last published one, and every gap that has been filled';

CREATE OR REPLACE FUNCTION unpublished_device_events(_limit integer)
RETURNS TABLE (id bigint, host text, to_status text, claim_id uuid, body text) LANGUAGE plpgsql STRICT AS $$
#variable_conflict use_column
DECLARE
    _last_id bigint := (SELECT last_id FROM event_cursors WHERE kind = 'device');
BEGIN
    RETURN QUERY
    WITH new AS MATERIALIZED (
        SELECT e.*
          FROM event_gaps g
         CROSS JOIN LATERAL (SELECT * FROM device_events WHERE id >= g.id ORDER BY id LIMIT 1) e
         WHERE g.kind = 'device' AND e.id = g.id
         UNION ALL
       (SELECT * FROM device_events WHERE id > _last_id ORDER BY id LIMIT _limit)
    ), changed AS MATERIALIZED (
        SELECT e.*, d.address, d.dev_type, (SELECT host FROM compute_nodes WHERE id = d.compute_node_id) AS host
          FROM new e
         CROSS JOIN LATERAL (SELECT * FROM pci_devices WHERE id >= e.device_id ORDER BY id LIMIT 1) d
         WHERE d.id = e.device_id
    )
    SELECT e.id, e.host, e.to_status, NULL::uuid, json_build_object(
               'version', 1, 'id', 'device-' || e.id, 'at', e.at, 'kind', 'device', 'host', e.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', null, 'instance_id', null,
               'devices', json_build_array(json_build_object('address', e.address, 'dev_type', e.dev_type)))::text
      FROM changed e
     ORDER BY e.id;
END $$;
COMMENT ON FUNCTION unpublished_device_events IS
    'so many of the oldest events of devices after the last published one, and every gap that has been filled';

-- If the transaction gets its id here, it is higher than the id of every transaction that may still fill a gap.
CREATE OR REPLACE FUNCTION mark_events_published(_claim_ids bigint[], _device_ids bigint[], _settled xid8)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM event_gaps
     WHERE horizon <= _settled
        OR kind = 'claim' AND id = ANY(_claim_ids)
        OR kind = 'device' AND id = ANY(_device_ids);
    IF cardinality(_claim_ids) > 0 THEN
        PERFORM move_event_cursor('claim', _claim_ids);
    END IF;
    IF cardinality(_device_ids) > 0 THEN
        PERFORM move_event_cursor('device', _device_ids);
    END IF;
END $$;
COMMENT ON FUNCTION mark_events_published IS
    'record that events were published, and give up the gaps that were recorded before every transaction that still runs';

CREATE OR REPLACE FUNCTION move_event_cursor(_kind text, _ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _last_id bigint := (SELECT last_id FROM event_cursors WHERE kind = _kind);
    _newest bigint := (SELECT max(id) FROM unnest(_ids) AS id);
BEGIN
    IF _newest > _last_id THEN
        UPDATE event_cursors SET last_id = _newest WHERE kind = _kind;
        INSERT INTO event_gaps (kind, id)
        SELECT _kind, id FROM generate_series(_last_id + 1, _newest) AS id
        EXCEPT ALL
        SELECT _kind, id FROM unnest(_ids) AS id;
    END IF;
END $$;
COMMENT ON FUNCTION move_event_cursor IS
    'let the cursor of published events point to the newest of these, and record the ids before it that are missing';
