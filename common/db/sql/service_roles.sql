-- What each service may do in the database. `portclaim db grant` makes the roles. Without them, the services use the role
-- that owns the schema, as in earlier releases.
--
-- No function is SECURITY DEFINER: whoever calls one needs the rights for all that it does. So the rights on tables and
-- columns decide, and a function needs no search_path of its own. Nobody but the owner can make anything in the schema.

DO $$
DECLARE
    _role text;
BEGIN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    FOREACH _role IN ARRAY ARRAY['portclaim_conductor', 'portclaim_scheduler'] LOOP
        CONTINUE WHEN to_regrole(_role) IS NULL;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', _role);
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO %I', _role);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA public TO %I', _role);
        EXECUTE format('REVOKE ALL ON api_tokens, host_keys, host_enrolments FROM %I', _role);
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON claims, claim_devices, outbox, waiting_claims, claim_moves,'
                       ' port_pools, host_pools TO %I', _role);
        EXECUTE format('GRANT INSERT ON claim_events, device_events, audit_events TO %I', _role);
        EXECUTE format('GRANT UPDATE ON project_quotas TO %I', _role);
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON refused_claims, refused_requests TO %I', _role);
    END LOOP;

    IF to_regrole('portclaim_scheduler') IS NOT NULL THEN
        -- What a device or a host is, only its agent says, and only conductors write.
        GRANT UPDATE (status, claim_id, reserved_for, drained_reason, counted, present, vfs)
            ON pci_devices TO portclaim_scheduler;
        GRANT UPDATE (disabled_reason, inventory_digest, imported_at, counted)
            ON compute_nodes TO portclaim_scheduler;
        GRANT SELECT (host, created_at, valid_until, revoked_at) ON host_keys TO portclaim_scheduler;
    END IF;

    IF to_regrole('portclaim_conductor') IS NOT NULL THEN
        GRANT INSERT, UPDATE ON pci_devices TO portclaim_conductor;
        GRANT INSERT, UPDATE (agent_id, inventory_digest, numa_cells, counted, inventoried_at, last_seen, imported_at,
                              last_number)
            ON compute_nodes TO portclaim_conductor;
        GRANT INSERT ON pools TO portclaim_conductor;
        GRANT DELETE ON claim_events, device_events TO portclaim_conductor; -- pruning
        GRANT INSERT, UPDATE, DELETE ON event_cursors, event_gaps TO portclaim_conductor;
        GRANT SELECT, INSERT ON host_keys TO portclaim_conductor;
        GRANT UPDATE (valid_until, changed_at) ON host_keys TO portclaim_conductor;
        GRANT SELECT, UPDATE (key_id) ON host_enrolments TO portclaim_conductor;
    END IF;

    IF to_regrole('portclaim_metrics') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO portclaim_metrics;
        GRANT SELECT ON pool_totals, hosts, waiting, awaited_steps, event_backlog, quotas TO portclaim_metrics;
    END IF;
END $$;
