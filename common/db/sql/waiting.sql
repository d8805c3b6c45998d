-- Claims that wait in a queue, and the ports that are reserved for the head of each queue.
--
-- Claims with the same requests form a queue. Schedulers serve it in order; they listen for NOTIFY.

-- Called whenever a waiting claim may be served now. While no claim waits, this reads one empty index.
CREATE OR REPLACE FUNCTION notify_waiting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM waiting_claims) THEN
        PERFORM pg_notify('portclaim_waiting', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER notify_waiting_of_device AFTER UPDATE OF status ON pci_devices FOR EACH ROW
    WHEN (NEW.status = 'available' AND OLD.status <> 'available'
          OR NEW.reserved_for IS NOT NULL AND NEW.unheld)
    EXECUTE FUNCTION notify_waiting();

CREATE OR REPLACE FUNCTION notify_waiting_of_new_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM waiting_claims) AND EXISTS (SELECT FROM new_devices WHERE status = 'available') THEN
        PERFORM pg_notify('portclaim_waiting', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER notify_waiting_of_new_devices AFTER INSERT ON pci_devices
    REFERENCING NEW TABLE AS new_devices
    FOR EACH STATEMENT EXECUTE FUNCTION notify_waiting_of_new_devices();

CREATE OR REPLACE TRIGGER notify_waiting_of_host AFTER UPDATE OF disabled_reason ON compute_nodes FOR EACH ROW
    WHEN (NEW.disabled_reason IS NULL AND OLD.disabled_reason IS NOT NULL)
    EXECUTE FUNCTION notify_waiting();

CREATE OR REPLACE FUNCTION queue_key(_request jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT _request - '{instance_id,attach,guest_within,project}'::text[]
        || CASE WHEN _request ? 'network_settings'
                THEN jsonb_build_object('network_settings', network_kinds(_request)) ELSE '{}' END
$$;
COMMENT ON FUNCTION queue_key IS 'what a claim asks for, without its instance and project, and when the devices are attached';

CREATE OR REPLACE FUNCTION enqueue_claim(
    _claim_id uuid, _instance_id uuid, _request jsonb, _seconds double precision
) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO claims (id, instance_id, status, request, attach)
    VALUES (_claim_id, _instance_id, 'waiting', _request, coalesce(_request ->> 'attach', 'auto'))
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO waiting_claims (id, requests, deadline)
        VALUES (_claim_id, queue_key(_request), now() + make_interval(secs => _seconds));
        INSERT INTO claim_events (claim_id, to_status, cause) VALUES (_claim_id, 'waiting', 'claim');
        -- Devices may have become free after the scheduler looked: no claim waited then, so no NOTIFY was sent.
        PERFORM pg_notify('portclaim_waiting', '');
    END IF;
    RETURN existing_claim(_claim_id, _request);
END $$;
COMMENT ON FUNCTION enqueue_claim IS 'put a claim at the end of its queue for at most so many seconds';

CREATE OR REPLACE FUNCTION refuse_behind_queue(_claim_id uuid, _request jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _claim json := existing_claim(_claim_id, _request);
BEGIN
    IF _claim IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC429', MESSAGE = 'claims with the same requests are waiting in a queue';
    END IF;
    RETURN _claim;
END $$;
COMMENT ON FUNCTION refuse_behind_queue IS
    'the claim with this id; an error if there is none, because the claims in the queue come first';

-- The claim is locked before its trees, in the order of an answer to a step.
CREATE OR REPLACE FUNCTION reserve_ports(_claim_id uuid, _port_ids bigint[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _locked bigint[];
BEGIN
    PERFORM FROM claims WHERE id = _claim_id AND status = 'waiting' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    _locked := _port_ids
        || ARRAY(SELECT coalesce(parent_id, id) FROM pci_devices WHERE reserved_for = _claim_id);
    PERFORM FROM pci_devices WHERE id = ANY(_locked) ORDER BY id FOR UPDATE;
    IF EXISTS (SELECT FROM pci_devices
                WHERE reserved_for = _claim_id AND coalesce(parent_id, id) <> ALL(_locked)) THEN
        RAISE serialization_failure USING MESSAGE = 'a reserved VF moved to another port before the ports were locked';
    ELSIF EXISTS (SELECT FROM pci_devices
                   WHERE id = ANY(_port_ids)
                     AND (reserved_for <> _claim_id OR drained_reason IS NOT NULL OR status = 'removed')) THEN
        RETURN false;
    END IF;
    UPDATE pci_devices SET reserved_for = NULL
     WHERE reserved_for = _claim_id AND coalesce(parent_id, id) <> ALL(_port_ids);
    UPDATE pci_devices SET reserved_for = _claim_id
     WHERE (id = ANY(_port_ids) OR parent_id = ANY(_port_ids)) AND reserved_for IS NULL;
    PERFORM update_tree_statuses(_locked);
    RETURN true;
END $$;
COMMENT ON FUNCTION reserve_ports IS
    'reserve exactly these ports for a waiting claim; false: the claim is locked or no longer waits, or a port is'
    ' drained, removed or reserved for another claim';

-- Lifts the reservation and claims, in one transaction. The claim leaves the queue before write_claim is called:
-- that is how write_claim knows that it may turn a waiting claim into a claimed one.
CREATE OR REPLACE FUNCTION serve_waiting(
    _claim_id uuid, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[]
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _instance_id uuid;
    _request jsonb;
    _reserved bigint[];
    _found integer;
BEGIN
    SELECT c.instance_id, c.request INTO _instance_id, _request
      FROM claims c
      JOIN waiting_claims w ON w.id = c.id
     WHERE c.id = _claim_id AND c.status = 'waiting' AND w.deadline > now()
       AND NOT EXISTS (SELECT FROM waiting_claims other WHERE other.requests = w.requests AND other.position < w.position)
       FOR UPDATE OF c SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    _reserved := ARRAY(SELECT id FROM pci_devices WHERE reserved_for = _claim_id AND parent_id IS NULL);
    PERFORM FROM pci_devices WHERE id = ANY(_reserved || _port_ids) ORDER BY id FOR UPDATE;
    PERFORM reserve_ports(_claim_id, '{}');
    DELETE FROM waiting_claims WHERE id = _claim_id;
    PERFORM FROM pci_devices d
      JOIN unnest(_device_ids, _pool_ids, _port_ids) AS chosen (id, pool_id, port_id)
        ON d.id = chosen.id AND d.pool_id = chosen.pool_id AND coalesce(d.parent_id, d.id) = chosen.port_id
     WHERE d.status = 'available';
    GET DIAGNOSTICS _found = ROW_COUNT;
    IF _found < cardinality(_device_ids) THEN
        RAISE EXCEPTION USING ERRCODE = 'PC000', MESSAGE = 'a chosen device is no longer available';
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after, _device_ids, _request_indexes);
EXCEPTION
    -- Everything above is undone. PC000 is tried last: it stands for all of its class.
    WHEN SQLSTATE 'PC430' THEN -- claims of other projects are behind it in the queue
        PERFORM FROM claims WHERE id = _claim_id AND status = 'waiting' FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            PERFORM leave_queue(_claim_id, 'expired', 'quota', SQLERRM);
        END IF;
        RETURN NULL;
    WHEN SQLSTATE 'PC000' THEN RETURN NULL;
END $$;
COMMENT ON FUNCTION serve_waiting IS
    'claim the chosen devices for the head of a queue; null: it is no longer the head, a device was taken, or the claim'
    ' has ended because the quota of its project is used up';

CREATE OR REPLACE FUNCTION leave_queue(_claim_id uuid, _status text, _cause text, _reason text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM reserve_ports(_claim_id, '{}');
    DELETE FROM waiting_claims WHERE id = _claim_id;
    UPDATE claims SET status = _status, reason = _reason, updated_at = now() WHERE id = _claim_id;
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (_claim_id, 'waiting', _status, _cause);
    PERFORM pg_notify('portclaim_waiting', ''); -- for the next claim in the queue
END $$;
COMMENT ON FUNCTION leave_queue IS 'end a waiting claim, which is locked, without serving it';

CREATE OR REPLACE FUNCTION expire_waiting(_claim_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _why text;
BEGIN
    SELECT format('not served within %s s', round(extract(epoch FROM w.deadline - w.queued_at), 1)::real)
      INTO _why
      FROM claims c
      JOIN waiting_claims w ON w.id = c.id
     WHERE c.id = _claim_id AND c.status = 'waiting' AND w.deadline <= now()
       FOR UPDATE OF c SKIP LOCKED;
    IF FOUND THEN
        PERFORM leave_queue(_claim_id, 'expired', _why, _why);
    END IF;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION expire_waiting IS 'end a waiting claim that is past its deadline; true: it has ended now';
