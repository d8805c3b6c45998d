-- How much each host has free, by pool and NUMA node: so that a claim that no host can serve is refused at once.
--
-- A claim changes the counters of its ports, in port_pools, and nothing of its host: claims on one host do not wait
-- for each other. host_pools has the sums of each host. count_hosts brings them up to date, and notes in "counted"
-- which value of each row it has counted. A host is uncounted as soon as one of its rows has another value. For such a
-- host the rows themselves are read. So every statement sees what is free at its own moment.

-- What a PF, or a device without a tree, adds to the sums: -1: nothing, 0: a device, 1: a free device.
CREATE OR REPLACE FUNCTION countable(_status text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE _status WHEN 'removed' THEN -1 WHEN 'available' THEN 1 ELSE 0 END
$$;

-- A change of the trees themselves. Only reports make one, and they have locked the host.
CREATE OR REPLACE FUNCTION mark_host_uncounted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE compute_nodes SET counted = false WHERE id = NEW.compute_node_id AND counted;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER mark_host_uncounted
    AFTER UPDATE OF pool_id, numa_node, parent_id ON pci_devices FOR EACH ROW
    WHEN ((OLD.parent_id IS NULL OR NEW.parent_id IS NULL)
          AND (OLD.pool_id, OLD.numa_node, OLD.parent_id) IS DISTINCT FROM (NEW.pool_id, NEW.numa_node, NEW.parent_id))
    EXECUTE FUNCTION mark_host_uncounted();

-- Drained hosts are passed over by the indexes of host_pools.
CREATE OR REPLACE FUNCTION mark_host_disabled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE host_pools SET disabled = NEW.disabled_reason IS NOT NULL WHERE compute_node_id = NEW.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER mark_host_disabled AFTER UPDATE OF disabled_reason ON compute_nodes FOR EACH ROW
    WHEN ((OLD.disabled_reason IS NULL) <> (NEW.disabled_reason IS NULL))
    EXECUTE FUNCTION mark_host_disabled();

CREATE OR REPLACE FUNCTION room_of_hosts(_node_ids bigint[], _as_counted boolean)
RETURNS TABLE (compute_node_id bigint, pool_id integer, numa_node integer, devices bigint, free bigint, ports bigint)
LANGUAGE sql STABLE AS $$
    SELECT compute_node_id, pool_id, coalesce(numa_node, -1),
           sum(devices)::bigint, sum(free)::bigint, count(*) FILTER (WHERE free > 0)
      FROM (SELECT pp.compute_node_id, pp.pool_id, pp.numa_node, pp.devices,
                   CASE WHEN _as_counted THEN pp.counted ELSE pp.free END AS free
              FROM port_pools pp
             WHERE pp.compute_node_id = ANY(_node_ids)
             UNION ALL
            SELECT d.compute_node_id, d.pool_id, d.numa_node, 1,
                   CASE WHEN _as_counted THEN d.counted ELSE countable(d.status) END
              FROM pci_devices d
             WHERE d.compute_node_id = ANY(_node_ids) AND d.parent_id IS NULL) room
     WHERE free >= 0
     GROUP BY compute_node_id, pool_id, coalesce(numa_node, -1)
$$;
COMMENT ON FUNCTION room_of_hosts IS
    'what these hosts have, by pool and NUMA node (-1: not known); now, or as of the last count_hosts';

CREATE OR REPLACE FUNCTION uncounted_hosts(_pool_ids integer[]) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT compute_node_id FROM port_pools WHERE pool_id = ANY(_pool_ids) AND counted <> free
                  UNION
                 SELECT compute_node_id FROM pci_devices
                  WHERE pool_id = ANY(_pool_ids) AND parent_id IS NULL AND counted <> countable(status)
                  UNION
                 SELECT id FROM compute_nodes WHERE NOT counted)
$$;
COMMENT ON FUNCTION uncounted_hosts IS 'the hosts whose sums in host_pools are not up to date for these pools';

