"""Counters of each host, so that a claim that no host can serve is refused at once."""

from alembic import op

revision = "0003"
down_revision = "0002"

_STATEMENTS = """
ALTER TABLE compute_nodes ADD COLUMN counted boolean NOT NULL DEFAULT false;
CREATE INDEX compute_nodes_uncounted ON compute_nodes (id) WHERE NOT counted;
COMMENT ON COLUMN compute_nodes.counted IS 'host_pools has its devices; see room.sql';

ALTER TABLE pci_devices ADD COLUMN counted integer NOT NULL DEFAULT -1;
CREATE INDEX pci_devices_drained ON pci_devices (compute_node_id) WHERE drained_reason IS NOT NULL;
CREATE INDEX pci_devices_ports ON pci_devices (compute_node_id, id) WHERE parent_id IS NULL;
CREATE INDEX pci_devices_uncounted ON pci_devices (pool_id, compute_node_id)
    WHERE parent_id IS NULL
      AND counted <> CASE status WHEN 'removed' THEN -1 WHEN 'available' THEN 1 ELSE 0 END;
COMMENT ON COLUMN pci_devices.counted IS
    'what host_pools has of it, if it is no VF: -1: nothing, 0: a device, 1: a free device';

ALTER TABLE port_pools
    ADD COLUMN devices integer NOT NULL DEFAULT 0,
    ADD COLUMN counted integer NOT NULL DEFAULT -1;
UPDATE port_pools pp
   SET devices = truth.devices, numa_node = truth.numa_node
  FROM (SELECT parent_id, pool_id, count(*) FILTER (WHERE status <> 'removed') AS devices,
               CASE WHEN count(numa_node) = count(*) AND min(numa_node) = max(numa_node)
                    THEN min(numa_node) END AS numa_node
          FROM pci_devices WHERE parent_id IS NOT NULL GROUP BY parent_id, pool_id) truth
 WHERE (pp.port_id, pp.pool_id) = (truth.parent_id, truth.pool_id);
DROP INDEX port_pools_by_host;
CREATE INDEX port_pools_by_host ON port_pools (compute_node_id, pool_id);
CREATE INDEX port_pools_uncounted ON port_pools (pool_id, compute_node_id) WHERE counted <> free;
COMMENT ON COLUMN port_pools.numa_node IS 'of all its VFs of the pool; null: not known, or not the same';
COMMENT ON COLUMN port_pools.devices IS 'VFs of the pool on the port';
COMMENT ON COLUMN port_pools.counted IS 'the value of free that host_pools has; -1: none';

CREATE TABLE host_pools (
    compute_node_id bigint NOT NULL REFERENCES compute_nodes,
    pool_id         integer NOT NULL REFERENCES pools,
    numa_node       integer NOT NULL,
    devices         integer NOT NULL,
    free            integer NOT NULL,
    ports           integer NOT NULL,
    host_free       integer NOT NULL,
    host_ports      integer NOT NULL,
    disabled        boolean NOT NULL,
    PRIMARY KEY (compute_node_id, pool_id, numa_node)
);
CREATE INDEX host_pools_by_free ON host_pools (pool_id, host_free) WHERE NOT disabled;
CREATE INDEX host_pools_by_ports ON host_pools (pool_id, host_ports) WHERE NOT disabled;
CREATE INDEX host_pools_by_numa_node ON host_pools (pool_id, numa_node, free) WHERE NOT disabled;
COMMENT ON TABLE host_pools IS 'devices of each counted host, by pool and NUMA node';
COMMENT ON COLUMN host_pools.numa_node IS '-1: not known';
COMMENT ON COLUMN host_pools.ports IS 'ports that have a free device of the pool';
COMMENT ON COLUMN host_pools.host_free IS 'free devices of the pool on all NUMA nodes of the host';
COMMENT ON COLUMN host_pools.host_ports IS 'the same for ports';
COMMENT ON COLUMN host_pools.disabled IS 'an operator drained the host';
"""

# Lists of claims, and of waiting claims, that are read page by page.
_LISTS = """
CREATE INDEX claims_by_status ON claims (status, created_at, id);
CREATE INDEX claims_by_instance ON claims (instance_id);
CREATE UNIQUE INDEX waiting_claims_by_position ON waiting_claims (position);
"""

# These have other parameters now: several claims.
_REPLACED = "DROP FUNCTION ports_of(uuid), free_devices(uuid, bigint), mark_allocated(uuid);"

# A host that was taken over from Nova.
_IMPORTED = """
ALTER TABLE compute_nodes ADD COLUMN imported_at timestamptz;
COMMENT ON COLUMN compute_nodes.imported_at IS
    'when the host was taken over from Nova; null: it was not, or it was removed since';
"""

# What claims have agents set for VFs.
_NETWORK_SETTINGS = """
ALTER TABLE claim_devices ADD COLUMN network_settings jsonb;
COMMENT ON COLUMN claim_devices.network_settings IS
    'what the claim has the agent set for the device; null: it asks for nothing';
"""

# Tokens of the HTTP API, and the projects that claims belong to.
_API = """
CREATE TABLE api_tokens (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CHECK (name <> ''),
    role       text NOT NULL CHECK (role IN ('reader', 'claimer', 'operator')),
    project    text,
    sha256     bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT a_claimer_has_a_project CHECK
        (CASE role WHEN 'claimer' THEN project IS NOT NULL WHEN 'operator' THEN project IS NULL ELSE true END)
);
CREATE UNIQUE INDEX api_tokens_by_name ON api_tokens (name) WHERE revoked_at IS NULL;
COMMENT ON TABLE api_tokens IS 'bearer tokens of the HTTP API, also those that were revoked';
COMMENT ON COLUMN api_tokens.project IS 'the only project whose claims it sees; null: all';
COMMENT ON COLUMN api_tokens.sha256 IS 'the token itself is kept nowhere';
CREATE INDEX claims_by_project ON claims ((request ->> 'project'), created_at, id)
    WHERE request ->> 'project' IS NOT NULL;
"""

