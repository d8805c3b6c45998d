"""Claims that wait until they can be served: lines of them, and ports that are kept for who is first."""

from importlib import import_module

from alembic import op

revision = "0011"
down_revision = "0010"

engine = import_module("portclaim.common.db.migrations.versions.0003_claim_engine")
life_cycle = import_module("portclaim.common.db.migrations.versions.0004_claim_life_cycle")
drain = import_module("portclaim.common.db.migrations.versions.0008_drain")

# A claim that waits is a claim like any other, with an id that stands for it and a history; only that it has
# no host and no devices yet, and perhaps never will.
STATUSES = """
ALTER TABLE claims
    ALTER COLUMN compute_node_id DROP NOT NULL,
    ALTER COLUMN first_device_id DROP NOT NULL,
    DROP CONSTRAINT claims_status_check,
    ADD CONSTRAINT claims_status_check CHECK (status IN
        ('waiting', 'claimed', 'allocated', 'releasing', 'released', 'failed', 'expired')),
    ADD CONSTRAINT has_a_host_once_it_is_served CHECK (
        compute_node_id IS NOT NULL AND first_device_id IS NOT NULL AND status <> 'waiting'
        OR compute_node_id IS NULL AND first_device_id IS NULL
           AND status IN ('waiting', 'released', 'expired'));

ALTER TABLE claim_events DROP CONSTRAINT is_a_transition, ADD CONSTRAINT is_a_transition CHECK (
    (coalesce(from_status, ''), to_status) IN (
        ('', 'claimed'), ('', 'waiting'),
        ('waiting', 'claimed'), ('waiting', 'released'), ('waiting', 'expired'),
        ('claimed', 'allocated'), ('claimed', 'failed'),
        ('claimed', 'releasing'), ('claimed', 'released'),
        ('allocated', 'releasing'), ('allocated', 'failed'), ('allocated', 'released'),
        ('releasing', 'releasing'), ('releasing', 'released'), ('releasing', 'expired')));
"""

# As if those that were served had not waited, and the others had been refused.
NEVER_WAITED = """
DELETE FROM claim_events USING claims WHERE claim_id = claims.id AND compute_node_id IS NULL;
DELETE FROM claim_events WHERE to_status = 'waiting';
UPDATE claim_events SET from_status = NULL WHERE from_status = 'waiting';
DELETE FROM claims WHERE compute_node_id IS NULL;
ALTER TABLE claims
    DROP CONSTRAINT has_a_host_once_it_is_served,
    DROP CONSTRAINT claims_status_check,
    ADD CONSTRAINT claims_status_check CHECK (status IN
        ('claimed', 'allocated', 'releasing', 'released', 'failed', 'expired')),
    ALTER COLUMN compute_node_id SET NOT NULL,
    ALTER COLUMN first_device_id SET NOT NULL;
ALTER TABLE claim_events DROP CONSTRAINT is_a_transition, ADD CONSTRAINT is_a_transition CHECK (
    (coalesce(from_status, ''), to_status) IN (
        ('', 'claimed'),
        ('claimed', 'allocated'), ('claimed', 'failed'),
        ('claimed', 'releasing'), ('claimed', 'released'),
        ('allocated', 'releasing'), ('allocated', 'failed'), ('allocated', 'released'),
        ('releasing', 'releasing'), ('releasing', 'released'), ('releasing', 'expired')));
"""

# Those of one wish are a line, and place is their order in it. The wish is hashed: a request may be longer
# than an entry of a B-tree.
LINES = """
CREATE TABLE waiting_claims (
    id       uuid PRIMARY KEY REFERENCES claims,
    wish     jsonb NOT NULL,
    place    bigint GENERATED ALWAYS AS IDENTITY,
    since    timestamptz NOT NULL DEFAULT now(),
    deadline timestamptz NOT NULL
);
CREATE INDEX waiting_claims_by_wish ON waiting_claims USING hash (wish);
COMMENT ON COLUMN waiting_claims.wish IS 'the request, whoever it is for; those of one wish are a line';
"""

# On each device of the port, like drained_reason, and to the same effect: what is kept and free is
# unavailable, and a claim that chooses among what is available is asked to look at nothing more.
KEPT = """
ALTER TABLE pci_devices ADD COLUMN kept_for uuid REFERENCES waiting_claims;
CREATE INDEX pci_devices_kept ON pci_devices (kept_for) WHERE kept_for IS NOT NULL;
COMMENT ON COLUMN pci_devices.kept_for IS 'the waiting claim that its port is kept for; null: none';
"""

