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
    PERFORM end_step(lock_answered_claim(_host, _agent_id, _claim_id, _step), _done, _reason);
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
    _answer record;
BEGIN
    PERFORM FROM claims WHERE id = ANY(_claim_ids) ORDER BY id FOR UPDATE;
    _port_ids := ARRAY(SELECT DISTINCT coalesce(parent_id, id) FROM pci_devices WHERE claim_id = ANY(_claim_ids));
    IF has_missing_device(_node_id, _port_ids) THEN
        PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
    END IF;
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    FOR _answer IN
        SELECT answered.claim_id, answered.outcome, answered.reason, c AS claim
          FROM unnest(_claim_ids, _steps, _outcomes, _reasons) AS answered (claim_id, step, outcome, reason)
          LEFT JOIN claims c ON c.id = answered.claim_id AND c.step = answered.step AND c.compute_node_id = _node_id
    LOOP
        IF (_answer.claim).id IS NULL THEN
            RETURN NEXT _answer.claim_id;
        ELSIF _answer.outcome = 'prepared' THEN
            PERFORM end_step_as_prepared(_answer.claim, _guest_within);
        ELSE
            PERFORM end_step(_answer.claim, _answer.outcome = 'done', _answer.reason);
        END IF;
    END LOOP;
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
-- failed after it said done: then the instance is gone. A detach that failed frees nothing: the step is sent again.
CREATE OR REPLACE FUNCTION end_step(_claim claims, _done boolean, _reason text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _to_status text := CASE
        WHEN _claim.status IN ('claimed', 'prepared') AND _done THEN 'allocated'
        WHEN _claim.status = 'releasing' AND NOT _done THEN 'releasing'
        WHEN _claim.status = 'releasing' AND _claim.expiry_reason IS NOT NULL THEN 'expired'
        WHEN _claim.status = 'releasing' THEN 'released'
        WHEN _claim.status IN ('claimed', 'prepared', 'allocated') AND NOT _done THEN 'failed' END;
BEGIN
    IF _claim.status = 'allocated' THEN
        IF NOT _done AND awaited_action(_claim.id, _claim.step) = 'unplug' THEN -- the step is sent again
            UPDATE claims SET reason = _reason WHERE id = _claim.id;
            RETURN;
        ELSIF _done THEN -- of a step that attaches again what was to be unplugged
            DELETE FROM outbox WHERE claim_id = _claim.id AND step = _claim.step AND action = 'attach';
        END IF;
    END IF;
    IF _to_status IS NULL THEN -- this answer came before
        RETURN;
    ELSIF _to_status IN ('released', 'failed', 'expired') THEN
        PERFORM free_devices(_claim.id, _claim.compute_node_id);
    ELSIF _to_status = 'allocated' THEN
        PERFORM mark_allocated(_claim.id);
    END IF;
    WITH answered AS (
        DELETE FROM outbox WHERE claim_id = _claim.id AND step = _claim.step AND _to_status <> 'releasing'
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim.id, _claim.status, _to_status,
                CASE WHEN _claim.status = 'releasing' THEN 'detach' ELSE 'attach' END
                || CASE WHEN _done THEN ' done' ELSE coalesce(' failed: ' || _reason, ' failed') END)
    )
    UPDATE claims SET status = _to_status, reason = coalesce(_reason, _claim.expiry_reason), updated_at = now()
     WHERE id = _claim.id;
END $$;
COMMENT ON FUNCTION end_step IS 'the last step of this locked claim has ended in this way';

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

CREATE OR REPLACE FUNCTION mark_allocated(_claim_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _port_ids bigint[] := ports_of(_claim_id);
BEGIN
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    UPDATE pci_devices SET status = 'allocated' WHERE claim_id = _claim_id;
    UPDATE pci_devices SET status = 'unavailable'
     WHERE status = 'unclaimable' AND (id = ANY(_port_ids) OR parent_id = ANY(_port_ids));
END $$;
COMMENT ON FUNCTION mark_allocated IS 'the devices of a claim become allocated, their tree partners unavailable';

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
