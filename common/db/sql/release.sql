-- Give devices back: by a release, which the agent carries out, or by force, without the agent.

CREATE OR REPLACE FUNCTION begin_release(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM claims WHERE id = _claim_id FOR UPDATE;
    PERFORM release_locked_claims(ARRAY[_claim_id], _resend_after);
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION begin_release IS 
    'begin the release of a live claim, or end a waiting one; the claim as it then is; null: there is none';

CREATE OR REPLACE FUNCTION begin_releases(_claim_ids uuid[], _resend_after double precision, _wait boolean)
RETURNS TABLE (claim_id uuid, claim json) LANGUAGE plpgsql AS $$
DECLARE
    _locked uuid[];
BEGIN
    IF _wait THEN
        PERFORM FROM claims WHERE id = ANY(_claim_ids) ORDER BY id FOR UPDATE;
        _locked := _claim_ids;
    ELSE
        SELECT array_agg(id) INTO _locked
          FROM (SELECT id FROM claims WHERE id = ANY(_claim_ids) ORDER BY id FOR UPDATE SKIP LOCKED) locked;
    END IF;
    PERFORM release_locked_claims(_locked, _resend_after);
    RETURN QUERY SELECT id, claim_as_json(id) FROM unnest(_locked) AS id;
END $$;
COMMENT ON FUNCTION begin_releases IS
    'begin_release for each of these claims; without _wait, only for those that exist and that nobody else has locked';

CREATE OR REPLACE FUNCTION release_locked_claims(_claim_ids uuid[], _resend_after double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _waiting uuid[];
BEGIN
    WITH begun AS (
        SELECT id, status, step + 1 AS step FROM claims
         WHERE id = ANY(_claim_ids) AND status IN ('claimed', 'prepared', 'allocated')
    ), superseded AS (
        DELETE FROM outbox WHERE claim_id IN (SELECT id FROM begun)
    ), step AS (
        INSERT INTO outbox (claim_id, step, action, sends, send_after, traceparent)
        SELECT id, step, 'detach', 1, now() + make_interval(secs => _resend_after), trace_of(id) FROM begun
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        SELECT id, status, 'releasing', 'release' FROM begun
    ), releasing AS (
        UPDATE claims c SET status = 'releasing', step = begun.step, updated_at = now()
          FROM begun WHERE c.id = begun.id
    )
    SELECT array_agg(id) INTO _waiting FROM claims WHERE id = ANY(_claim_ids) AND status = 'waiting';
    PERFORM leave_queue(id, 'released', 'release', NULL) FROM unnest(_waiting) AS id;
END $$;
COMMENT ON FUNCTION release_locked_claims IS 'begin the release of those of these claims that are live, and end those that wait';

CREATE OR REPLACE FUNCTION free_devices(_claim_ids uuid[], _node_id bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _port_ids bigint[];
    _was_one_missing boolean;
    _is_one_missing boolean;
    _unheld_ports bigint[];
BEGIN
    SELECT ports.ids, has_missing_device(_node_id, ports.ids) INTO _port_ids, _was_one_missing
      FROM (SELECT ports_of(VARIADIC _claim_ids) AS ids) ports;

    -- The host's last report did not list a device of these trees. Such a device stays while a claim holds it;
    -- the next report decides again, so a full one is asked for. The host is locked before its trees, in the
    -- order of a report. A report that came meanwhile may have answered the question, so it is asked again.
    IF _was_one_missing THEN
        PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
        UPDATE compute_nodes SET inventory_digest = NULL
         WHERE id = _node_id AND has_missing_device(_node_id, _port_ids);
    END IF;
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;

    -- clock_timestamp(), read while the trees are locked. now() is the begin of this transaction: it may lie
    -- before another claim's end on the same device, and the history would overlap.
    WITH history AS (
        UPDATE claim_devices SET held_until = clock_timestamp() WHERE claim_id = ANY(_claim_ids)
    ), freed AS (
        UPDATE pci_devices
           SET status = derived_status(
                   offered, present, coalesce(reserved_for::text, drained_reason, unusable_reason), NULL),
               claim_id = NULL
         WHERE claim_id = ANY(_claim_ids)
        RETURNING id, parent_id, pool_id, status
    ), room AS (
        UPDATE port_pools pp
           SET held = held - (SELECT count(*) FROM freed WHERE parent_id = pp.port_id),
               free = free + (SELECT count(*) FROM freed
                               WHERE parent_id = pp.port_id AND pool_id = pp.pool_id AND status = 'available')
         WHERE port_id = ANY(ARRAY(SELECT parent_id FROM freed))
        RETURNING port_id, held
    )
    SELECT ARRAY(SELECT id FROM freed WHERE parent_id IS NULL UNION SELECT port_id FROM room WHERE held = 0),
           has_missing_device(_node_id, _port_ids)
      INTO _unheld_ports, _is_one_missing;
    IF _is_one_missing AND NOT _was_one_missing THEN
        RAISE serialization_failure USING MESSAGE = 'a report came before the trees were locked';
    END IF;
    -- Only trees of which no claim holds anything now. In the others no other status changes.
    IF cardinality(_unheld_ports) > 0 THEN
        PERFORM update_tree_statuses(_unheld_ports);
    END IF;
END $$;
COMMENT ON FUNCTION free_devices IS 'free the devices of claims, which are locked and on one host, and lock their trees for that';

-- A silent host may still have the devices in a guest. So the devices, and their tree partners, count as not
-- present until the host reports again. Its agent does that after it has detached what belongs to ended claims.
-- The host is locked before its trees, in the order of a report.
CREATE OR REPLACE FUNCTION force_release(_claim_id uuid, _agent_down_after double precision, _cause text)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _status text;
    _node_id bigint;
    _host text;
    _is_silent boolean;
    _port_ids bigint[];
BEGIN
    SELECT status, compute_node_id INTO _status, _node_id FROM claims WHERE id = _claim_id FOR UPDATE;
    IF _status IN ('claimed', 'prepared', 'allocated', 'releasing') THEN
        SELECT host, last_seen < now() - make_interval(secs => _agent_down_after) INTO _host, _is_silent
          FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
        IF NOT _is_silent THEN
            RAISE EXCEPTION USING ERRCODE = 'PC412', MESSAGE = format(
                'the agent of host %s is alive: release the claim without force, then the agent detaches its devices',
                _host);
        END IF;
        _port_ids := ports_of(_claim_id);
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
        UPDATE pci_devices SET present = false
         WHERE id = ANY(ARRAY(
               SELECT unnest(_port_ids)
                UNION SELECT id FROM pci_devices WHERE claim_id = _claim_id
                UNION SELECT vf.id FROM pci_devices pf JOIN pci_devices vf ON vf.parent_id = pf.id
                       WHERE pf.claim_id = _claim_id));
        PERFORM free_devices(ARRAY[_claim_id], _node_id);
        DELETE FROM outbox WHERE claim_id = _claim_id;
        UPDATE claims SET status = 'released', step = step + 1, reason = _cause, updated_at = now()
         WHERE id = _claim_id;
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _status, 'released', _cause);
    END IF;
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION force_release IS 
    'end a live claim of a host whose agent is silent; the claim as it then is; null: there is none';
