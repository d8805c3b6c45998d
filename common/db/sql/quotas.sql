-- Quotas: how many devices the claims of a project may hold, and how many of its claims may wait.
--
-- The use is counted in the transaction that changes it. A project without a quota has no row to lock. Lock order: the
-- rows of quotas come last, after claims and trees.

CREATE OR REPLACE FUNCTION requested_aliases(_request jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY(
        SELECT btrim(split_part(part, ':', 1))
          FROM unnest(string_to_array(_request -> 'extra_specs' ->> 'pci_passthrough:alias', ','))
               WITH ORDINALITY AS asked (part, place)
         ORDER BY place)
$$;
COMMENT ON FUNCTION requested_aliases IS
    'the aliases that a claim names, in the order of its requests; requests without an alias come after them';

-- Whoever sets the first quota of a project takes this lock alone, and counts what the project has. So no claim is
-- counted twice, and none is missed.
CREATE OR REPLACE FUNCTION lock_quota_use(_project text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1886351988, hashtext(_project));
    RETURN EXISTS (SELECT FROM project_quotas WHERE project = _project);
END $$;
COMMENT ON FUNCTION lock_quota_use IS 'keep the quotas of a project from being made or removed; has it one?';

CREATE OR REPLACE FUNCTION change_quota_use(
    _request jsonb, _pool_ids integer[], _request_indexes integer[], _waiting integer, _sign integer
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _aliases text[];
    _quota record;
    _over record;
BEGIN
    IF NOT lock_quota_use(_request ->> 'project') THEN
        RETURN;
    END IF;
    _aliases := requested_aliases(_request);
    PERFORM FROM project_quotas WHERE project = _request ->> 'project' ORDER BY alias FOR NO KEY UPDATE;
    FOR _quota IN
        UPDATE project_quotas q
           SET pfs = q.pfs + _sign * asked.asked_pfs, vfs = q.vfs + _sign * asked.asked_vfs,
               waiting = q.waiting + _sign * asked.asked_waiting
          FROM project_quotas of
         CROSS JOIN LATERAL (
               SELECT (count(*) FILTER (WHERE p.dev_type <> 'type-VF'))::integer AS asked_pfs,
                      (count(*) FILTER (WHERE p.dev_type = 'type-VF'))::integer AS asked_vfs,
                      CASE WHEN of.alias = '' OR of.alias = ANY(_aliases) THEN _waiting ELSE 0 END AS asked_waiting
                 FROM unnest(_pool_ids, _request_indexes) AS device (pool_id, request_index)
                 JOIN pools p ON p.id = device.pool_id
                WHERE of.alias = '' OR of.alias = _aliases[device.request_index + 1]) asked
         WHERE of.project = _request ->> 'project' AND (q.project, q.alias) = (of.project, of.alias)
           AND (asked.asked_pfs, asked.asked_vfs, asked.asked_waiting) <> (0, 0, 0)
        RETURNING q.*, asked.*
    LOOP
        CONTINUE WHEN _sign < 0;
        SELECT kind, most, used - asked AS used, asked INTO _over
          FROM (VALUES ('PFs', _quota.max_pfs, _quota.pfs, _quota.asked_pfs),
                       ('VFs', _quota.max_vfs, _quota.vfs, _quota.asked_vfs),
                       ('waiting claims', _quota.max_waiting, _quota.waiting, _quota.asked_waiting))
               AS use (kind, most, used, asked)
         WHERE asked > 0 AND used > most
         LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'PC430',
                MESSAGE = format(
                    'the quota of project %s is %s %s%s: it has %s, and the claim asks for %s: release some, '
                    'or ask an operator for more', _quota.project, _over.most, _over.kind,
                    CASE WHEN _quota.alias <> '' THEN format(' of alias %s', _quota.alias) ELSE '' END,
                    _over.used, _over.asked),
                DETAIL = json_build_object(
                    'project', _quota.project, 'alias', nullif(_quota.alias, ''), 'kind', _over.kind,
                    'quota', _over.most, 'used', _over.used, 'asked', _over.asked);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION change_quota_use IS
    'count devices or a waiting claim of a project as used (_sign 1) or given back (-1); an error beyond its quota';

CREATE OR REPLACE FUNCTION refuse_new_quotas(_claim_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT request ->> 'project' AS project FROM claims
                             WHERE id = ANY(_claim_ids) AND request ->> 'project' IS NOT NULL ORDER BY 1) of
                WHERE lock_quota_use(project)) THEN
        RAISE serialization_failure USING MESSAGE = 'a quota was set meanwhile';
    END IF;
END $$;
COMMENT ON FUNCTION refuse_new_quotas IS 'an error if one of these new claims, which no quota counts, is of a project with a quota';

-- A trigger, because a claim can end in many ways.
CREATE OR REPLACE FUNCTION follow_quota_use() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    _pool_ids integer[];
    _request_indexes integer[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM change_quota_use(NEW.request, '{}', '{}', 1, 1);
    ELSIF OLD.status = 'waiting' THEN
        PERFORM change_quota_use(OLD.request, '{}', '{}', 1, -1);
    ELSE
        SELECT array_agg(pool_id), array_agg(request_index) INTO _pool_ids, _request_indexes
          FROM claim_devices WHERE claim_id = OLD.id;
        PERFORM change_quota_use(OLD.request, _pool_ids, _request_indexes, 0, -1);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER waiting_claim_uses_quota AFTER INSERT ON claims FOR EACH ROW
    WHEN (NEW.status = 'waiting' AND NEW.request ->> 'project' IS NOT NULL)
    EXECUTE FUNCTION follow_quota_use();

CREATE OR REPLACE TRIGGER ended_claim_gives_back_quota AFTER UPDATE OF status ON claims FOR EACH ROW
    WHEN (OLD.request ->> 'project' IS NOT NULL
          AND (OLD.status = 'waiting' AND NEW.status <> 'waiting'
               OR OLD.status NOT IN ('waiting', 'released', 'failed', 'expired')
                  AND NEW.status IN ('released', 'failed', 'expired')))
    EXECUTE FUNCTION follow_quota_use();

CREATE OR REPLACE FUNCTION set_quota(
    _project text, _alias text, _max_pfs integer, _max_vfs integer, _max_waiting integer
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE project_quotas SET max_pfs = _max_pfs, max_vfs = _max_vfs, max_waiting = _max_waiting
     WHERE (project, alias) = (_project, _alias);
    IF FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(1886351988, hashtext(_project));
    -- The next statement sees every claim that was made without a quota.
    INSERT INTO project_quotas AS q (project, alias, max_pfs, max_vfs, max_waiting, pfs, vfs, waiting)
    SELECT _project, _alias, _max_pfs, _max_vfs, _max_waiting,
           coalesce(sum(used.pfs), 0), coalesce(sum(used.vfs), 0),
           count(*) FILTER (WHERE c.status = 'waiting' AND (_alias = '' OR _alias = ANY(requested_aliases(c.request))))
      FROM claims c
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE p.dev_type <> 'type-VF') AS pfs,
                  count(*) FILTER (WHERE p.dev_type = 'type-VF') AS vfs
             FROM claim_devices cd
             JOIN pools p ON p.id = cd.pool_id
            WHERE cd.claim_id = c.id
              AND (_alias = '' OR _alias = (requested_aliases(c.request))[cd.request_index + 1])) used
     WHERE c.request ->> 'project' = _project AND (c.live OR c.status = 'waiting')
        ON CONFLICT (project, alias) DO UPDATE
       SET max_pfs = _max_pfs, max_vfs = _max_vfs, max_waiting = _max_waiting;
END $$;
COMMENT ON FUNCTION set_quota IS 'set the quota of a project for an alias, or for all devices (''''); null: no limit';

CREATE OR REPLACE FUNCTION unset_quota(_project text, _alias text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1886351988, hashtext(_project));
    DELETE FROM project_quotas WHERE (project, alias) = (_project, _alias);
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION unset_quota IS 'remove the quota of a project for an alias, or for all devices; false: there is none';