# Whatever gives a claim that waits a chance, whoever wrote it. Where nobody waits, it costs a look at an
# empty index.
BELL = """
CREATE FUNCTION ring_for_waiting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM waiting_claims) THEN
        PERFORM pg_notify('portclaim_waiting', '');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER there_is_room AFTER UPDATE OF status ON pci_devices FOR EACH ROW
    WHEN (NEW.status = 'available' AND OLD.status <> 'available' OR NEW.kept_for IS NOT NULL AND NEW.unheld)
    EXECUTE FUNCTION ring_for_waiting();

CREATE TRIGGER host_is_back AFTER UPDATE OF disabled_reason ON compute_nodes FOR EACH ROW
    WHEN (NEW.disabled_reason IS NULL AND OLD.disabled_reason IS NOT NULL)
    EXECUTE FUNCTION ring_for_waiting();
"""

WAIT_IN_LINE = """
CREATE FUNCTION wait_in_line(_claim_id uuid, _instance_id uuid, _request jsonb, _seconds double precision)
RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO claims (id, instance_id, status, request)
    VALUES (_claim_id, _instance_id, 'waiting', _request)
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO waiting_claims (id, wish, deadline)
        VALUES (_claim_id, _request - 'instance_id', now() + make_interval(secs => _seconds));
        INSERT INTO claim_events (claim_id, to_status, cause) VALUES (_claim_id, 'waiting', 'claim');
        -- What it wants may have become free since it was looked for; then nobody waited, and no bell rang.
        PERFORM pg_notify('portclaim_waiting', '');
    END IF;
    RETURN claim_made(_claim_id, _request);
END $$;
"""

CLAIM_IN_LINE = """
CREATE FUNCTION claim_in_line(_claim_id uuid, _request jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _claim json := claim_made(_claim_id, _request);
BEGIN
    IF _claim IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC429', MESSAGE = 'others that want the same wait';
    END IF;
    RETURN _claim;
END $$;
COMMENT ON FUNCTION claim_in_line IS 'the claim, if it was made before; an error, because others are first';
"""

# The claim is locked before its trees, as an answer to a step does it.
KEEP_PORTS = """
CREATE FUNCTION keep_ports(_claim_id uuid, _port_ids bigint[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _locked bigint[];
BEGIN
    PERFORM FROM claims WHERE id = _claim_id AND status = 'waiting' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    _locked := _port_ids || ARRAY(SELECT coalesce(parent_id, id) FROM pci_devices WHERE kept_for = _claim_id);
    PERFORM FROM pci_devices WHERE id = ANY(_locked) ORDER BY id FOR UPDATE;
    IF EXISTS (SELECT FROM pci_devices
                WHERE kept_for = _claim_id AND coalesce(parent_id, id) <> ALL(_locked)) THEN
        RAISE serialization_failure USING MESSAGE = 'a kept VF changed ports before they were locked';
    ELSIF EXISTS (SELECT FROM pci_devices
                   WHERE id = ANY(_port_ids)
                     AND (kept_for <> _claim_id OR drained_reason IS NOT NULL OR status = 'removed')) THEN
        RETURN false;
    END IF;
    UPDATE pci_devices SET kept_for = NULL
     WHERE kept_for = _claim_id AND coalesce(parent_id, id) <> ALL(_port_ids);
    UPDATE pci_devices SET kept_for = _claim_id
     WHERE (id = ANY(_port_ids) OR parent_id = ANY(_port_ids)) AND kept_for IS NULL;
    PERFORM settle_trees(_locked);
    RETURN true;
END $$;
COMMENT ON FUNCTION keep_ports IS
    'keep just these ports for a claim; false: it is at work, or waits no more, or one is not to be had';
"""

END_WAITING = """
CREATE FUNCTION end_waiting(_claim_id uuid, _status text, _cause text, _reason text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM keep_ports(_claim_id, '{}');
    DELETE FROM waiting_claims WHERE id = _claim_id;
    UPDATE claims SET status = _status, reason = _reason, updated_at = now() WHERE id = _claim_id;
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (_claim_id, 'waiting', _status, _cause);
    PERFORM pg_notify('portclaim_waiting', ''); -- for the next in line
END $$;
COMMENT ON FUNCTION end_waiting IS 'let a waiting claim, which is locked, end without having been served';
"""

EXPIRE_WAITING = """
CREATE FUNCTION expire_waiting(_claim_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _why text;
BEGIN
    SELECT format('not served within %s s', round(extract(epoch FROM w.deadline - w.since), 1)::real)
      INTO _why
      FROM claims c
      JOIN waiting_claims w ON w.id = c.id
     WHERE c.id = _claim_id AND c.status = 'waiting' AND w.deadline <= now()
       FOR UPDATE OF c SKIP LOCKED;
    IF FOUND THEN
        PERFORM end_waiting(_claim_id, 'expired', _why, _why);
    END IF;
    RETURN FOUND;
END $$;
"""

