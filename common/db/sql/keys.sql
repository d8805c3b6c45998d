-- What signed messages need in the database: each is taken once, by whichever worker.

CREATE OR REPLACE FUNCTION note_number(_host text, _number bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE compute_nodes SET last_number = _number
     WHERE host = _host AND (last_number IS NULL OR last_number < _number);
    IF NOT FOUND THEN
        PERFORM check_number(_host, _number);
    END IF;
END $$;
COMMENT ON FUNCTION note_number IS
    'this signed report of a host is the last one; an error if one with a higher number was recorded before';

CREATE OR REPLACE FUNCTION check_number(_host text, _number bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    _last bigint := (SELECT last_number FROM compute_nodes WHERE host = _host);
BEGIN
    IF _last >= _number THEN
        RAISE EXCEPTION USING ERRCODE = 'PC411', DETAIL = json_build_object('last_number', _last), MESSAGE = format(
            'a later message of host %s was recorded before: this one comes late, or somebody has sent it again', _host);
    END IF;
END $$;
COMMENT ON FUNCTION check_number IS 'an error if a signed report or sign of life of the host is as new as this number';

CREATE OR REPLACE FUNCTION report_signed_inventory(
    _host text, _agent_id uuid, _agent_down_after double precision, _digest text, _base_digest text,
    _devices jsonb, _gone text[], _numa_cells jsonb, _number bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_number(_host, _number);
    RETURN report_inventory(_host, _agent_id, _agent_down_after, _digest, _base_digest, _devices, _gone, _numa_cells);
END $$;
COMMENT ON FUNCTION report_signed_inventory IS 'report_inventory, of a signed report: an error if it is not the last one';
