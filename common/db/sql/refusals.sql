-- Refused claims. The schedulers count them and keep the newest in memory, and write both every few seconds.

-- Rows are locked in the order of their keys: schedulers add to the same rows.
CREATE OR REPLACE FUNCTION count_refusals(_reasons text[], _aliases text[], _numbers bigint[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO refused_claims AS r (minute, reason, alias, refused)
    SELECT date_trunc('minute', now()), reason, alias, number
      FROM unnest(_reasons, _aliases, _numbers) AS counted (reason, alias, number)
     ORDER BY reason, alias
        ON CONFLICT (minute, reason, alias) DO UPDATE SET refused = r.refused + excluded.refused
$$;
COMMENT ON FUNCTION count_refusals IS 'add the refusals that a scheduler has counted to those of this minute';

-- The age of a refusal is counted until the scheduler sends this statement. now() is earlier, when the transaction began:
-- with it, a refusal could come before one that was recorded before it.
--
-- A row that another scheduler has just renewed is locked by it, and is none of the oldest: it is skipped.
CREATE OR REPLACE FUNCTION keep_refusals(_refused jsonb, _most bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO refused_requests AS r
           (claim_id, project, instance_id, at, times, reason, message, request, is_cut, explanation)
    SELECT claim_id, project, instance_id, statement_timestamp() - make_interval(secs => ago), times, reason, message,
           request, is_cut, explanation
      FROM jsonb_to_recordset(_refused) AS refused
           (claim_id uuid, project text, instance_id uuid, ago double precision, times bigint, reason text, message text,
            request jsonb, is_cut boolean, explanation jsonb)
     ORDER BY claim_id, project
        ON CONFLICT (claim_id, project) DO UPDATE
       SET instance_id = excluded.instance_id, at = excluded.at, times = r.times + excluded.times,
           reason = excluded.reason, message = excluded.message, request = excluded.request, is_cut = excluded.is_cut,
           explanation = excluded.explanation;

    DELETE FROM refused_requests
     WHERE (claim_id, project) IN (
           SELECT claim_id, project FROM refused_requests
            WHERE at < (SELECT at FROM refused_requests ORDER BY at DESC OFFSET _most - 1 LIMIT 1)
              FOR UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION keep_refusals IS 'keep refused claims, and of all that are kept only the newest';

CREATE OR REPLACE FUNCTION remove_old_refusals(_keep interval) RETURNS void LANGUAGE sql AS $$
    DELETE FROM refused_claims WHERE minute < now() - _keep;
    DELETE FROM refused_requests
     WHERE (claim_id, project) IN (
           SELECT claim_id, project FROM refused_requests
            WHERE at < now() - least(_keep, interval '1 day') FOR UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION remove_old_refusals IS
    'remove the counts of minutes that are longer ago than _keep, and refused claims of more than a day ago';
