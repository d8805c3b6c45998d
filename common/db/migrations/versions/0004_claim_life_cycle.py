"""A claim's life after the claim, in one round trip each: the release, and an agent's answer to a step."""

from alembic import op

revision = "0004"
down_revision = "0003"

BEGIN_RELEASE = """
CREATE FUNCTION begin_release(_claim_id uuid, _resend_after double precision)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _status text;
    _step integer;
BEGIN
    SELECT status, step + 1 INTO _status, _step FROM claims WHERE id = _claim_id FOR UPDATE;
    IF _status IN ('claimed', 'allocated') THEN
        WITH overtaken AS (
            DELETE FROM outbox WHERE claim_id = _claim_id
        ), step AS (
            INSERT INTO outbox (claim_id, step, action, sends, send_after)
            VALUES (_claim_id, _step, 'detach', 1, now() + make_interval(secs => _resend_after))
        ), event AS (
            INSERT INTO claim_events (claim_id, from_status, to_status, cause)
            VALUES (_claim_id, _status, 'releasing', 'release')
        )
        UPDATE claims SET status = 'releasing', step = _step, updated_at = now() WHERE id = _claim_id;
    ELSIF _status = 'waiting' THEN
        PERFORM end_waiting(_claim_id, 'released', 'release', NULL);
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
# agent has undone what it did; so does one that was done and is told to have failed since, because the
# instance is gone. A detach that failed keeps them, and its step is sent again.
ANSWER_STEP = """
CREATE FUNCTION answer_step(
    _host text, _agent_id uuid, _claim_id uuid, _step integer, _done boolean, _reason text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint;
    _from_status text;
    _to_status text;
    _latest integer;
    _expiry text;
BEGIN
    SELECT c.status, c.step, c.expiry, n.id INTO _from_status, _latest, _expiry, _node_id
      FROM claims c
      JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = _claim_id AND n.host = _host AND n.agent_id = _agent_id
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        PERFORM host_of_agent(_host, _agent_id);
        RAISE EXCEPTION USING ERRCODE = 'PC404', MESSAGE = format('no claim %s on %s', _claim_id, _host);
    ELSIF _step < _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC410',
            MESSAGE = format('step %s of claim %s was overtaken by step %s', _step, _claim_id, _latest);
    ELSIF _step > _latest THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400',
            MESSAGE = format('claim %s has no step %s, only %s', _claim_id, _step, _latest);
    END IF;

    _to_status := CASE
        WHEN _from_status = 'claimed' AND _done THEN 'allocated'
        WHEN _from_status = 'releasing' AND NOT _done THEN 'releasing'
        WHEN _from_status = 'releasing' AND _expiry IS NOT NULL THEN 'expired'
        WHEN _from_status = 'releasing' THEN 'released'
        WHEN _from_status IN ('claimed', 'allocated') AND NOT _done THEN 'failed' END;
    IF _to_status IS NULL THEN -- answered before
        RETURN;
    ELSIF _to_status IN ('released', 'failed', 'expired') THEN
        PERFORM free_devices(_claim_id, _node_id);
    ELSIF _to_status = 'allocated' THEN
        PERFORM mark_attached(_claim_id);
    END IF;
    WITH answered AS (
        DELETE FROM outbox WHERE claim_id = _claim_id AND step = _step AND _to_status <> 'releasing'
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _from_status, _to_status,
                CASE WHEN _from_status = 'releasing' THEN 'detach' ELSE 'attach' END
                || CASE WHEN _done THEN ' done' ELSE coalesce(' failed: ' || _reason, ' failed') END)
    )
    UPDATE claims SET status = _to_status, reason = coalesce(_reason, _expiry), updated_at = now()
     WHERE id = _claim_id;
END $$;
"""

MARK_ATTACHED = """
CREATE FUNCTION mark_attached(_claim_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _port_ids bigint[] := ports_of(_claim_id);
BEGIN
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    UPDATE pci_devices SET status = 'allocated' WHERE claim_id = _claim_id;
    UPDATE pci_devices SET status = 'unavailable'
     WHERE status = 'unclaimable' AND (id = ANY(_port_ids) OR parent_id = ANY(_port_ids));
END $$;
"""

FREE_DEVICES = """
CREATE FUNCTION free_devices(_claim_id uuid, _node_id bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _port_ids bigint[];
    _was_one_missing boolean;
    _is_one_missing boolean;
    _settled_ports bigint[];
BEGIN
    SELECT ports.ids, is_one_missing(_node_id, ports.ids) INTO _port_ids, _was_one_missing
      FROM (SELECT ports_of(_claim_id) AS ids) ports;

    -- What the host did not list was kept because it was in use: the next report decides anew. The host is
    -- locked before its trees, as a report does it, and only if there is something to say; which a report
    -- that was under way may have said by then.
    IF _was_one_missing THEN
        PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
        UPDATE compute_nodes SET inventory_digest = NULL
         WHERE id = _node_id AND is_one_missing(_node_id, _port_ids);
    END IF;
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;

    -- The clock, read under the trees' locks: now() is when this transaction began, perhaps long before
    -- it got them, and the holds of two that waited for one another would not fit together.
    WITH remembered AS (
        UPDATE claim_devices SET held_until = clock_timestamp() WHERE claim_id = _claim_id
    ), freed AS (
        UPDATE pci_devices
           SET status = settled_status(
                   offered, present, coalesce(kept_for::text, drained_reason, unusable_reason), NULL),
               claim_id = NULL
         WHERE claim_id = _claim_id
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
           is_one_missing(_node_id, _port_ids)
      INTO _settled_ports, _is_one_missing;
    IF _is_one_missing AND NOT _was_one_missing THEN
        RAISE serialization_failure USING MESSAGE = 'a report came before the trees were locked';
    END IF;
    -- The trees of which nothing is held any more; the others are as they were.
    IF cardinality(_settled_ports) > 0 THEN
        PERFORM settle_trees(_settled_ports);
    END IF;
END $$;
"""

PORTS_OF = """
CREATE FUNCTION ports_of(_claim_id uuid) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT DISTINCT coalesce(parent_id, id) FROM pci_devices WHERE claim_id = _claim_id)
$$;
"""

IS_ONE_MISSING = """
CREATE INDEX pci_devices_missing ON pci_devices (compute_node_id) WHERE NOT present AND status <> 'removed';
CREATE FUNCTION is_one_missing(_node_id bigint, _port_ids bigint[])
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pci_devices
                    WHERE compute_node_id = _node_id AND NOT present AND status <> 'removed'
                      AND coalesce(parent_id, id) = ANY(_port_ids))
$$;
"""

FUNCTIONS = (
    "answer_step(text, uuid, uuid, integer, boolean, text)",
    "begin_release(uuid, double precision)",
    "free_devices(uuid, bigint)",
    "host_of_agent(text, uuid)",
    "is_one_missing(bigint, bigint[])",
    "mark_attached(uuid)",
    "ports_of(uuid)",
)


def upgrade() -> None:
    for statement in (
        BEGIN_RELEASE,
        HOST_OF_AGENT,
        ANSWER_STEP,
        PORTS_OF,
        IS_ONE_MISSING,
        FREE_DEVICES,
        MARK_ATTACHED,
    ):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
    op.execute("DROP INDEX pci_devices_missing")
