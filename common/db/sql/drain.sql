-- Take hosts and ports out of use, for a while or for good.

CREATE OR REPLACE FUNCTION known_host(_host text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _id bigint;
BEGIN
    SELECT id INTO _id FROM compute_nodes WHERE host = _host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format('there is no host %s', _host);
    END IF;
    RETURN _id;
END $$;

-- A null reason undrains. Both functions answer how many live claims the host or port has; these stay.
CREATE OR REPLACE FUNCTION drain_host(_host text, _reason text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
BEGIN
    UPDATE compute_nodes SET disabled_reason = _reason
     WHERE id = _node_id AND disabled_reason IS DISTINCT FROM _reason;
    RETURN (SELECT count(*) FROM claims WHERE compute_node_id = _node_id AND live);
END $$;

CREATE OR REPLACE FUNCTION drain_port(_host text, _address text, _reason text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
    _port_id bigint;
    _parent_id bigint;
BEGIN
    PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
    SELECT id, parent_id INTO _port_id, _parent_id
      FROM pci_devices WHERE compute_node_id = _node_id AND address = _address AND status <> 'removed';
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400', MESSAGE = format('host %s has no device %s', _host, _address);
    ELSIF _parent_id IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400', MESSAGE = format(
            '%s is a VF: drain the whole port, by the address of its PF, %s', _address,
            (SELECT address FROM pci_devices WHERE id = _parent_id));
    END IF;
    PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE;
    UPDATE pci_devices SET drained_reason = _reason
     WHERE (id = _port_id OR parent_id = _port_id) AND drained_reason IS DISTINCT FROM _reason;
    IF FOUND THEN
        PERFORM update_tree_statuses(ARRAY[_port_id]);
    END IF;
    RETURN (SELECT count(DISTINCT claim_id) FROM pci_devices WHERE id = _port_id OR parent_id = _port_id);
END $$;

-- The host keeps its row, for the history. If its agent reports again, its devices come back and the host stays
-- drained. The claims are locked before the host, in the order of an answer to a step.
CREATE OR REPLACE FUNCTION remove_host(
    _host text, _agent_down_after double precision, _reason text, _force_cause text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
    _claims bigint;
    _port_ids bigint[];
BEGIN
    PERFORM FROM claims WHERE compute_node_id = _node_id AND live ORDER BY id FOR UPDATE;
    GET DIAGNOSTICS _claims = ROW_COUNT;
    PERFORM FROM compute_nodes
      WHERE id = _node_id AND last_seen < now() - make_interval(secs => _agent_down_after)
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC412', MESSAGE = format(
            'the agent of host %s is alive: drain the host and stop its agent first', _host);
    ELSIF _claims > 0 AND _force_cause IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC423', MESSAGE = format(
            'host %s has %s live claims: release them while its agent runs, or end them by force',
            _host, _claims);
    END IF;
    PERFORM force_release(id, _agent_down_after, _force_cause)
       FROM claims WHERE compute_node_id = _node_id AND live;

    _port_ids := ARRAY(SELECT id FROM pci_devices
                        WHERE compute_node_id = _node_id AND parent_id IS NULL ORDER BY id);
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    IF EXISTS (SELECT FROM pci_devices WHERE compute_node_id = _node_id AND claim_id IS NOT NULL) THEN
        RAISE serialization_failure USING MESSAGE = 'a claim was made before the trees were locked';
    END IF;
    UPDATE pci_devices SET status = 'removed', present = false, vfs = 0
     WHERE compute_node_id = _node_id AND (status <> 'removed' OR present OR vfs <> 0);
    PERFORM refresh_port_pools(_port_ids);
    UPDATE compute_nodes SET disabled_reason = _reason, inventory_digest = NULL, imported_at = NULL
     WHERE id = _node_id AND (disabled_reason IS DISTINCT FROM _reason OR inventory_digest IS NOT NULL
                              OR imported_at IS NOT NULL);
    RETURN _claims;
END $$;
COMMENT ON FUNCTION remove_host IS
    'mark all devices of a silent host as removed and drain the host; answers how many claims were ended by force';
