-- An agent's answer to a step: it moves the claim to its next status, in one round trip.

-- An attach that failed frees the devices at once: the agent has undone it. The same holds when the agent says
-- failed after it said done: then the instance is gone. A detach that failed frees nothing: the step is sent again.
CREATE OR REPLACE FUNCTION answer_step(
    _host text, _agent_id uuid, _claim_id uuid, _step integer, _done boolean, _reason text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint;
    _from_status text;
    _to_status text;
    _latest integer;
    _expiry_reason text;
BEGIN
    SELECT c.status, c.step, c.expiry_reason, n.id INTO _from_status, _latest, _expiry_reason, _node_id
      FROM claims c
      JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = _claim_id AND n.host = _host AND n.agent_id = _agent_id
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        PERFORM host_of_agent(_host, _agent_id);
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('there is no claim %s on host %s', _claim_id, _host);
    ELSIF _step < _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC410',
            MESSAGE = format('step %s of claim %s is stale: step %s was sent after it', _step, _claim_id, _latest);
    ELSIF _step > _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400',
            MESSAGE = format('claim %s has no step %s: its last step is %s', _claim_id, _step, _latest);
    END IF;

    _to_status := CASE
        WHEN _from_status = 'claimed' AND _done THEN 'allocated'
        WHEN _from_status = 'releasing' AND NOT _done THEN 'releasing'
        WHEN _from_status = 'releasing' AND _expiry_reason IS NOT NULL THEN 'expired'
        WHEN _from_status = 'releasing' THEN 'released'
        WHEN _from_status IN ('claimed', 'allocated') AND NOT _done THEN 'failed' END;
    IF _to_status IS NULL THEN -- this answer came before
        RETURN;
    ELSIF _to_status IN ('released', 'failed', 'expired') THEN
        PERFORM free_devices(_claim_id, _node_id);
    ELSIF _to_status = 'allocated' THEN
        PERFORM mark_allocated(_claim_id);
    END IF;
    WITH answered AS (
        DELETE FROM outbox WHERE claim_id = _claim_id AND step = _step AND _to_status <> 'releasing'
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _from_status, _to_status,
                CASE WHEN _from_status = 'releasing' THEN 'detach' ELSE 'attach' END
                || CASE WHEN _done THEN ' done' ELSE coalesce(' failed: ' || _reason, ' failed') END)
    )
    UPDATE claims SET status = _to_status, reason = coalesce(_reason, _expiry_reason), updated_at = now()
     WHERE id = _claim_id;
END $$;
COMMENT ON FUNCTION answer_step IS 'record how an agent has ended a step; the same answer again changes nothing';

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
