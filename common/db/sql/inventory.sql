-- What the conductor asks when an agent reports its inventory or answers. The report itself is applied row by row in
-- services/conductor/inventory.py.

CREATE OR REPLACE FUNCTION host_of_agent(_host text, _agent_id uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _id bigint;
    _owner uuid;
BEGIN
    SELECT id, agent_id INTO _id, _owner FROM compute_nodes WHERE host = _host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format(
            'host %s is unknown: its agent must report its inventory first', _host);
    ELSIF _owner <> _agent_id THEN
        RAISE EXCEPTION USING ERRCODE = 'PC403', MESSAGE = format(
            'another agent reports for host %s: set another [DEFAULT] host for one of the two, or stop it',
            _host);
    END IF;
    RETURN _id;
END $$;
COMMENT ON FUNCTION host_of_agent IS 'the id of the host that this agent reports for, or an error';

CREATE OR REPLACE FUNCTION has_missing_device(_node_id bigint, _port_ids bigint[])
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pci_devices
                    WHERE compute_node_id = _node_id AND NOT present AND status <> 'removed'
                      AND coalesce(parent_id, id) = ANY(_port_ids))
$$;
COMMENT ON FUNCTION has_missing_device IS 'did the last report of the host not list a device of these trees?';