# Quotas of projects.
_QUOTAS = """
CREATE TABLE project_quotas (
    project     text NOT NULL CHECK (project <> ''),
    alias       text NOT NULL,
    max_pfs     integer CHECK (max_pfs >= 0),
    max_vfs     integer CHECK (max_vfs >= 0),
    max_waiting integer CHECK (max_waiting >= 0),
    pfs         integer NOT NULL CHECK (pfs >= 0),
    vfs         integer NOT NULL CHECK (vfs >= 0),
    waiting     integer NOT NULL CHECK (waiting >= 0),
    PRIMARY KEY (project, alias)
);
COMMENT ON TABLE project_quotas IS 'how much the claims of a project may have, and how much they have';
COMMENT ON COLUMN project_quotas.alias IS 'counts only what is requested by this alias; empty: everything';
COMMENT ON COLUMN project_quotas.max_pfs IS 'PFs, and devices without VFs; null: no limit';
COMMENT ON COLUMN project_quotas.max_waiting IS 'claims that wait in queues; null: no limit';
"""

# What operators did.
_AUDIT = """
CREATE TABLE audit_events (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    who    text,
    action text NOT NULL,
    object text NOT NULL,
    reason text
);
CREATE INDEX audit_events_by_object ON audit_events (object, id);
COMMENT ON TABLE audit_events IS 'what operators did';
COMMENT ON COLUMN audit_events.who IS 'null: the caller gave none';
"""

# Why claims were refused.
_REFUSALS = """
CREATE TABLE refused_claims (
    minute  timestamptz NOT NULL,
    reason  text NOT NULL,
    alias   text NOT NULL,
    refused bigint NOT NULL CHECK (refused > 0),
    PRIMARY KEY (minute, reason, alias)
);
COMMENT ON TABLE refused_claims IS 'how many claims were refused in each minute, by reason';
COMMENT ON COLUMN refused_claims.alias IS 'what they asked for; empty: no alias, or several';

CREATE TABLE refused_requests (
    claim_id    uuid NOT NULL,
    project     text NOT NULL,
    instance_id uuid NOT NULL,
    at          timestamptz NOT NULL,
    times       bigint NOT NULL CHECK (times > 0),
    reason      text NOT NULL,
    message     text NOT NULL,
    request     jsonb NOT NULL,
    is_cut      boolean NOT NULL,
    explanation jsonb,
    PRIMARY KEY (claim_id, project)
);
CREATE INDEX refused_requests_by_time ON refused_requests (at, claim_id, project);
COMMENT ON TABLE refused_requests IS 'the claims that were refused last, at most a thousand, for a day';
COMMENT ON COLUMN refused_requests.project IS 'empty: none';
COMMENT ON COLUMN refused_requests.at IS 'when it was refused last';
COMMENT ON COLUMN refused_requests.times IS 'how often it was refused';
COMMENT ON COLUMN refused_requests.request IS 'what it asked for';
COMMENT ON COLUMN refused_requests.is_cut IS 'the request named more hosts or claims than are kept';
COMMENT ON COLUMN refused_requests.explanation IS 'as of then; null: it was not for want of devices';
"""

# The history of a device.
_HISTORY = "CREATE INDEX device_events_by_device ON device_events (device_id, id);"

# The trace that a step belongs to, for when it is sent again.
_TRACES = """
ALTER TABLE outbox ADD COLUMN traceparent text;
COMMENT ON COLUMN outbox.traceparent IS 'W3C trace context that the step belongs to; null: none';
"""

# Keys of hosts.
_TRUST = """
ALTER TABLE compute_nodes ADD COLUMN last_number bigint;
COMMENT ON COLUMN compute_nodes.last_number IS
    'number of the last signed report or sign of life: earlier ones are refused; null: none was signed';

CREATE TABLE host_keys (
    host        text NOT NULL CHECK (host <> ''),
    key_id      text NOT NULL,
    public_key  bytea NOT NULL CHECK (length(public_key) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz,
    revoked_at  timestamptz,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host, key_id)
);
CREATE INDEX host_keys_by_change ON host_keys (changed_at);
COMMENT ON TABLE host_keys IS 'public keys of hosts, also those that were replaced or revoked';
COMMENT ON COLUMN host_keys.valid_until IS 'when a key ends that another one has replaced; null: it does not';

CREATE TABLE host_enrolments (
    host       text PRIMARY KEY CHECK (host <> ''),
    sha256     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    key_id     text
);
COMMENT ON TABLE host_enrolments IS 'tokens with which agents have their first key registered';
COMMENT ON COLUMN host_enrolments.sha256 IS 'the token itself is kept nowhere';
COMMENT ON COLUMN host_enrolments.key_id IS 'the key that it was used for; null: it was not used';
"""


def upgrade() -> None:
    op.execute(_STATEMENTS)
    op.execute(_LISTS)
    op.execute(_REPLACED)
    op.execute(_IMPORTED)
    op.execute(_NETWORK_SETTINGS)
    op.execute(_API)
    op.execute(_QUOTAS)
    op.execute(_AUDIT)
    op.execute(_REFUSALS)
    op.execute(_HISTORY)
    op.execute(_TRACES)
    op.execute(_TRUST)
