"""The claim engine's own part of the database: how full each port is, and a claim in one round trip.

A claim is one call of one function, which locks, checks and writes, so that no lock is held while a
message travels between the scheduler and PostgreSQL. What to take is the scheduler's to choose.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

# What a port has of each pool of VFs, so that the fullest port with room is one step down an index.
# A hint: written with every change of the tree, checked under the tree's lock before it is relied on,
# and never the ground of a refusal.
PORT_POOLS = """

CREATE TABLE port_pools (
    port_id         bigint NOT NULL REFERENCES pci_devices,
    pool_id         integer NOT NULL REFERENCES pools,
    compute_node_id bigint NOT NULL,
    numa_node       integer,
    free            integer NOT NULL,
    held            integer NOT NULL,
    whole           boolean NOT NULL GENERATED ALWAYS AS (held = 0) STORED,
    PRIMARY KEY (port_id, pool_id)
);
COMMENT ON COLUMN port_pools.free IS 'VFs of the pool on the port that are available';
COMMENT ON COLUMN port_pools.held IS 'VFs of the port, of any pool, that somebody holds';
CREATE INDEX port_pools_by_room ON port_pools (pool_id, whole, free, held DESC, port_id) WHERE free > 0;
CREATE INDEX port_pools_by_host ON port_pools (compute_node_id, pool_id) WHERE free > 0;
"""

COUNT_PORTS = """

