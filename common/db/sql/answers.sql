-- An agent's answer to a step: it moves the claim to its next status, in one round trip.

CREATE OR REPLACE FUNCTION lock_answered_claim(_host text, _agent_id uuid, _claim_id uuid, _step integer)
RETURNS claims LANGUAGE plpgsql AS $$
DECLARE
    _claim claims;
BEGIN
    SELECT c.* INTO _claim
      FROM claims c
      JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = _claim_id AND n.host = _host AND n.agent_id = _agent_id
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        PERFORM host_of_agent(_host, _agent_id);
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('there is no claim %s on host %s', _claim_id, _host);
    ELSIF _step < _claim.step THEN
        RAISE EXCEPTION USING ERRCODE = 'PC410',
            MESSAGE = format('step %s of claim %s is stale: step %s was sent after it', _step, _claim_id, _claim.step);
    ELSIF _step > _claim.step THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400',
            MESSAGE = format('claim %s has no step %s: its last step is %s', _claim_id, _step, _claim.step);
    END IF;
    RETURN _claim;
END $$;
COMMENT ON FUNCTION lock_answered_claim IS
    'lock the claim that an agent answers for; an error if it is not on its host, or if the step is not its last one';

CREATE OR REPLACE FUNCTION answer_prepared(
    _host text, _agent_id uuid, _claim_id uuid, _step integer, _guest_within double precision
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM end_step_as_prepared(lock_answered_claim(_host, _agent_id, _claim_id, _step), _guest_within);
END $$;
COMMENT ON FUNCTION answer_prepared IS
    'record that an agent has the devices of a claim ready, and that its guest has so many seconds to come; 0: any time';

CREATE OR REPLACE FUNCTION answer_step(
    _host text, _agent_id uuid, _claim_id uuid, _step integer, _done boolean, _reason text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_answered_claim(_host, _agent_id, _claim_id, _step);
    PERFORM end_steps(ARRAY[_claim_id], ARRAY[_done], ARRAY[_reason]);
END $$;
COMMENT ON FUNCTION answer_step IS 'record how an agent has ended a step; the same answer again changes nothing';

-- The claims are locked first, then their host if need be (see free_devices), then the trees: the order of single answers.
-- No claim comes twice.
CREATE OR REPLACE FUNCTION answer_steps(
    _host text, _agent_id uuid, _claim_ids uuid[], _steps integer[], _outcomes text[], _reasons text[],
    _guest_within double precision
) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := host_of_agent(_host, _agent_id);
    _port_ids bigint[];
    _prepared claims[];
    _ended uuid[];
    _done boolean[];
    _ended_reasons text[];
BEGIN
    PERFORM FROM claims WHERE id = ANY(_claim_ids) ORDER BY id FOR UPDATE;
    SELECT array_agg(c) FILTER (WHERE outcome = 'prepared'),
           array_agg(c.id) FILTER (WHERE outcome <> 'prepared'),
           array_agg(outcome = 'done') FILTER (WHERE outcome <> 'prepared'),
           array_agg(answered.reason) FILTER (WHERE outcome <> 'prepared')
      INTO _prepared, _ended, _done, _ended_reasons
      FROM unnest(_claim_ids, _steps, _outcomes, _reasons) AS answered (id, step, outcome, reason)
      JOIN claims c USING (id, step)
     WHERE c.compute_node_id = _node_id;
    _port_ids := ports_of(VARIADIC _claim_ids);
    IF has_missing_device(_node_id, _port_ids) THEN
        PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
    END IF;
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    PERFORM end_step_as_prepared(claim, _guest_within) FROM unnest(_prepared) AS claim;
    PERFORM end_steps(_ended, _done, _ended_reasons);
    RETURN QUERY SELECT unnest(_claim_ids) EXCEPT SELECT unnest(_ended) EXCEPT SELECT id FROM unnest(_prepared);
END $$;
COMMENT ON FUNCTION answer_steps IS
    'record how an agent has ended several steps; the claims of which it was not the last step, or not on this host';

-- The devices are claimed, in Nova's words: the host does not use them, and no guest does. An answer to a step "unplug"
-- says that no guest does any more.
CREATE OR REPLACE FUNCTION end_step_as_prepared(_claim claims, _guest_within double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _seconds double precision := coalesce((_claim.request ->> 'guest_within')::double precision, _guest_within);
BEGIN
    IF _claim.status = 'allocated' AND awaited_action(_claim.id, _claim.step) = 'unplug' THEN
        PERFORM mark_unplugged(_claim.id);
        _seconds := 0;
    ELSIF _claim.status NOT IN ('claimed', 'prepared') THEN -- the claim is further by now
        RETURN;
    END IF;
    DELETE FROM outbox WHERE claim_id = _claim.id AND step = _claim.step;
    IF _claim.status <> 'prepared' THEN
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim.id, _claim.status, 'prepared',
                CASE _claim.status WHEN 'claimed' THEN 'prepare done' ELSE 'unplug done' END);
        UPDATE claims
           SET status = 'prepared', prepared_at = now(), updated_at = now(), reason = NULL,
               guest_deadline = now() + make_interval(secs => nullif(_seconds, 0))
         WHERE id = _claim.id;
    END IF;
END $$;
COMMENT ON FUNCTION end_step_as_prepared IS 'the last step of this locked claim has ended: its devices are ready for the guest';

-- An attach that failed frees the devices at once: the agent has undone it. The same holds when the agent says
-- failed after it said done: then the instance is gone. A detach that failed frees nothing: the step is sent again. So
-- is an unplug that failed.
CREATE OR REPLACE FUNCTION status_after(_status text, _expires boolean, _awaited text, _done boolean)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _status IN ('claimed', 'prepared') AND _done THEN 'allocated'
                WHEN _status = 'allocated' AND (_done OR _awaited = 'unplug') THEN NULL
                WHEN _status IN ('claimed', 'prepared', 'allocated') THEN 'failed'
                WHEN _status = 'releasing' AND NOT _done THEN 'releasing'
                WHEN _status = 'releasing' AND _expires THEN 'expired'
                WHEN _status = 'releasing' THEN 'released' END
$$;
COMMENT ON FUNCTION status_after IS
    'the status of a claim whose agent has done its last step or has failed to; null: as it was, or the answer came before';

CREATE OR REPLACE FUNCTION end_steps(_claim_ids uuid[], _done boolean[], _reasons text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint;
    _freed uuid[];
    _attached uuid[];
BEGIN
    SELECT min(compute_node_id),
           array_agg(id) FILTER (WHERE to_status IN ('released', 'failed', 'expired')),
           array_agg(id) FILTER (WHERE to_status = 'allocated')
      INTO _node_id, _freed, _attached
      FROM (SELECT c.id, c.compute_node_id,
                   status_after(c.status, c.expiry_reason IS NOT NULL, o.action, ended.done) AS to_status
              FROM unnest(_claim_ids, _done) AS ended (id, done)
              JOIN claims c USING (id)
              LEFT JOIN outbox o ON (o.claim_id, o.step) = (c.id, c.step)) c;
    IF _freed IS NOT NULL THEN
        PERFORM free_devices(_freed, _node_id);
    END IF;
    IF _attached IS NOT NULL THEN
        PERFORM mark_allocated(_attached);
    END IF;
    WITH ended AS (
        SELECT c.id, c.step, c.status, ended.done, ended.reason,
               status_after(c.status, c.expiry_reason IS NOT NULL, o.action, ended.done) AS to_status
          FROM unnest(_claim_ids, _done, _reasons) AS ended (id, done, reason)
          JOIN claims c USING (id)
          LEFT JOIN outbox o ON (o.claim_id, o.step) = (c.id, c.step)
    ), answered AS (
        DELETE FROM outbox o USING ended
         WHERE (o.claim_id, o.step) = (ended.id, ended.step)
           AND (ended.to_status <> 'releasing'
                -- of a step that attaches again what was to be unplugged
                OR ended.status = 'allocated' AND ended.done AND o.action = 'attach')
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        SELECT id, status, to_status,
               CASE WHEN status = 'releasing' THEN 'detach' ELSE 'attach' END
               || CASE WHEN done THEN ' done' ELSE coalesce(' failed: ' || reason, ' failed') END
          FROM ended WHERE to_status IS NOT NULL
    ), is_not_unplugged AS (
        UPDATE claims c SET reason = ended.reason
          FROM ended WHERE c.id = ended.id AND ended.status = 'allocated' AND ended.to_status IS NULL AND NOT ended.done
    )
    UPDATE claims c
       SET status = ended.to_status, reason = coalesce(ended.reason, c.expiry_reason), updated_at = now()
      FROM ended
     WHERE c.id = ended.id AND ended.to_status IS NOT NULL;
END $$;
COMMENT ON FUNCTION end_steps IS 'the last steps of these claims, which are locked and on one host, are done or have failed';

CREATE OR REPLACE FUNCTION awaited_action(_claim_id uuid, _step integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT action FROM outbox WHERE claim_id = _claim_id AND step = _step
$$;
COMMENT ON FUNCTION awaited_action IS 'what the agent has to do in this step; null: the step is answered';

CREATE OR REPLACE FUNCTION mark_unplugged(_claim_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM pci_devices WHERE id = ANY(ports_of(_claim_id)) ORDER BY id FOR UPDATE;
    UPDATE pci_devices SET status = 'claimed' WHERE claim_id = _claim_id;
END $$;
COMMENT ON FUNCTION mark_unplugged IS 'the devices of an allocated claim become claimed again; their tree partners stay unavailable';

CREATE OR REPLACE FUNCTION mark_allocated(_claim_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _port_ids bigint[] := ports_of(VARIADIC _claim_ids);
BEGIN
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    UPDATE pci_devices SET status = 'allocated' WHERE claim_id = ANY(_claim_ids);
    UPDATE pci_devices SET status = 'unavailable'
     WHERE status = 'unclaimable' AND (id = ANY(_port_ids) OR parent_id = ANY(_port_ids));
END $$;
COMMENT ON FUNCTION mark_allocated IS 'the devices of claims become allocated, their tree partners unavailable';

-- The next step replaces one that prepares the devices and is not answered yet: it prepares them too.
CREATE OR REPLACE FUNCTION begin_attach(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _claim claims;
BEGIN
    SELECT * INTO _claim FROM claims WHERE id = _claim_id FOR UPDATE;
    IF _claim.status IN ('waiting', 'claimed', 'prepared') AND _claim.attach = 'on-call' THEN
        UPDATE claims
           SET attach = 'auto', step = CASE status WHEN 'waiting' THEN step ELSE step + 1 END, updated_at = now()
         WHERE id = _claim_id;
        IF _claim.status <> 'waiting' THEN
            DELETE FROM outbox WHERE claim_id = _claim_id;
            INSERT INTO outbox (claim_id, step, action, sends, send_after)
            VALUES (_claim_id, _claim.step + 1, 'attach', 1, now() + make_interval(secs => _resend_after));
        END IF;
    END IF;
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION begin_attach IS
    'let the agent attach the devices of a claim that was made with attach on-call; the claim as it then is; null: there is none';
