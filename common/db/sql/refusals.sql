-- Refused claims. The schedulers count them in memory, and add their sums every few seconds.

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

CREATE OR REPLACE FUNCTION remove_old_refusals(_keep interval) RETURNS void LANGUAGE sql AS $$
    DELETE FROM refused_claims WHERE minute < now() - _keep
$$;
COMMENT ON FUNCTION remove_old_refusals IS 'remove the counts of minutes that are longer ago than _keep';
