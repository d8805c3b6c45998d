-- Moves: an instance's devices are claimed on another host too, until one of the two claims is released.
--
-- Lock order: the target claim before the source claim, both before the row of the move, a claim before any tree. A
-- transaction that changes a move has locked one of its two claims: the source, if it is to be released or plugged.

CREATE OR REPLACE FUNCTION check_move_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (coalesce(OLD.status, ''), NEW.status) NOT IN (
        ('', 'begun'), ('begun', 'completing'), ('begun', 'completed'), ('begun', 'reverted'),
        ('completing', 'completed'), ('completing', 'reverted'))
    THEN
        RAISE check_violation USING MESSAGE = format(
            'a move that is %s cannot become %s', coalesce(OLD.status, 'new'), NEW.status);
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER is_a_transition BEFORE INSERT OR UPDATE OF status ON claim_moves
    FOR EACH ROW EXECUTE FUNCTION check_move_transition();

CREATE OR REPLACE FUNCTION must_be_unplugged(_claim_id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pci_devices d JOIN pools p ON p.id = d.pool_id
                    WHERE d.claim_id = _claim_id AND coalesce(lower(p.tags ->> 'live_migratable'), '') <> 'true')
$$;
COMMENT ON FUNCTION must_be_unplugged IS 'whether a device of the claim cannot go with its guest in a live migration';

CREATE OR REPLACE FUNCTION move_as_json(_target_id uuid) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_build_object(
               'status', status, 'reason', reason, 'begun_at', begun_at, 'updated_at', updated_at,
               'kind', kind,
               'ready', kind = 'live' AND live
                        AND (SELECT status = 'prepared' FROM claims WHERE id = target_claim_id)
                        AND ((SELECT status = 'prepared' FROM claims WHERE id = source_claim_id)
                             OR NOT must_be_unplugged(source_claim_id)),
               'source', claim_as_json(source_claim_id), 'target', claim_as_json(target_claim_id))
      FROM claim_moves
     WHERE target_claim_id = _target_id
); END $$;

CREATE OR REPLACE FUNCTION existing_move(_source_id uuid, _claim_id uuid, _request jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _status text;
    _other_id uuid;
BEGIN
    IF existing_claim(_claim_id, _request) IS NOT NULL THEN
        PERFORM FROM claim_moves WHERE target_claim_id = _claim_id AND source_claim_id = _source_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
                'claim id %s is already used, but not for a move of claim %s: choose a new id',
                _claim_id, _source_id);
        END IF;
        RETURN move_as_json(_claim_id);
    END IF;
    SELECT status INTO _status FROM claims WHERE id = _source_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('there is no claim %s', _source_id);
    ELSIF _status <> 'allocated' THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is %s: only an allocated claim can be moved', _source_id, _status);
    END IF;
    SELECT target_claim_id INTO _other_id FROM claim_moves WHERE source_claim_id = _source_id AND live;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is already being moved to claim %s: complete or revert that move first', _source_id, _other_id);
    END IF;
    SELECT source_claim_id INTO _other_id FROM claim_moves WHERE target_claim_id = _source_id AND live;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is the target of a move of claim %s: complete or revert that move first',
            _source_id, _other_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION existing_move IS
    'the move to this claim id; null: there is none; an error if the source cannot be moved or the id is used';

