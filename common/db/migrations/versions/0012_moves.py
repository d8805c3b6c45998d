"""Moves: what an instance has is claimed on another host too, until one of the two claims is let go of."""

from alembic import op

revision = "0012"
down_revision = "0011"

MOVES = """
CREATE TABLE claim_moves (
    target_claim_id uuid PRIMARY KEY REFERENCES claims ON DELETE CASCADE,
    source_claim_id uuid NOT NULL REFERENCES claims ON DELETE CASCADE,
    status          text NOT NULL DEFAULT 'begun'
                    CHECK (status IN ('begun', 'completing', 'completed', 'reverted')),
    reason          text,
    begun_at        timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    live            boolean NOT NULL GENERATED ALWAYS AS (status IN ('begun', 'completing')) STORED,
    CHECK (source_claim_id <> target_claim_id)
);
CREATE UNIQUE INDEX claim_moves_live_by_source ON claim_moves (source_claim_id) WHERE live;
CREATE INDEX claim_moves_by_source ON claim_moves (source_claim_id);
COMMENT ON COLUMN claim_moves.reason IS 'what ended the move; null: a caller, or it has not ended';
"""

TRANSITIONS = """
CREATE FUNCTION keep_to_life_of_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (coalesce(OLD.status, ''), NEW.status) NOT IN (
        ('', 'begun'), ('begun', 'completing'), ('begun', 'completed'), ('begun', 'reverted'),
        ('completing', 'completed'), ('completing', 'reverted'))
    THEN
        RAISE check_violation USING MESSAGE = format(
            'a move that is %s does not become %s', coalesce(OLD.status, 'new'), NEW.status);
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER is_a_transition BEFORE INSERT OR UPDATE OF status ON claim_moves
    FOR EACH ROW EXECUTE FUNCTION keep_to_life_of_move();
"""

# Who locks both claims takes the target first; and who changes the move has locked one of them before, the
# source if it is to be released.
#
# A trigger, because a claim changes in many ways, and whatever way it was, the move goes along. An end that
# is let go of ends the move: of the two, the other is left.
FOLLOW_CLAIM = """
CREATE FUNCTION follow_claim() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _now text := format('is now %s', NEW.status) || coalesce(': ' || NEW.reason, '');
BEGIN
    IF NEW.status = 'allocated' THEN
        PERFORM FROM claim_moves WHERE target_claim_id = NEW.id AND status = 'completing';
        IF FOUND THEN
            PERFORM let_go_of_source(NEW.id, 0);
            PERFORM pg_notify('portclaim_outbox', '');
        END IF;
        RETURN NULL;
    END IF;
    UPDATE claim_moves SET status = 'reverted', reason = 'its target ' || _now
     WHERE target_claim_id = NEW.id AND live;
    IF NOT FOUND THEN
        UPDATE claim_moves SET status = 'completed', reason = 'its source ' || _now
         WHERE source_claim_id = NEW.id AND live;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER moves_follow AFTER UPDATE OF status ON claims FOR EACH ROW
    WHEN (OLD.status IN ('claimed', 'allocated') AND OLD.status <> NEW.status)
    EXECUTE FUNCTION follow_claim();
"""

LET_GO_OF_SOURCE = """
CREATE FUNCTION let_go_of_source(_target_id uuid, _resend_after double precision)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _source_id uuid := (SELECT source_claim_id FROM claim_moves WHERE target_claim_id = _target_id);
BEGIN
    PERFORM FROM claims WHERE id = _source_id FOR UPDATE;
    UPDATE claim_moves SET status = 'completed' WHERE target_claim_id = _target_id AND live;
    IF FOUND THEN
        PERFORM begin_release(_source_id, _resend_after);
        PERFORM name_cause(_source_id, format('moved to claim %s', _target_id));
    END IF;
END $$;
COMMENT ON FUNCTION let_go_of_source IS 'complete the live move to this claim, which is allocated and locked';
"""

NAME_CAUSE = """
CREATE FUNCTION name_cause(_claim_id uuid, _cause text) RETURNS void LANGUAGE sql AS $$
    UPDATE claim_events SET cause = _cause
     WHERE id = (SELECT max(id) FROM claim_events WHERE claim_id = _claim_id)
$$;
COMMENT ON FUNCTION name_cause IS 'say better why the claim is what this transaction has just made it';
"""

MOVE_AS_JSON = """
CREATE FUNCTION move_as_json(_target_id uuid) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_build_object(
               'status', status, 'reason', reason, 'begun_at', begun_at, 'updated_at', updated_at,
               'source', claim_as_json(source_claim_id), 'target', claim_as_json(target_claim_id))
      FROM claim_moves
     WHERE target_claim_id = _target_id
); END $$;
"""