CREATE FUNCTION count_ports(_port_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO port_pools AS pp (port_id, pool_id, compute_node_id, numa_node, free, held)
    SELECT vf.parent_id, vf.pool_id, min(vf.compute_node_id), min(vf.numa_node),
           count(*) FILTER (WHERE vf.status = 'available'),
           sum(count(*) FILTER (WHERE NOT vf.unheld)) OVER (PARTITION BY vf.parent_id)
      FROM pci_devices vf
     WHERE vf.parent_id = ANY(_port_ids)
     GROUP BY vf.parent_id, vf.pool_id
        ON CONFLICT (port_id, pool_id) DO UPDATE
       SET free = EXCLUDED.free, held = EXCLUDED.held, numa_node = EXCLUDED.numa_node
     WHERE (pp.free, pp.held, pp.numa_node)
           IS DISTINCT FROM (EXCLUDED.free, EXCLUDED.held, EXCLUDED.numa_node);

    DELETE FROM port_pools pp
     WHERE pp.port_id = ANY(_port_ids)
       AND NOT EXISTS (SELECT FROM pci_devices vf
                        WHERE vf.parent_id = pp.port_id AND vf.pool_id = pp.pool_id);
END $$;
COMMENT ON FUNCTION count_ports IS 'make port_pools say what these ports, whose trees are locked, have';
"""

# The status of a device that nobody holds; _partner is how its tree partner is held, if it is.
# Nova's rules: a claimed partner makes unclaimable, an allocated one unavailable.
SETTLED_STATUS = """

CREATE FUNCTION settled_status(_offered boolean, _present boolean, _unusable_reason text, _partner text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN NOT _offered THEN 'unavailable'
                WHEN _partner = 'claimed' THEN 'unclaimable'
                WHEN _partner = 'allocated' THEN 'unavailable'
                WHEN _unusable_reason IS NOT NULL OR NOT _present THEN 'unavailable'
                ELSE 'available' END
$$;
"""

# A PF that was made unavailable stays so until all of its VFs are free (Nova).
SETTLE_TREES = """

CREATE FUNCTION settle_trees(_port_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pci_devices d
       SET status = settled.status
      FROM (SELECT port.id,
                   settled_status(port.offered, port.present,
                       coalesce(port.kept_for::text, port.drained_reason, port.unusable_reason),
                       CASE WHEN vfs.allocated OR vfs.held AND port.status = 'unavailable' THEN 'allocated'
                            WHEN vfs.held THEN 'claimed' END) AS status
              FROM pci_devices port
             CROSS JOIN LATERAL (
                   SELECT count(*) > 0 AS held, bool_or(vf.status = 'allocated') AS allocated
                     FROM pci_devices vf
                    WHERE vf.parent_id = port.id AND vf.status IN ('claimed', 'allocated')
                   ) vfs
             WHERE port.id = ANY(_port_ids) AND port.unheld AND port.status <> 'removed'
           ) settled
     WHERE d.id = settled.id AND d.status <> settled.status;

    UPDATE pci_devices vf
       SET status = settled_status(
               vf.offered, vf.present, coalesce(vf.kept_for::text, vf.drained_reason, vf.unusable_reason),
               pf.status)
      FROM pci_devices pf
     WHERE pf.id = ANY(_port_ids) AND vf.parent_id = pf.id AND vf.unheld AND vf.status <> 'removed'
       AND vf.status <> settled_status(
               vf.offered, vf.present, coalesce(vf.kept_for::text, vf.drained_reason, vf.unusable_reason),
               pf.status);

    PERFORM count_ports(_port_ids);
END $$;
COMMENT ON FUNCTION settle_trees IS
    'give the devices of these locked trees that nobody holds the status that follows from their tree';
"""

CLAIM_AS_JSON = """

CREATE FUNCTION claim_as_json(_claim_id uuid) RETURNS json LANGUAGE plpgsql STABLE AS $$
BEGIN RETURN (
    SELECT json_build_object(
               'claim_id', c.id, 'instance_id', c.instance_id, 'status', c.status,
               'host', (SELECT host FROM compute_nodes WHERE id = c.compute_node_id),
               'reason', c.reason, 'step', c.step, 'created_at', c.created_at, 'updated_at', c.updated_at,
               'devices', (
                   SELECT coalesce(json_agg(json_build_object(
                              'address', d.address, 'dev_type', p.dev_type, 'vendor_id', p.vendor_id,
                              'product_id', p.product_id, 'numa_node', d.numa_node, 'status', d.status,
                              'parent_address', (SELECT address FROM pci_devices WHERE id = d.parent_id),
                              'request_index', cd.request_index)
                              ORDER BY cd.request_index, d.id), '[]')
                     FROM claim_devices cd
                     JOIN pci_devices d ON d.id = cd.device_id
                     JOIN pools p ON p.id = cd.pool_id
                    WHERE cd.claim_id = c.id))
      FROM claims c
     WHERE c.id = _claim_id
); END $$;
"""

# Everything that a claim writes, over devices that are available and whose trees are locked.
WRITE_CLAIM = """

CREATE FUNCTION write_claim(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[]
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _count integer;
    _begun_ports bigint[];
    _whole_devices bigint[];
    _before text;
BEGIN
    INSERT INTO claims (id, instance_id, compute_node_id, request, first_device_id)
    SELECT _claim_id, _instance_id, compute_node_id, _request, id
      FROM pci_devices WHERE id = _device_ids[1]
        ON CONFLICT DO NOTHING; -- with any index: if one were named, the others could still raise an error
    IF NOT FOUND THEN -- by another call with this id; or the claim waited for this
        UPDATE claims c
           SET status = 'claimed', compute_node_id = d.compute_node_id, first_device_id = d.id,
               created_at = now(), updated_at = now()
          FROM pci_devices d
         WHERE c.id = _claim_id AND c.status = 'waiting' AND d.id = _device_ids[1]
           AND NOT EXISTS (SELECT FROM waiting_claims WHERE id = _claim_id)
        RETURNING 'waiting' INTO _before;
        IF NOT FOUND THEN
            RETURN claim_made(_claim_id, _request);
        END IF;
    END IF;

    WITH taken AS (
        UPDATE pci_devices SET status = 'claimed', claim_id = _claim_id
         WHERE id = ANY(_device_ids) AND status = 'available'
        RETURNING id, parent_id, pool_id
    ), remembered AS (
        INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
        SELECT _claim_id, id, pool_id, _request_indexes[array_position(_device_ids, id)] FROM taken
    ), room AS (
        UPDATE port_pools pp
           SET held = held + (SELECT count(*) FROM taken WHERE parent_id = pp.port_id),
               free = free - (SELECT count(*) FROM taken
                               WHERE parent_id = pp.port_id AND pool_id = pp.pool_id)
         WHERE port_id = ANY(ARRAY(SELECT parent_id FROM taken))
    ), step AS (
        INSERT INTO outbox (claim_id, step, action, sends, send_after)
        VALUES (_claim_id, 1, 'attach', 1, now() + make_interval(secs => _resend_after))
    ), event AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _before, 'claimed', CASE WHEN _before IS NULL THEN 'claim' ELSE 'served' END)
    )
    SELECT count(*),
           array_agg(parent_id) FILTER (
               WHERE 'available' = (SELECT status FROM pci_devices pf WHERE pf.id = taken.parent_id)),
           array_agg(id) FILTER (WHERE parent_id IS NULL)
      INTO _count, _begun_ports, _whole_devices
      FROM taken;
    IF _count < cardinality(_device_ids) THEN
        RAISE serialization_failure USING MESSAGE = 'a device changed under the lock of its tree';
    END IF;

    -- A PF takes its VFs along, a VF its PF; nothing else changes by itself.
    IF _begun_ports IS NOT NULL THEN
        UPDATE pci_devices SET status = 'unclaimable' WHERE id = ANY(_begun_ports) AND status = 'available';
    END IF;
    IF _whole_devices IS NOT NULL THEN
        UPDATE pci_devices SET status = 'unclaimable'
         WHERE parent_id = ANY(_whole_devices) AND status = 'available';
        UPDATE port_pools SET free = 0 WHERE port_id = ANY(_whole_devices);
    END IF;
    RETURN claim_as_json(_claim_id);
END $$;
"""

CLAIM_MADE = """

CREATE FUNCTION claim_made(_claim_id uuid, _request jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    _same boolean;
BEGIN
    SELECT request = _request INTO _same FROM claims WHERE id = _claim_id;
    IF _same THEN
        RETURN claim_as_json(_claim_id);
    ELSIF NOT _same THEN
        RAISE EXCEPTION USING ERRCODE = 'PC409', MESSAGE = format(
            'claim id %s is in use for another request: choose a new one', _claim_id);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION claim_made IS 'the claim, if it was made before; an error if the id was used otherwise';
"""

# The common claim: devices of one request from one port. NULL: nothing was taken, look again.
# Waiting for a lock is for one port at a time, so that nobody waits while holding another's.
CLAIM_ON_ONE_PORT = """

CREATE FUNCTION claim_on_one_port(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _count integer, _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _port_id bigint;
    _claim json;
BEGIN
    FOREACH _port_id IN ARRAY _port_ids LOOP
        IF _wait THEN
            PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE;
        ELSE
            PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
        END IF;
        _claim := claim_on_locked_port(
            _claim_id, _instance_id, _request, _resend_after, _count, _pool_ids, _port_id);
        IF _claim IS NOT NULL THEN
            RETURN _claim;
        END IF;
        EXIT WHEN _wait;
    END LOOP;
    RETURN claim_made(_claim_id, _request);
END $$;
"""

CLAIM_ON_LOCKED_PORT = """

CREATE FUNCTION claim_on_locked_port(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _count integer, _pool_ids integer[], _port_id bigint
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    -- The port itself, if the request is for such a device, or else VFs of it.
    _device_ids bigint[] := ARRAY(
        SELECT id FROM pci_devices
         WHERE id = _port_id AND status = 'available' AND pool_id = ANY(_pool_ids)
         UNION ALL
        (SELECT id FROM pci_devices
          WHERE parent_id = _port_id AND status = 'available' AND pool_id = ANY(_pool_ids)
          ORDER BY id LIMIT _count));
BEGIN
    IF cardinality(_device_ids) <> _count THEN
        RETURN NULL;
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after,
                       _device_ids, array_fill(0, ARRAY[_count]));
END $$;
"""

# Any other claim: exactly these devices, as long as each is still what it was when it was chosen, of the same
# pool and on the same port. NULL: a tree was locked, or a device was not free any more.
CLAIM_DEVICES = """
CREATE FUNCTION claim_devices_exactly(
    _claim_id uuid, _instance_id uuid, _request jsonb, _resend_after double precision,
    _device_ids bigint[], _request_indexes integer[], _pool_ids integer[], _port_ids bigint[], _wait boolean
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _found integer;
    _claim json := claim_made(_claim_id, _request);
BEGIN
    IF _claim IS NOT NULL THEN
        RETURN _claim;
    END IF;
    IF _wait THEN
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    ELSE
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE SKIP LOCKED;
        GET DIAGNOSTICS _found = ROW_COUNT;
        IF _found < (SELECT count(DISTINCT port_id) FROM unnest(_port_ids) AS port_id) THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM FROM pci_devices d
      JOIN unnest(_device_ids, _pool_ids, _port_ids) AS chosen (id, pool_id, port_id)
        ON d.id = chosen.id AND d.pool_id = chosen.pool_id AND coalesce(d.parent_id, d.id) = chosen.port_id
     WHERE d.status = 'available';
    GET DIAGNOSTICS _found = ROW_COUNT;
    IF _found < cardinality(_device_ids) THEN
        RETURN NULL;
    END IF;
    RETURN write_claim(_claim_id, _instance_id, _request, _resend_after, _device_ids, _request_indexes);
END $$;
"""

FUNCTIONS = {
    "settle_trees": "bigint[]",
    "settled_status": "boolean, boolean, text, text",
    "claim_devices_exactly": (
        "uuid, uuid, jsonb, double precision, bigint[], integer[], integer[], bigint[], boolean"
    ),
    "claim_on_one_port": "uuid, uuid, jsonb, double precision, integer, integer[], bigint[], boolean",
    "claim_on_locked_port": "uuid, uuid, jsonb, double precision, integer, integer[], bigint",
    "claim_made": "uuid, jsonb",
    "write_claim": "uuid, uuid, jsonb, double precision, bigint[], integer[]",
    "claim_as_json": "uuid",
    "count_ports": "bigint[]",
}


def upgrade() -> None:
    for statement in (
        PORT_POOLS,
        COUNT_PORTS,
        SETTLED_STATUS,
        SETTLE_TREES,
        CLAIM_AS_JSON,
        WRITE_CLAIM,
        CLAIM_MADE,
        CLAIM_ON_ONE_PORT,
        CLAIM_ON_LOCKED_PORT,
        CLAIM_DEVICES,
    ):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(_signatures())} FROM PUBLIC")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {', '.join(_signatures())}")
    op.execute("DROP TABLE port_pools")


def _signatures() -> list[str]:
    return [f"{name}({arguments})" for name, arguments in FUNCTIONS.items()]
