"""A claim's life after the claim, in one round trip each: the release, and an agent's answer to a step."""

from alembic import op

revision = "0004"
down_revision = "0003"

BEGIN_RELEASE = """
CREATE FUNCTION begin_release(_claim_id uuid, _resend_after double precision)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _status text;
    _step integer;
BEGIN
    SELECT status, step + 1 INTO _status, _step FROM claims WHERE id = _claim_id FOR UPDATE;
    IF _status IN ('claimed', 'allocated') THEN
        UPDATE claims SET status = 'releasing', step = _step, updated_at = now() WHERE id = _claim_id;
        DELETE FROM outbox WHERE claim_id = _claim_id;
        INSERT INTO outbox (claim_id, step, action, sends, send_after)
        VALUES (_claim_id, _step, 'detach', 1, now() + make_interval(secs => _resend_after));
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _status, 'releasing', 'release');
    END IF;
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION begin_release IS 'begin to give a live claim back; the claim as it then stands, or null';
"""

HOST_OF_AGENT = """
CREATE FUNCTION host_of_agent(_host text, _agent_id uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _id bigint;
    _owner uuid;
BEGIN
    SELECT id, agent_id INTO _id, _owner FROM compute_nodes WHERE host = _host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format(
            'host %s is unknown: its agent has to report its inventory first', _host);
    ELSIF _owner <> _agent_id THEN
        RAISE EXCEPTION USING ERRCODE = 'PC403', MESSAGE = format(
            'another agent publishes for host %s: give one of the two another [DEFAULT] host, or stop it',
            _host);
    END IF;
    RETURN _id;
END $$;
"""

# What an agent's answer to a step changes. An attach that failed frees the devices at once, because the
# agent has undone what it did; a detach that failed keeps them, and its step is sent again.
ANSWER_STEP = """
CREATE FUNCTION answer_step(
    _host text, _agent_id uuid, _claim_id uuid, _step integer, _done boolean, _reason text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := host_of_agent(_host, _agent_id);
    _from_status text;
    _to_status text;
    _latest integer;
    _awaited text;
    _port_ids bigint[];
BEGIN
    SELECT status, step INTO _from_status, _latest
      FROM claims WHERE id = _claim_id AND compute_node_id = _node_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('no claim %s on %s', _claim_id, _host);
    ELSIF _step < _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC410',
            MESSAGE = format('step %s of claim %s was overtaken by step %s', _step, _claim_id, _latest);
    ELSIF _step > _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400',
            MESSAGE = format('claim %s has no step %s, only %s', _claim_id, _step, _latest);
    END IF;
    SELECT action INTO _awaited FROM outbox WHERE claim_id = _claim_id AND step = _step;
    IF NOT FOUND THEN -- answered before
        RETURN;
    END IF;

    _to_status := CASE WHEN _awaited = 'attach' AND _done THEN 'allocated'
                       WHEN _awaited = 'attach' THEN 'failed'
                       WHEN _done THEN 'released'
                       ELSE 'releasing' END;
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (_claim_id, _from_status, _to_status,
            _awaited || CASE WHEN _done THEN ' done' ELSE coalesce(' failed: ' || _reason, ' failed') END);
    IF _to_status = 'releasing' THEN
        UPDATE claims SET reason = _reason, updated_at = now() WHERE id = _claim_id;
        RETURN;
    END IF;
    DELETE FROM outbox WHERE claim_id = _claim_id;

    IF _to_status <> 'allocated' THEN -- the host before its trees, as a report locks them
        PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
    END IF;
    _port_ids := ARRAY(SELECT DISTINCT coalesce(parent_id, id) FROM pci_devices WHERE claim_id = _claim_id);
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    IF _to_status = 'allocated' THEN
        UPDATE pci_devices SET status = 'allocated' WHERE claim_id = _claim_id;
    ELSE
        -- Free, but not yet available: that is for settle_trees to say.
        UPDATE pci_devices SET status = 'unavailable', claim_id = NULL WHERE claim_id = _claim_id;
        -- The clock, read under the trees' locks: now() is when this transaction began, perhaps long before
        -- it got them, and the holds of two that waited for one another would not fit together.
        UPDATE claim_devices SET held_until = clock_timestamp() WHERE claim_id = _claim_id;
        -- What the host did not list was kept because it was in use: the next report decides anew.
        UPDATE compute_nodes SET inventory_digest = NULL
         WHERE id = _node_id
           AND EXISTS (SELECT FROM pci_devices
                        WHERE NOT present AND status <> 'removed'
                          AND (id = ANY(_port_ids) OR parent_id = ANY(_port_ids)));
    END IF;
    UPDATE claims SET status = _to_status, reason = _reason, updated_at = now() WHERE id = _claim_id;
    PERFORM settle_trees(_port_ids);
END $$;
"""

FUNCTIONS = (
    "answer_step(text, uuid, uuid, integer, boolean, text)",
    "begin_release(uuid, double precision)",
    "host_of_agent(text, uuid)",
)


def upgrade() -> None:
    for statement in (HOST_OF_AGENT, BEGIN_RELEASE, ANSWER_STEP):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