# In one transaction its keep is lifted and it is claimed, or neither. It waits no more before it has its
# devices, by which write_claim knows that it may have them.
SERVE_WAITING = """
CREATE FUNCTION serve_waiting(
    _claim_id uuid, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[]
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _instance_id uuid;
    _request jsonb;
    _kept bigint[];
    _found integer;
BEGIN
    SELECT c.instance_id, c.request INTO _instance_id, _request
      FROM claims c
      JOIN waiting_claims w ON w.id = c.id
     WHERE c.id = _claim_id AND c.status = 'waiting' AND w.deadline > now()
       AND NOT EXISTS (SELECT FROM waiting_claims other WHERE other.wish = w.wish AND other.place < w.place)
       FOR UPDATE OF c SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    _kept := ARRAY(SELECT id FROM pci_devices WHERE kept_for = _claim_id AND parent_id IS NULL);
    PERFORM FROM pci_devices WHERE id = ANY(_kept || _port_ids) ORDER BY id FOR UPDATE;
    PERFORM keep_ports(_claim_id, '{}');
    DELETE FROM waiting_claims WHERE id = _claim_id;
    PERFORM FROM pci_devices d
      JOIN unnest(_device_ids, _pool_ids, _port_ids) AS chosen (id, pool_id, port_id)
        ON d.id = chosen.id AND d.pool_id = chosen.pool_id AND coalesce(d.parent_id, d.id) = chosen.port_id
     WHERE d.status = 'available';
    GET DIAGNOSTICS _found = ROW_COUNT;
    IF _found < cardinality(_device_ids) THEN
        RAISE EXCEPTION USING ERRCODE = 'PC000', MESSAGE = 'what was chosen is not free any more';
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after, _device_ids, _request_indexes);
EXCEPTION
    WHEN SQLSTATE 'PC000' THEN RETURN NULL; -- and all is as it was
END $$;
COMMENT ON FUNCTION serve_waiting IS
    'claim what was chosen for the first of a line; null: it is not that any more, or somebody was faster';
"""

WAITING = """
CREATE VIEW waiting AS
SELECT w.id AS claim_id,
       c.instance_id,
       row_number() OVER (PARTITION BY w.wish ORDER BY w.place) AS place,
       w.wish -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias,
       w.wish AS wanted,
       now() - w.since AS waits_for,
       w.deadline - now() AS ends_in,
       kept.host AS kept_host,
       kept.ports AS kept_ports
  FROM waiting_claims w
  JOIN claims c ON c.id = w.id
 CROSS JOIN LATERAL (
       SELECT min(n.host) AS host, array_agg(d.address ORDER BY d.address) AS ports
         FROM pci_devices d
         JOIN compute_nodes n ON n.id = d.compute_node_id
        WHERE d.kept_for = w.id AND d.parent_id IS NULL
       ) kept;
GRANT SELECT ON waiting TO portclaim_operator;
"""

KEPT_PORT = "WHEN d.kept_for IS NOT NULL THEN 'kept for waiting claim ' || d.kept_for"

FUNCTIONS = (
    "claim_in_line(uuid, jsonb)",
    "end_waiting(uuid, text, text, text)",
    "expire_waiting(uuid)",
    "keep_ports(uuid, bigint[])",
    "ring_for_waiting()",
    "serve_waiting(uuid, double precision, bigint[], integer[], integer[], bigint[])",
    "wait_in_line(uuid, uuid, jsonb, double precision)",
)

# As they are now, wherever earlier ones were made.
CHANGED = (
    engine.SETTLE_TREES,
    engine.CLAIM_AS_JSON,
    engine.WRITE_CLAIM,
    life_cycle.BEGIN_RELEASE,
    life_cycle.FREE_DEVICES,
)


def upgrade() -> None:
    for statement in (STATUSES, LINES, KEPT, BELL, WAIT_IN_LINE, CLAIM_IN_LINE, KEEP_PORTS):
        op.execute(statement)
    for statement in (END_WAITING, EXPIRE_WAITING, SERVE_WAITING, WAITING):
        op.execute(statement)
    for function in CHANGED:
        op.execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute(drain.tree(drain.DRAINED_PORT + "\n            " + KEPT_PORT))
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP VIEW waiting")
    op.execute(drain.tree(drain.DRAINED_PORT))
    op.execute("DROP TRIGGER there_is_room ON pci_devices")
    op.execute("DROP TRIGGER host_is_back ON compute_nodes")
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
    op.execute("ALTER TABLE pci_devices DROP COLUMN kept_for")
    op.execute("DROP TABLE waiting_claims")
    op.execute(NEVER_WAITED)
