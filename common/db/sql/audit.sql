-- What operators did. An act is recorded in the transaction that does it.

-- A caller may repeat a call. Then the act was done once.
CREATE OR REPLACE FUNCTION record_act_once(_who text, _action text, _object text, _reason text)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO audit_events (who, action, object, reason)
    SELECT _who, _action, _object, _reason
     WHERE NOT EXISTS (
           SELECT FROM (SELECT * FROM audit_events WHERE object = _object ORDER BY id DESC LIMIT 1) last
            WHERE (last.action, last.who, last.reason) IS NOT DISTINCT FROM (_action, _who, _reason))
$$;
COMMENT ON FUNCTION record_act_once IS 'record an act, unless it is what was done last to the same object';

CREATE OR REPLACE FUNCTION record_move(_move json, _who text, _action text, _reason text)
RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    IF _move IS NOT NULL THEN
        PERFORM record_act_once(_who, _action, _move #>> '{target,claim_id}', _reason);
    END IF;
    RETURN _move;
END $$;
COMMENT ON FUNCTION record_move IS 'the move, after what was done to it is recorded; null: nothing was done';