-- Claims as claim_chosen_devices does, and answers NULL when that does.
CREATE OR REPLACE FUNCTION move_claim(
    _source_id uuid, _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _move json;
BEGIN
    PERFORM FROM claims WHERE id = _source_id FOR UPDATE;
    _move := existing_move(_source_id, _claim_id, _request);
    IF _move IS NOT NULL THEN
        RETURN _move;
    END IF;
    IF claim_chosen_devices(_claim_id, _instance_id, _request, _resend_after,
                             _device_ids, _request_indexes, _pool_ids, _port_ids, _wait) IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO claim_moves (target_claim_id, source_claim_id, kind)
    VALUES (_claim_id, _source_id, CASE WHEN _request ? 'live_migration' THEN 'live' ELSE 'cold' END);
    PERFORM set_event_cause(_claim_id, format('move of claim %s', _source_id));
    RETURN move_as_json(_claim_id);
END $$;

CREATE OR REPLACE FUNCTION complete_move(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _target_status text;
    _move claim_moves;
BEGIN
    SELECT status INTO _target_status FROM claims WHERE id = _claim_id FOR UPDATE;
    SELECT * INTO _move FROM claim_moves WHERE target_claim_id = _claim_id;
    IF _move.status = 'reverted' THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'the move to claim %s was reverted', _claim_id) || coalesce(': ' || _move.reason, '');
    ELSIF _move.live AND _target_status = 'allocated' THEN
        PERFORM release_move_source(_claim_id, _resend_after);
    ELSIF _move.status = 'begun' THEN
        UPDATE claim_moves SET status = 'completing' WHERE target_claim_id = _claim_id AND status = 'begun';
    END IF;
    RETURN move_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION complete_move IS
    'release the source of the move to this claim, now or when the claim is allocated; null: there is none';

CREATE OR REPLACE FUNCTION revert_move(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _source_id uuid;
BEGIN
    PERFORM FROM claims WHERE id = _claim_id FOR UPDATE;
    PERFORM lock_unplugged_source(_claim_id);
    UPDATE claim_moves SET status = 'reverted' WHERE target_claim_id = _claim_id AND live
    RETURNING source_claim_id INTO _source_id;
    IF FOUND THEN
        PERFORM begin_release(_claim_id, _resend_after);
        PERFORM set_event_cause(_claim_id, format('move of claim %s reverted', _source_id));
        PERFORM plug_move_source(_claim_id);
    ELSIF EXISTS (SELECT FROM claim_moves WHERE target_claim_id = _claim_id AND status = 'completed') THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'the move to claim %s is completed and its source released: begin a new move to go back', _claim_id);
    END IF;
    RETURN move_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION revert_move IS
    'release the target of the move to this claim; its source keeps its devices; null: there is none';

CREATE OR REPLACE FUNCTION release_move_source(_target_id uuid, _resend_after double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _source_id uuid := (SELECT source_claim_id FROM claim_moves WHERE target_claim_id = _target_id);
BEGIN
    PERFORM FROM claims WHERE id = _source_id FOR UPDATE;
    UPDATE claim_moves SET status = 'completed' WHERE target_claim_id = _target_id AND live;
    IF FOUND THEN
        PERFORM begin_release(_source_id, _resend_after);
        PERFORM set_event_cause(_source_id, format('moved to claim %s', _target_id));
    END IF;
END $$;
COMMENT ON FUNCTION release_move_source IS 'release the source of the live move to this claim, which is allocated and locked';

-- The guest must have no device that cannot go with it when the migration begins. Not before the target is prepared:
-- until then the move can still fail.
CREATE OR REPLACE FUNCTION unplug_move_source(_target_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _source claims;
BEGIN
    SELECT * INTO _source FROM claims
     WHERE id = (SELECT source_claim_id FROM claim_moves
                  WHERE target_claim_id = _target_id AND live AND kind = 'live')
       FOR UPDATE;
    IF _source.status = 'allocated' AND must_be_unplugged(_source.id) THEN
        UPDATE claims SET step = step + 1, attach = 'on-call' WHERE id = _source.id;
        INSERT INTO outbox (claim_id, step, action) VALUES (_source.id, _source.step + 1, 'unplug');
        PERFORM pg_notify('portclaim_outbox', '');
    END IF;
END $$;
COMMENT ON FUNCTION unplug_move_source IS
    'begin to unplug the source of the live migration to this claim, which is prepared and locked';

CREATE OR REPLACE FUNCTION lock_unplugged_source(_target_id uuid) RETURNS void LANGUAGE sql AS $$
    SELECT FROM claims
     WHERE id = (SELECT source_claim_id FROM claim_moves
                  WHERE target_claim_id = _target_id AND live AND kind = 'live')
       FOR UPDATE
$$;
COMMENT ON FUNCTION lock_unplugged_source IS
    'lock the source of the live migration to this claim, which is locked, before the move changes';

CREATE OR REPLACE FUNCTION plug_move_source(_target_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _source claims;
BEGIN
    SELECT * INTO _source FROM claims
     WHERE id = (SELECT source_claim_id FROM claim_moves WHERE target_claim_id = _target_id AND kind = 'live');
    IF _source.status = 'prepared'
       OR _source.status = 'allocated' AND awaited_action(_source.id, _source.step) = 'unplug'
    THEN
        UPDATE claims SET step = step + 1, attach = 'auto' WHERE id = _source.id;
        DELETE FROM outbox WHERE claim_id = _source.id;
        INSERT INTO outbox (claim_id, step, action) VALUES (_source.id, _source.step + 1, 'attach');
        PERFORM pg_notify('portclaim_outbox', '');
    END IF;
END $$;
COMMENT ON FUNCTION plug_move_source IS
    'give a guest back what was unplugged for a live migration that is reverted; its source is locked';

-- A trigger, because a claim can end in many ways and its move must end with it. When one claim of a move ends,
-- the move ends and the other claim stays.
CREATE OR REPLACE FUNCTION follow_claim_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _now text := format('is now %s', NEW.status) || coalesce(': ' || NEW.reason, '');
BEGIN
    IF NEW.status = 'prepared' THEN
        PERFORM unplug_move_source(NEW.id);
        RETURN NULL;
    ELSIF NEW.status = 'allocated' THEN
        -- A guest that was migrated live is gone from the source.
        PERFORM FROM claim_moves
          WHERE target_claim_id = NEW.id AND (status = 'completing' OR status = 'begun' AND kind = 'live');
        IF FOUND THEN
            PERFORM release_move_source(NEW.id, 0);
            PERFORM pg_notify('portclaim_outbox', '');
        END IF;
        RETURN NULL;
    END IF;
    PERFORM lock_unplugged_source(NEW.id);
    UPDATE claim_moves SET status = 'reverted', reason = 'its target ' || _now
     WHERE target_claim_id = NEW.id AND live;
    IF FOUND THEN
        PERFORM plug_move_source(NEW.id);
    ELSE
        UPDATE claim_moves SET status = 'completed', reason = 'its source ' || _now
         WHERE source_claim_id = NEW.id AND live;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER follow_claim_status AFTER UPDATE OF status ON claims FOR EACH ROW
    WHEN (OLD.status IN ('claimed', 'prepared', 'allocated') AND OLD.status <> NEW.status)
    EXECUTE FUNCTION follow_claim_status();

CREATE OR REPLACE FUNCTION set_event_cause(_claim_id uuid, _cause text) RETURNS void LANGUAGE sql AS $$
    UPDATE claim_events SET cause = _cause
     WHERE id = (SELECT max(id) FROM claim_events WHERE claim_id = _claim_id)
$$;
COMMENT ON FUNCTION set_event_cause IS 'give the last event of a claim a more precise cause';