-- A host is counted only if all of its changed rows could be locked: then no transaction is about to change them.
CREATE OR REPLACE FUNCTION count_hosts(_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    _node_ids bigint[];
    _port_ids bigint[];
    _pool_ids integer[];
    _device_ids bigint[];
    _locked bigint[]; -- the host of each locked row
BEGIN
    SELECT array_agg(id) INTO _node_ids
      FROM (SELECT id FROM compute_nodes
             WHERE id = ANY(ARRAY(
                   (SELECT DISTINCT compute_node_id FROM port_pools WHERE counted <> free LIMIT _limit)
                    UNION
                   (SELECT DISTINCT compute_node_id FROM pci_devices
                     WHERE parent_id IS NULL AND counted <> countable(status) LIMIT _limit)
                    UNION
                   (SELECT id FROM compute_nodes WHERE NOT counted LIMIT _limit)
                    LIMIT _limit))
             ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) host;
    IF _node_ids IS NULL THEN
        RETURN 0;
    END IF;

    SELECT coalesce(array_agg(port_id), '{}'), coalesce(array_agg(pool_id), '{}'), coalesce(array_agg(node_id), '{}')
      INTO _port_ids, _pool_ids, _locked
      FROM (SELECT port_id, pool_id, compute_node_id AS node_id FROM port_pools
             WHERE compute_node_id = ANY(_node_ids) AND counted <> free
             ORDER BY port_id, pool_id FOR NO KEY UPDATE SKIP LOCKED) changed;
    SELECT coalesce(array_agg(id), '{}'), _locked || array_agg(node_id) INTO _device_ids, _locked
      FROM (SELECT id, compute_node_id AS node_id FROM pci_devices
             WHERE compute_node_id = ANY(_node_ids) AND parent_id IS NULL AND counted <> countable(status)
             ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) changed;
    _node_ids := ARRAY(
        SELECT unnest(_node_ids)
        EXCEPT
        SELECT node_id
          FROM (SELECT changed.node_id, count(*)
                  FROM (SELECT compute_node_id AS node_id FROM port_pools
                         WHERE compute_node_id = ANY(_node_ids) AND counted <> free
                         UNION ALL
                        SELECT compute_node_id FROM pci_devices
                         WHERE compute_node_id = ANY(_node_ids) AND parent_id IS NULL
                           AND counted <> countable(status)) changed
                 GROUP BY changed.node_id
                EXCEPT
                SELECT node_id, count(*) FROM unnest(_locked) AS node_id GROUP BY node_id) partly_locked);

    -- IS TRUE makes PostgreSQL hash the subquery.
    UPDATE port_pools SET counted = free
     WHERE port_id = ANY(_port_ids) AND compute_node_id = ANY(_node_ids)
       AND ((port_id, pool_id) IN (SELECT * FROM unnest(_port_ids, _pool_ids))) IS TRUE;
    UPDATE pci_devices SET counted = countable(status)
     WHERE id = ANY(_device_ids) AND compute_node_id = ANY(_node_ids);
    WITH room AS MATERIALIZED (
        SELECT * FROM room_of_hosts(_node_ids, true)
    ), gone AS (
        DELETE FROM host_pools hp
         WHERE compute_node_id = ANY(_node_ids)
           AND NOT EXISTS (SELECT FROM room
                            WHERE (room.compute_node_id, room.pool_id, room.numa_node)
                                = (hp.compute_node_id, hp.pool_id, hp.numa_node))
    )
    INSERT INTO host_pools AS hp (compute_node_id, pool_id, numa_node, devices, free, ports,
                                  host_free, host_ports, disabled)
    SELECT room.*, sum(room.free) OVER host, sum(room.ports) OVER host, n.disabled_reason IS NOT NULL
      FROM room
      JOIN compute_nodes n ON n.id = room.compute_node_id
    WINDOW host AS (PARTITION BY room.compute_node_id, room.pool_id)
        ON CONFLICT (compute_node_id, pool_id, numa_node) DO UPDATE
       SET devices = EXCLUDED.devices, free = EXCLUDED.free, ports = EXCLUDED.ports,
           host_free = EXCLUDED.host_free, host_ports = EXCLUDED.host_ports, disabled = EXCLUDED.disabled;
    UPDATE compute_nodes SET counted = true WHERE id = ANY(_node_ids) AND NOT counted;
    RETURN cardinality(_node_ids);
END $$;
COMMENT ON FUNCTION count_hosts IS
    'bring the sums of at most so many uncounted hosts up to date; answers how many. A host whose rows are locked waits';

-- The hosts that may meet one need, found by an index. Each need is a number of devices of some pools; of the NUMA
-- nodes in cells, or of any (null); from so many different ports. With several pools, or cells, one of them has at
-- least its share. A host that is missing here has too few.
CREATE OR REPLACE FUNCTION likely_hosts(
    _pool_ids integer[], _count integer, _cells integer[], _ports integer, _limit bigint
) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    _pools integer := greatest(cardinality(_pool_ids), 1);
    _least integer := ceil(_count::numeric / _pools);
BEGIN
    IF _ports > _count / 2 THEN -- the ports are the harder condition
        _least := ceil(_ports::numeric / _pools);
        RETURN ARRAY(SELECT compute_node_id FROM host_pools
                      WHERE pool_id = ANY(_pool_ids) AND NOT disabled AND host_ports >= _least LIMIT _limit);
    ELSIF _cells IS NULL THEN
        RETURN ARRAY(SELECT compute_node_id FROM host_pools
                      WHERE pool_id = ANY(_pool_ids) AND NOT disabled AND host_free >= _least LIMIT _limit);
    END IF;
    _least := ceil(_count::numeric / (_pools * cardinality(_cells)));
    RETURN ARRAY(SELECT compute_node_id FROM host_pools
                  WHERE pool_id = ANY(_pool_ids) AND NOT disabled AND numa_node = ANY(_cells) AND free >= _least
                  UNION ALL
                 SELECT compute_node_id FROM host_pools
                  WHERE pool_id = ANY(_pool_ids) AND NOT disabled AND numa_node = -1 AND free > 0
                  LIMIT _limit);
END $$;
COMMENT ON FUNCTION likely_hosts IS 'the counted hosts that may have so many free devices, at most so many rows';

CREATE OR REPLACE FUNCTION may_be_served(_needs jsonb) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    _need record;
BEGIN
    FOR _need IN SELECT * FROM jsonb_to_recordset(_needs) AS need (pools integer[], count integer, cells integer[],
                                                                   ports integer) LOOP
        IF cardinality(uncounted_hosts(_need.pools)) = 0
           AND cardinality(likely_hosts(_need.pools, _need.count, _need.cells, _need.ports, 1)) = 0 THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION may_be_served IS 'false: no host has enough for one of these needs';

CREATE OR REPLACE FUNCTION hosts_with_room(
    _needs jsonb, _agent_down_after double precision, _hosts text[], _avoid_hosts text[], _node_ids bigint[]
) RETURNS SETOF bigint LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    _pool_ids integer[] := ARRAY(
        SELECT DISTINCT pool_id::integer
          FROM jsonb_array_elements(_needs) need, jsonb_array_elements_text(need -> 'pools') AS pool_id);
    _uncounted bigint[] := uncounted_hosts(_pool_ids);
    _likely bigint[];
    _fewest bigint := 200;
    _need record;
    _found bigint;
BEGIN
    IF _node_ids IS NOT NULL THEN
        _likely := _node_ids;
    ELSIF _hosts IS NOT NULL THEN
        _likely := ARRAY(SELECT id FROM compute_nodes WHERE host = ANY(_hosts));
    ELSIF NOT may_be_served(_needs) THEN
        RETURN;
    ELSE -- the need that the fewest hosts meet says where to look
        FOR _need IN SELECT * FROM jsonb_to_recordset(_needs) AS need (pools integer[], count integer, cells integer[],
                                                                       ports integer) LOOP
            _found := cardinality(likely_hosts(_need.pools, _need.count, _need.cells, _need.ports, _fewest));
            IF _likely IS NULL OR _found < _fewest THEN
                _fewest := _found;
                _likely := CASE _found WHEN 0 THEN '{}'
                           ELSE likely_hosts(_need.pools, _need.count, _need.cells, _need.ports, NULL) END;
            END IF;
        END LOOP;
    END IF;
    IF _hosts IS NULL AND _node_ids IS NULL THEN
        _likely := _likely || _uncounted;
    END IF;
    IF _node_ids IS NULL THEN
        _likely := ARRAY(
            SELECT n.id FROM compute_nodes n
             WHERE n.id = ANY(_likely) AND n.disabled_reason IS NULL
               AND n.last_seen > now() - make_interval(secs => _agent_down_after)
               AND (_avoid_hosts IS NULL OR NOT n.host = ANY(_avoid_hosts)));
    END IF;
    IF cardinality(_likely) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
        WITH room AS MATERIALIZED (
            SELECT hp.compute_node_id, hp.pool_id, hp.numa_node, hp.free, hp.ports
              FROM host_pools hp
             WHERE hp.compute_node_id = ANY(_likely) AND hp.pool_id = ANY(_pool_ids)
               AND (hp.compute_node_id IN (SELECT unnest(_uncounted))) IS NOT TRUE
             UNION ALL
            SELECT fresh.compute_node_id, fresh.pool_id, fresh.numa_node, fresh.free, fresh.ports
              FROM room_of_hosts(ARRAY(SELECT unnest(_uncounted) INTERSECT SELECT unnest(_likely)), false) fresh
        ), met AS (
            SELECT room.compute_node_id
              FROM jsonb_array_elements(_needs) WITH ORDINALITY AS element (need, number)
             CROSS JOIN jsonb_to_record(element.need) AS need (pools integer[], count integer, cells integer[],
                                                               ports integer)
              JOIN room ON room.pool_id = ANY(need.pools)
             WHERE need.cells IS NULL OR room.numa_node = ANY(need.cells) OR room.numa_node = -1
             GROUP BY room.compute_node_id, element.number, need.count, need.ports
            HAVING sum(room.free) >= need.count AND sum(room.ports) >= need.ports
        )
        SELECT met.compute_node_id FROM met
         GROUP BY met.compute_node_id
        HAVING count(*) = jsonb_array_length(_needs);
END $$;
COMMENT ON FUNCTION hosts_with_room IS
    'the hosts that take claims and have enough for each need, were it the only one: of all, or of those named; or of these,'
    ' which the caller has found to take claims';

-- Hosts that have the same free can serve the same claims: so one of each kind is enough to find out.
CREATE OR REPLACE FUNCTION close_hosts(
    _needs jsonb, _pool_ids integer[], _count integer, _by_numa boolean, _agent_down_after double precision,
    _hosts text[], _avoid_hosts text[], _busy bigint[], _most_first boolean,
    _after text, _limit integer
) RETURNS TABLE (compute_node_id bigint, kind text) LANGUAGE sql STABLE ROWS 32 AS $$
    WITH host AS MATERIALIZED (
        SELECT id FROM hosts_with_room(_needs, _agent_down_after, _hosts, _avoid_hosts, NULL) AS id
         WHERE id <> ALL(_busy)
    ), part AS ( -- OFFSET 0: host by host, however few hosts there are
        SELECT pp.compute_node_id, pp.port_id, least(pp.free, _count) AS free,
               format('%s: %s', pp.pool_id, least(pp.free, _count))
                   || CASE WHEN _by_numa THEN format(' at %s', coalesce(pp.numa_node::text, 'port ' || pp.port_id))
                      ELSE '' END AS kind
          FROM host
         CROSS JOIN LATERAL (SELECT * FROM port_pools
                              WHERE compute_node_id = host.id AND pool_id = ANY(_pool_ids) AND free > 0 OFFSET 0) pp
         UNION ALL
        SELECT d.compute_node_id, d.id, 1,
               format('%s', d.pool_id) || CASE WHEN _by_numa THEN format(' at %s', d.numa_node) ELSE '' END
          FROM host
         CROSS JOIN LATERAL (SELECT * FROM pci_devices
                              WHERE compute_node_id = host.id AND parent_id IS NULL
                                AND pool_id = ANY(_pool_ids) AND status = 'available' OFFSET 0) d
    ), port AS (
        SELECT compute_node_id, sum(free) AS free, string_agg(kind, '+' ORDER BY kind) AS kind
          FROM part GROUP BY compute_node_id, port_id
    ), whole AS (
        SELECT port.compute_node_id, to_char(CASE WHEN _most_first THEN 1000000000 - sum(free) ELSE sum(free) END, 'FM0000000000') || md5(
                   string_agg(port.kind, ',' ORDER BY port.kind)
                   || CASE WHEN _by_numa THEN (SELECT numa_cells::text FROM compute_nodes n
                                                WHERE n.id = port.compute_node_id) ELSE '' END) AS kind
          FROM port GROUP BY port.compute_node_id
    )
    SELECT min(whole.compute_node_id), whole.kind
      FROM whole
     WHERE whole.kind > _after
     GROUP BY whole.kind
     ORDER BY whole.kind
     LIMIT _limit
$$;
COMMENT ON FUNCTION close_hosts IS
    'one host of each kind that may serve the claim, in order of their free devices; a kind is what a host has free';
