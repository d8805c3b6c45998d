-- What operators and the HTTP API may do in the database. The role that runs the migrations owns everything.

-- Roles belong to the whole server: a migration of another database may create the role at the same moment.
DO $$ BEGIN
    CREATE ROLE portclaim_operator NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$;

-- Operators read the views and nothing else.
DO $$ BEGIN
    IF to_regrole('portclaim_operator') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO portclaim_operator;
        GRANT SELECT ON
            pf_vf_tree, pool_totals, hosts, claims_now, waiting, moves, awaited_steps, device_history, event_backlog,
            quotas, audit, refusals, recent_refusals
            TO portclaim_operator;
    END IF;
END $$;

-- The HTTP API makes and revokes tokens, and sets quotas. Everything else it only reads; claims are made by the schedulers.
DO $$ BEGIN
    CREATE ROLE portclaim_api NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$;
-- The API connects as the user of the services, for example, and takes this role. Another database's owner may have
-- made the role: then its membership is for an administrator to grant.
DO $$ BEGIN
    GRANT portclaim_api TO CURRENT_USER;
EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
    RAISE NOTICE 'grant portclaim_api to the user of the HTTP API';
END $$;
DO $$ BEGIN
    IF to_regrole('portclaim_api') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO portclaim_api;
        GRANT SELECT, INSERT, UPDATE ON api_tokens TO portclaim_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON project_quotas TO portclaim_api;
        GRANT SELECT, INSERT ON audit_events TO portclaim_api;
        GRANT SELECT ON
            claims, claim_events, claim_devices, claim_moves, device_events, outbox, pci_devices, pools, port_pools,
            compute_nodes, pool_totals
            TO portclaim_api;
    END IF;
END $$;

-- PostgreSQL lets everybody execute a new function. Only the owner executes ours.
DO $$
DECLARE
    _function regprocedure;
BEGIN
    FOR _function IN
        SELECT p.oid::regprocedure
          FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace AND pg_get_userbyid(p.proowner) = current_user
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', _function);
    END LOOP;
END $$;

DO $$ BEGIN
    IF to_regrole('portclaim_api') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION
            claim_events_after, device_events_after, requested_aliases, set_quota, unset_quota, record_act_once
            TO portclaim_api;
    END IF;
END $$;
