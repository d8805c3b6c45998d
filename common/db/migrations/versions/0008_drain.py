"""Hosts and ports that operators take out of use, for a while or for good."""

from importlib import import_module

from alembic import op

revision = "0008"
down_revision = "0007"

engine = import_module("portclaim.common.db.migrations.versions.0003_claim_engine")
life_cycle = import_module("portclaim.common.db.migrations.versions.0004_claim_life_cycle")
views = import_module("portclaim.common.db.migrations.versions.0002_operator_views")

# On each device of the port, so that whoever frees one need not look at its PF. What is drained and free is
# unavailable: a claim that chooses among what is available is asked to look at nothing more.
DRAINED = """
ALTER TABLE pci_devices ADD COLUMN drained_reason text;
COMMENT ON COLUMN pci_devices.drained_reason IS 'why an operator took its port out; null: it takes claims';
"""

# null as the reason brings it back. The answer is how many live claims are there and stay.
DRAIN_HOST = """
CREATE FUNCTION drain_host(_host text, _reason text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
BEGIN
    UPDATE compute_nodes SET disabled_reason = _reason
     WHERE id = _node_id AND disabled_reason IS DISTINCT FROM _reason;
    RETURN (SELECT count(*) FROM claims WHERE compute_node_id = _node_id AND live);
END $$;
"""

DRAIN_PORT = """
CREATE FUNCTION drain_port(_host text, _address text, _reason text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
    _port_id bigint;
    _parent_id bigint;
BEGIN
    PERFORM FROM compute_nodes WHERE id = _node_id FOR NO KEY UPDATE;
    SELECT id, parent_id INTO _port_id, _parent_id
      FROM pci_devices WHERE compute_node_id = _node_id AND address = _address AND status <> 'removed';
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400', MESSAGE = format('host %s has no port %s', _host, _address);
    ELSIF _parent_id IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC400', MESSAGE = format(
            '%s is a VF: a port is drained as a whole, by the address of its PF, which is %s', _address,
            (SELECT address FROM pci_devices WHERE id = _parent_id));
    END IF;
    PERFORM FROM pci_devices WHERE id = _port_id FOR UPDATE;
    UPDATE pci_devices SET drained_reason = _reason
     WHERE (id = _port_id OR parent_id = _port_id) AND drained_reason IS DISTINCT FROM _reason;
    IF FOUND THEN
        PERFORM settle_trees(ARRAY[_port_id]);
    END IF;
    RETURN (SELECT count(DISTINCT claim_id) FROM pci_devices WHERE id = _port_id OR parent_id = _port_id);
END $$;
"""

# It keeps its row, for the history's sake. If its agent reports again after all, its devices are there again,
# but the host stays drained. The claims are locked before the host, as an answer to a step does it.
REMOVE_HOST = """
CREATE FUNCTION remove_host(_host text, _agent_down_after double precision, _reason text, _force_cause text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _node_id bigint := known_host(_host);
    _claim_ids bigint;
    _port_ids bigint[];
BEGIN
    PERFORM FROM claims WHERE compute_node_id = _node_id AND live ORDER BY id FOR UPDATE;
    GET DIAGNOSTICS _claim_ids = ROW_COUNT;
    PERFORM FROM compute_nodes
      WHERE id = _node_id AND last_seen < now() - make_interval(secs => _agent_down_after)
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC412', MESSAGE = format(
            'the agent of host %s gives signs of life: drain the host, and stop its agent first', _host);
    ELSIF _claim_ids > 0 AND _force_cause IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PC423', MESSAGE = format(
            'host %s has %s live claims: release them and let its agent detach, or end them by force',
            _host, _claim_ids);
    END IF;
    PERFORM force_release(id, _agent_down_after, _force_cause)
       FROM claims WHERE compute_node_id = _node_id AND live;

    _port_ids := ARRAY(SELECT id FROM pci_devices
                        WHERE compute_node_id = _node_id AND parent_id IS NULL ORDER BY id);
    PERFORM FROM pci_devices WHERE id = ANY(_port_ids) ORDER BY id FOR UPDATE;
    IF EXISTS (SELECT FROM pci_devices WHERE compute_node_id = _node_id AND claim_id IS NOT NULL) THEN
        RAISE serialization_failure USING MESSAGE = 'a claim came before the trees were locked';
    END IF;
    UPDATE pci_devices SET status = 'removed', present = false, vfs = 0
     WHERE compute_node_id = _node_id AND (status <> 'removed' OR present OR vfs <> 0);
    PERFORM count_ports(_port_ids);
    UPDATE compute_nodes SET disabled_reason = _reason, inventory_digest = NULL
     WHERE id = _node_id AND (disabled_reason IS DISTINCT FROM _reason OR inventory_digest IS NOT NULL);
    RETURN _claim_ids;
END $$;
"""

KNOWN_HOST = """
CREATE FUNCTION known_host(_host text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    _id bigint;
BEGIN
    SELECT id INTO _id FROM compute_nodes WHERE host = _host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PC405', MESSAGE = format('there is no host %s', _host);
    END IF;
    RETURN _id;
END $$;
"""

HOSTS = """
CREATE VIEW hosts AS
SELECT n.host,
       n.disabled_reason AS drained_reason,
       now() - n.last_seen AS agent_silent_for,
       d.devices,
       d.available,
       d.ports_drained,
       (SELECT count(*) FROM claims c WHERE c.compute_node_id = n.id AND c.live) AS live_claims
  FROM compute_nodes n
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE d.status <> 'removed') AS devices,
              count(*) FILTER (WHERE d.status = 'available' AND n.disabled_reason IS NULL) AS available,
              count(*) FILTER (WHERE d.drained_reason IS NOT NULL AND d.parent_id IS NULL) AS ports_drained
         FROM pci_devices d
        WHERE d.compute_node_id = n.id
       ) d;
GRANT SELECT ON hosts TO portclaim_operator;
"""

DRAINED_PORT = "WHEN d.drained_reason IS NOT NULL THEN 'port drained: ' || d.drained_reason"

FUNCTIONS = (
    "drain_host(text, text)",
    "drain_port(text, text, text)",
    "known_host(text)",
    "remove_host(text, double precision, text, text)",
)


def upgrade() -> None:
    for statement in (DRAINED, KNOWN_HOST, DRAIN_HOST, DRAIN_PORT, REMOVE_HOST, HOSTS):
        op.execute(statement)
    # As they are now, wherever earlier ones were made.
    for function in (engine.SETTLE_TREES, life_cycle.FREE_DEVICES):
        op.execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute(tree(DRAINED_PORT))
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute(tree(""))
    op.execute("DROP VIEW hosts")
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
    op.execute("ALTER TABLE pci_devices DROP COLUMN drained_reason")


def tree(drained: str) -> str:
    """The view, with more reasons why a device cannot be claimed."""
    before = "WHEN d.unusable_reason IS NOT NULL"
    sql: str = views.PF_VF_TREE.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    if drained:
        sql = sql.replace("'host disabled: '", "'host drained: '")
    return sql.replace(before, f"{drained}\n            {before}", 1)
