"""A claim ended by an operator's word, where its agent will not give its own."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Nobody knows what a silent host still has in its guests. So what is freed, and what the tree would hand out
# instead, counts as not listed until the host itself has reported anew, which its agent does once it has
# looked which of its claims have ended. The host is locked before its trees, as a report does it.
FORCE_RELEASE = """
CREATE FUNCTION force_release(_claim_id uuid, _agent_down_after double precision, _cause text)
RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    _status text;
    _node_id bigint;
    _host text;
    _is_silent boolean;
    _port_ids bigint[];
BEGIN
    SELECT status, compute_node_id INTO _status, _node_id FROM claims WHERE id = _claim_id FOR UPDATE;
    IF _status IN ('claimed', 'allocated', 'releasing') THEN
        SELECT host, last_seen < now() - make_interval(secs => _agent_down_after) INTO _host, _is_silent
          FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
        IF NOT _is_silent THEN
            RAISE EXCEPTION USING ERRCODE = 'PC412', MESSAGE = format(
                'the agent of host %s gives signs of life: release without force, and it will detach',
                _host);
        END IF;
        _port_ids := ports_of(_claim_id);
        PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
        UPDATE pci_devices SET present = false
         WHERE id = ANY(ARRAY(
               SELECT unnest(_port_ids)
                UNION SELECT id FROM pci_devices WHERE claim_id = _claim_id
                UNION SELECT vf.id FROM pci_devices pf JOIN pci_devices vf ON vf.parent_id = pf.id
                       WHERE pf.claim_id = _claim_id));
        PERFORM free_devices(_claim_id, _node_id);
        DELETE FROM outbox WHERE claim_id = _claim_id;
        UPDATE claims SET status = 'released', step = step + 1, reason = _cause, updated_at = now()
         WHERE id = _claim_id;
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        VALUES (_claim_id, _status, 'released', _cause);
    END IF;
    RETURN claim_as_json(_claim_id);
END $$;
COMMENT ON FUNCTION force_release IS 'end a claim of a silent host unasked; the claim as it then is, or null';
"""

FUNCTION = "force_release(uuid, double precision, text)"


def upgrade() -> None:
    op.execute(FORCE_RELEASE)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTION} FROM PUBLIC")
    op.execute("COMMENT ON COLUMN claims.reason IS 'why the claim failed, expired or was released by force'")


def downgrade() -> None:
    op.execute("COMMENT ON COLUMN claims.reason IS 'why the claim failed or expired'")
    op.execute(f"DROP FUNCTION {FUNCTION}")
