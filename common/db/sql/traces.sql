-- The caller of a function says in a setting of its transaction to which traces claims belong: a JSON object by claim. So
-- no function has a parameter for it, and without traces it costs a look at a setting that is not there.
CREATE OR REPLACE FUNCTION trace_of(_claim_id uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('portclaim.traceparents', true), '')::jsonb ->> _claim_id::text
$$;
COMMENT ON FUNCTION trace_of IS 'the trace that a step of this claim belongs to; null: none';