MOVE_MADE = """
CREATE FUNCTION move_made(_source_id uuid, _claim_id uuid, _request jsonb)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _status text;
    _other_id uuid;
BEGIN
    IF claim_made(_claim_id, _request) IS NOT NULL THEN
        PERFORM FROM claim_moves WHERE target_claim_id = _claim_id AND source_claim_id = _source_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
                'claim id %s is in use, but not for a move of claim %s: choose a new one',
                _claim_id, _source_id);
        END IF;
        RETURN move_as_json(_claim_id);
    END IF;
    SELECT status INTO _status FROM claims WHERE id = _source_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('there is no claim %s', _source_id);
    ELSIF _status <> 'allocated' THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is %s: only an allocated one can be moved', _source_id, _status);
    END IF;
    SELECT target_claim_id INTO _other_id FROM claim_moves WHERE source_claim_id = _source_id AND live;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is being moved to claim %s: complete or revert that first', _source_id, _other_id);
    END IF;
    SELECT source_claim_id INTO _other_id FROM claim_moves WHERE target_claim_id = _source_id AND live;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'claim %s is where claim %s is being moved: complete or revert that first',
            _source_id, _other_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION move_made IS
    'the move, if it was made before; an error if the source cannot be moved, or the id was used otherwise';
"""

# As claim_devices_exactly, and NULL as from there. The source is locked first: a claim before any tree.
MOVE_CLAIM = """
CREATE FUNCTION move_claim(
    _source_id uuid, _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _move json;
BEGIN
    PERFORM FROM claims WHERE id = _source_id FOR UPDATE;
    _move := move_made(_source_id, _claim_id, _request);
    IF _move IS NOT NULL THEN
        RETURN _move;
    END IF;
    IF claim_devices_exactly(_claim_id, _instance_id, _request, _resend_after,
                             _device_ids, _request_indexes, _pool_ids, _port_ids, _wait) IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO claim_moves (target_claim_id, source_claim_id) VALUES (_claim_id, _source_id);
    PERFORM name_cause(_claim_id, format('move of claim %s', _source_id));
    RETURN move_as_json(_claim_id);
END $$;
"""

COMPLETE_MOVE = """
CREATE FUNCTION complete_move(_claim_id uuid, _resend_after double precision)
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
        PERFORM let_go_of_source(_claim_id, _resend_after);
    ELSIF _move.status = 'begun' THEN
        UPDATE claim_moves SET status = 'completing' WHERE target_claim_id = _claim_id AND status = 'begun';
    END IF;
    RETURN move_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION complete_move IS
    'release the source of the move to this claim, now or once the claim is allocated; null: no such move';
"""

REVERT_MOVE = """
CREATE FUNCTION revert_move(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _source_id uuid;
BEGIN
    PERFORM FROM claims WHERE id = _claim_id FOR UPDATE;
    UPDATE claim_moves SET status = 'reverted' WHERE target_claim_id = _claim_id AND live
    RETURNING source_claim_id INTO _source_id;
    IF FOUND THEN
        PERFORM begin_release(_claim_id, _resend_after);
        PERFORM name_cause(_claim_id, format('move of claim %s reverted', _source_id));
    ELSIF EXISTS (SELECT FROM claim_moves WHERE target_claim_id = _claim_id AND status = 'completed') THEN
        RAISE EXCEPTION USING ERRCODE = 'PC424', MESSAGE = format(
            'the move to claim %s is completed, its source let go of: move it back as a new move', _claim_id);
    END IF;
    RETURN move_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION revert_move IS
    'release the target of the move to this claim, and leave its source as it is; null: no such move';
"""

VIEW = """
CREATE VIEW moves AS
SELECT source.instance_id,
       m.status,
       m.reason,
       m.source_claim_id,
       source_node.host AS source_host,
       source.status AS source_status,
       m.target_claim_id,
       target_node.host AS target_host,
       target.status AS target_status,
       m.begun_at,
       m.updated_at
  FROM claim_moves m
  JOIN claims source ON source.id = m.source_claim_id
  JOIN claims target ON target.id = m.target_claim_id
  JOIN compute_nodes source_node ON source_node.id = source.compute_node_id
  JOIN compute_nodes target_node ON target_node.id = target.compute_node_id;
GRANT SELECT ON moves TO portclaim_operator;
"""

FUNCTIONS = (
    "complete_move(uuid, double precision)",
    "follow_claim()",
    "keep_to_life_of_move()",
    "let_go_of_source(uuid, double precision)",
    "move_as_json(uuid)",
    "move_claim(uuid, uuid, uuid, jsonb, double precision,"
    " bigint[], integer[], integer[], bigint[], boolean)",
    "move_made(uuid, uuid, jsonb)",
    "name_cause(uuid, text)",
    "revert_move(uuid, double precision)",
)


def upgrade() -> None:
    for statement in (
        MOVES,
        TRANSITIONS,
        NAME_CAUSE,
        LET_GO_OF_SOURCE,
        FOLLOW_CLAIM,
        MOVE_AS_JSON,
        MOVE_MADE,
        MOVE_CLAIM,
        COMPLETE_MOVE,
        REVERT_MOVE,
        VIEW,
    ):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP VIEW moves")
    op.execute("DROP TRIGGER moves_follow ON claims")
    op.execute("DROP TABLE claim_moves")
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
