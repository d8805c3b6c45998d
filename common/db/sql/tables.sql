-- The tables, the rules that PostgreSQL enforces on them whoever writes, and their indexes.
--
-- This is the schema as it is now. A new database gets it from this file. An existing one gets the same by the
-- migrations in ../migrations/versions, and a test compares the two.

-- Compute nodes and their devices

CREATE TABLE compute_nodes (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host             text NOT NULL UNIQUE CHECK (host <> ''),
    agent_id         uuid NOT NULL,
    inventory_digest text,
    numa_cells       jsonb NOT NULL DEFAULT '[]',
    disabled_reason  text,
    counted          boolean NOT NULL DEFAULT false,
    first_seen       timestamptz NOT NULL DEFAULT now(),
    inventoried_at   timestamptz,
    last_seen        timestamptz NOT NULL DEFAULT now(),
    imported_at      timestamptz,
    last_number      bigint
);
COMMENT ON TABLE compute_nodes IS 'the hosts whose agents have reported an inventory';
COMMENT ON COLUMN compute_nodes.agent_id IS 'the agent that reports for this host';
COMMENT ON COLUMN compute_nodes.inventory_digest IS 'digest of the last full report; null: a full report is wanted';
COMMENT ON COLUMN compute_nodes.disabled_reason IS 'why an operator drained the host; null: it takes claims';
COMMENT ON COLUMN compute_nodes.imported_at IS
    'when the host was taken over from Nova; null: it was not, or it was removed since';
COMMENT ON COLUMN compute_nodes.last_number IS
    'number of the last signed report or sign of life: earlier ones are refused; null: none was signed';
COMMENT ON COLUMN compute_nodes.counted IS 'host_pools has its devices; see room.sql';
CREATE INDEX compute_nodes_uncounted ON compute_nodes (id) WHERE NOT counted;

-- Requests are matched with pools, not with devices: a fleet of millions of devices has few pools.
CREATE TABLE pools (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dev_type   text NOT NULL CHECK (dev_type IN ('type-PCI', 'type-PF', 'type-VF')),
    vendor_id  text NOT NULL CHECK (vendor_id ~ '^[0-9a-f]{4}$'),
    product_id text NOT NULL CHECK (product_id ~ '^[0-9a-f]{4}$'),
    tags       jsonb NOT NULL,
    UNIQUE (dev_type, vendor_id, product_id, tags)
);
COMMENT ON TABLE pools IS 'devices that are alike for scheduling: same ids, type and tags, on any host';

CREATE TABLE claims (
    id              uuid PRIMARY KEY,
    instance_id     uuid NOT NULL,
    compute_node_id bigint REFERENCES compute_nodes,
    status          text NOT NULL DEFAULT 'claimed' CONSTRAINT claims_status_check CHECK (status IN
                    ('waiting', 'claimed', 'prepared', 'allocated', 'releasing', 'released', 'failed', 'expired')),
    step            integer NOT NULL DEFAULT 1 CHECK (step > 0),
    attach          text NOT NULL DEFAULT 'auto' CONSTRAINT claims_attach_check CHECK (attach IN ('auto', 'on-call')),
    request         jsonb NOT NULL,
    reason          text,
    expiry_reason   text,
    first_device_id bigint,
    prepared_at     timestamptz,
    guest_deadline  timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    -- Named by the statuses that are not live. So a later release can add a live status without a rewrite of the table.
    live            boolean GENERATED ALWAYS AS
                    (status NOT IN ('waiting', 'released', 'failed', 'expired')) STORED,
    live_id         uuid GENERATED ALWAYS AS
                    (CASE WHEN status NOT IN ('waiting', 'released', 'failed', 'expired') THEN id END) STORED,
    UNIQUE (id, compute_node_id, live),
    CONSTRAINT has_a_host_once_it_is_served CHECK (
        compute_node_id IS NOT NULL AND first_device_id IS NOT NULL AND status <> 'waiting'
        OR compute_node_id IS NULL AND first_device_id IS NULL
           AND status IN ('waiting', 'released', 'expired'))
);
CREATE INDEX claims_live_by_node ON claims (compute_node_id) WHERE live;
CREATE INDEX claims_by_guest_deadline ON claims (guest_deadline) WHERE status = 'prepared';
CREATE INDEX claims_by_status ON claims (status, created_at, id);
CREATE INDEX claims_by_instance ON claims (instance_id);
CREATE INDEX claims_by_project ON claims ((request ->> 'project'), created_at, id)
    WHERE request ->> 'project' IS NOT NULL;
COMMENT ON TABLE claims IS 'every claim, also after it has ended, until it is pruned';
COMMENT ON COLUMN claims.step IS 'number of the last step sent to the agent; an agent ignores lower ones';
COMMENT ON COLUMN claims.attach IS
    'auto: the agent attaches the devices as soon as the guest is there; on-call: when the caller says so';
COMMENT ON COLUMN claims.prepared_at IS
    'when the agent had the devices ready for the guest; null: not yet, or it attached them at once';
COMMENT ON COLUMN claims.guest_deadline IS 'when a prepared claim expires; null: never';
COMMENT ON COLUMN claims.reason IS 'why the claim failed, expired or was released by force';
COMMENT ON COLUMN claims.expiry_reason IS
    'why the conductor releases the claim: it ends as expired, not as released; null: the claim has not expired';
COMMENT ON COLUMN claims.first_device_id IS 'a device of the claim; see live_claim_holds_a_device';
COMMENT ON COLUMN claims.live IS 'the claim holds its devices';

-- The requests are hashed in the index: they may be longer than an entry of a B-tree.
CREATE TABLE waiting_claims (
    id        uuid PRIMARY KEY REFERENCES claims,
    requests  jsonb NOT NULL,
    position  bigint GENERATED ALWAYS AS IDENTITY,
    queued_at timestamptz NOT NULL DEFAULT now(),
    deadline  timestamptz NOT NULL
);
CREATE INDEX waiting_claims_by_requests ON waiting_claims USING hash (requests);
CREATE UNIQUE INDEX waiting_claims_by_position ON waiting_claims (position);
COMMENT ON TABLE waiting_claims IS 'the queues: claims with the same requests form one, served in order of position';
COMMENT ON COLUMN waiting_claims.requests IS 'what the claim asks for, without its instance';

CREATE TABLE pci_devices (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    compute_node_id bigint NOT NULL REFERENCES compute_nodes,
    parent_id       bigint,
    pool_id         integer NOT NULL REFERENCES pools,
    claim_id        uuid,
    numa_node       integer,
    vfs             integer NOT NULL DEFAULT 0,
    offered         boolean NOT NULL,
    present         boolean NOT NULL DEFAULT true,
    address         text NOT NULL CHECK (address ~ '^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f][.][0-7]$'),
    dev_type        text NOT NULL CHECK (dev_type IN ('type-PCI', 'type-PF', 'type-VF')),
    status          text NOT NULL CHECK (status IN
                    ('available', 'claimed', 'allocated', 'unclaimable', 'unavailable', 'removed')),
    unusable_reason text,
    drained_reason  text,
    reserved_for    uuid REFERENCES waiting_claims,
    attributes      jsonb NOT NULL DEFAULT '{}',
    counted         integer NOT NULL DEFAULT -1,

    -- What the rules below refer to. A NULL in the referencing columns of a foreign key switches the key off
    -- (MATCH SIMPLE): so a generated column turns "if" into a foreign key.
    unheld boolean NOT NULL GENERATED ALWAYS AS (status NOT IN ('claimed', 'allocated')) STORED,
    needs_unheld_parent boolean GENERATED ALWAYS AS
        (CASE WHEN parent_id IS NOT NULL AND status IN ('claimed', 'allocated') THEN true END) STORED,
    parent_type text GENERATED ALWAYS AS
        (CASE WHEN parent_id IS NOT NULL AND status <> 'removed' THEN 'type-PF' END) STORED,
    needs_live_claim boolean GENERATED ALWAYS AS (CASE WHEN claim_id IS NOT NULL THEN true END) STORED,

    -- Rule 1: a device is held if and only if it names its claim, ...
    CONSTRAINT held_names_its_claim CHECK ((status IN ('claimed', 'allocated')) = (claim_id IS NOT NULL)),
    -- ... which is live and on the device's own host.
    CONSTRAINT held_by_a_live_claim_of_its_host
        FOREIGN KEY (claim_id, compute_node_id, needs_live_claim)
        REFERENCES claims (id, compute_node_id, live),

    -- Rule 2: a held VF needs a PF that is not held. So neither can be taken while the other is.
    CONSTRAINT pci_devices_id_unheld UNIQUE (id, unheld),
    CONSTRAINT held_vf_has_unheld_pf
        FOREIGN KEY (parent_id, needs_unheld_parent) REFERENCES pci_devices (id, unheld),

    -- Rule 3: an address is unique on its host. A VF has a parent and nothing else has one. The parent is a PF
    -- of the same host.
    UNIQUE (compute_node_id, address),
    CONSTRAINT only_a_vf_has_a_parent CHECK ((dev_type = 'type-VF') = (parent_id IS NOT NULL)),
    CONSTRAINT pci_devices_id_node_type UNIQUE (id, compute_node_id, dev_type),
    CONSTRAINT parent_is_a_pf_of_the_same_host
        FOREIGN KEY (parent_id, compute_node_id, parent_type)
        REFERENCES pci_devices (id, compute_node_id, dev_type) DEFERRABLE,

    -- The other end of rule 1 (below) refers to this. A claim's devices are found by it.
    CONSTRAINT pci_devices_claim UNIQUE (claim_id, id)
);
COMMENT ON TABLE pci_devices IS 'the PCI functions of all hosts: each PF with its VFs is a tree';
COMMENT ON COLUMN pci_devices.parent_id IS 'the PF of a VF';
COMMENT ON COLUMN pci_devices.vfs IS 'how many VFs a claim of this PF makes unclaimable';
COMMENT ON COLUMN pci_devices.offered IS 'a device_spec entry of its host matches it';
COMMENT ON COLUMN pci_devices.present IS
    'the last report of its host lists it; the VFs of a PF that is in a guest are not listed';
COMMENT ON COLUMN pci_devices.unusable_reason IS 'why its agent cannot hand it out now; null: it can';
COMMENT ON COLUMN pci_devices.drained_reason IS 'why an operator drained its port; null: it takes claims';
COMMENT ON COLUMN pci_devices.reserved_for IS 'the waiting claim that its port is reserved for; null: none';
COMMENT ON COLUMN pci_devices.counted IS
    'what host_pools has of it, if it is no VF: -1: nothing, 0: a device, 1: a free device';

-- Rule 1, seen from the claim: a live claim holds a device, at the latest when its transaction commits.
ALTER TABLE claims ADD CONSTRAINT live_claim_holds_a_device
    FOREIGN KEY (live_id, first_device_id) REFERENCES pci_devices (claim_id, id)
    DEFERRABLE INITIALLY DEFERRED;

-- That foreign key looks up the claims of a device whenever the device is freed.
CREATE INDEX claims_by_first_device ON claims (live_id, first_device_id) WHERE live_id IS NOT NULL;
CREATE INDEX claims_live ON claims (live_id) WHERE live_id IS NOT NULL;

-- With the id in it, the first free VF of a port is the first entry of the index.
CREATE INDEX pci_devices_by_parent ON pci_devices (parent_id, status, id) WHERE parent_id IS NOT NULL;
CREATE INDEX pci_devices_available ON pci_devices (pool_id, compute_node_id) WHERE status = 'available';
CREATE INDEX pci_devices_whole ON pci_devices (pool_id, vfs, id)
    WHERE status = 'available' AND dev_type <> 'type-VF';
CREATE INDEX pci_devices_drained ON pci_devices (compute_node_id) WHERE drained_reason IS NOT NULL;
CREATE INDEX pci_devices_ports ON pci_devices (compute_node_id, id) WHERE parent_id IS NULL;
CREATE INDEX pci_devices_uncounted ON pci_devices (pool_id, compute_node_id)
    WHERE parent_id IS NULL
      AND counted <> CASE status WHEN 'removed' THEN -1 WHEN 'available' THEN 1 ELSE 0 END; -- countable(status)
CREATE INDEX pci_devices_missing ON pci_devices (compute_node_id) WHERE NOT present AND status <> 'removed';
CREATE INDEX pci_devices_reserved ON pci_devices (reserved_for) WHERE reserved_for IS NOT NULL;

-- How many VFs of each pool a port has free. The index gives the fullest port that still has room in one step.
-- This is a hint: every change of a tree updates it, a claim checks it again under the tree's lock, and no claim
-- is refused because of it.
CREATE TABLE port_pools (
    port_id         bigint NOT NULL REFERENCES pci_devices,
    pool_id         integer NOT NULL REFERENCES pools,
    compute_node_id bigint NOT NULL,
    numa_node       integer,
    free            integer NOT NULL,
    held            integer NOT NULL,
    whole           boolean NOT NULL GENERATED ALWAYS AS (held = 0) STORED,
    devices         integer NOT NULL DEFAULT 0,
    counted         integer NOT NULL DEFAULT -1,
    PRIMARY KEY (port_id, pool_id)
);
CREATE INDEX port_pools_by_room ON port_pools (pool_id, whole, free, held DESC, port_id) WHERE free > 0;
CREATE INDEX port_pools_by_host ON port_pools (compute_node_id, pool_id);
CREATE INDEX port_pools_uncounted ON port_pools (pool_id, compute_node_id) WHERE counted <> free;
COMMENT ON TABLE port_pools IS 'free and held VFs of each port, by pool';
COMMENT ON COLUMN port_pools.free IS 'VFs of the pool on the port that are available';
COMMENT ON COLUMN port_pools.held IS 'VFs of the port, of any pool, that claims hold';
COMMENT ON COLUMN port_pools.numa_node IS 'of all its VFs of the pool; null: not known, or not the same';
COMMENT ON COLUMN port_pools.devices IS 'VFs of the pool on the port';
COMMENT ON COLUMN port_pools.counted IS 'the value of free that host_pools has; -1: none';

-- What each host has free. See room.sql.
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

-- Steps for the agents

CREATE TABLE outbox (
    claim_id   uuid NOT NULL REFERENCES claims,
    step       integer NOT NULL,
    action     text NOT NULL CONSTRAINT outbox_action_check CHECK (action IN
               ('prepare', 'attach', 'unplug', 'detach')),
    created_at timestamptz NOT NULL DEFAULT now(),
    sends      integer NOT NULL DEFAULT 0,
    send_after timestamptz NOT NULL DEFAULT now(),
    traceparent text,
    PRIMARY KEY (claim_id, step)
);
CREATE INDEX outbox_due ON outbox (send_after);
COMMENT ON TABLE outbox IS 'steps that no agent has answered yet; a conductor sends them again from send_after on';
COMMENT ON COLUMN outbox.traceparent IS 'W3C trace context that the step belongs to; null: none';
COMMENT ON COLUMN outbox.send_after IS 'when the step is sent again; infinity: the step is parked';

-- History and events

CREATE TABLE claim_devices (
    claim_id      uuid NOT NULL REFERENCES claims,
    device_id     bigint NOT NULL REFERENCES pci_devices,
    pool_id       integer NOT NULL,
    request_index integer NOT NULL CHECK (request_index >= 0),
    held_from     timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_until    timestamptz,
    network_settings jsonb,
    PRIMARY KEY (claim_id, device_id)
);
CREATE INDEX claim_devices_by_device ON claim_devices (device_id, held_from);
COMMENT ON TABLE claim_devices IS 'which claim held which device, and when; kept after the claim has ended';
COMMENT ON COLUMN claim_devices.network_settings IS
    'what the claim has the agent set for the device; null: it asks for nothing';

CREATE TABLE claim_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claim_id    uuid NOT NULL REFERENCES claims,
    at          timestamptz NOT NULL DEFAULT now(),
    from_status text,
    to_status   text NOT NULL,
    cause       text NOT NULL,
    CONSTRAINT is_a_transition CHECK (
        (coalesce(from_status, ''), to_status) IN (
            ('', 'claimed'), ('', 'waiting'),
            ('waiting', 'claimed'), ('waiting', 'released'), ('waiting', 'expired'),
            ('claimed', 'prepared'), ('claimed', 'allocated'), ('claimed', 'failed'),
            ('claimed', 'releasing'), ('claimed', 'released'),
            ('prepared', 'allocated'), ('prepared', 'failed'), ('prepared', 'releasing'), ('prepared', 'released'),
            ('allocated', 'prepared'),
            ('allocated', 'releasing'), ('allocated', 'failed'), ('allocated', 'released'),
            ('releasing', 'releasing'), ('releasing', 'released'), ('releasing', 'expired')))
);
CREATE INDEX claim_events_by_claim ON claim_events (claim_id, id);
COMMENT ON TABLE claim_events IS 'every change of a claim''s status, with its cause';

CREATE TABLE device_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id   bigint NOT NULL REFERENCES pci_devices,
    at          timestamptz NOT NULL DEFAULT now(),
    from_status text,
    to_status   text NOT NULL CHECK (to_status IN ('available', 'unavailable', 'removed')),
    cause       text NOT NULL
);
CREATE INDEX device_events_by_device ON device_events (device_id, id);
COMMENT ON TABLE device_events IS 'every change of a device that no claim has caused';

-- Ids are not committed in their order. When an id below the last published one is missing, the publisher looks
-- for it again until every transaction that may have taken it has ended.
CREATE TABLE event_cursors (
    kind    text PRIMARY KEY CHECK (kind IN ('claim', 'device')),
    last_id bigint NOT NULL
);
INSERT INTO event_cursors (kind, last_id) VALUES ('claim', 0), ('device', 0);
COMMENT ON TABLE event_cursors IS 'how far events have been published';
COMMENT ON COLUMN event_cursors.last_id IS 
    'the highest id that was published; event_gaps lists lower ones that were not';

CREATE TABLE event_gaps (
    kind    text REFERENCES event_cursors,
    id      bigint,
    horizon xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (kind, id)
);
COMMENT ON TABLE event_gaps IS 'ids that were missing when a higher id was published';
COMMENT ON COLUMN event_gaps.horizon IS 'a transaction that is younger than any that may still commit the id';

-- Who may use the HTTP API

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

-- Who may speak for a host

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

-- Moves

CREATE TABLE claim_moves (
    target_claim_id uuid PRIMARY KEY REFERENCES claims ON DELETE CASCADE,
    source_claim_id uuid NOT NULL REFERENCES claims ON DELETE CASCADE,
    status          text NOT NULL DEFAULT 'begun'
                    CHECK (status IN ('begun', 'completing', 'completed', 'reverted')),
    kind            text NOT NULL DEFAULT 'cold' CONSTRAINT claim_moves_kind_check CHECK (kind IN ('cold', 'live')),
    reason          text,
    begun_at        timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    live            boolean NOT NULL GENERATED ALWAYS AS (status IN ('begun', 'completing')) STORED,
    CHECK (source_claim_id <> target_claim_id)
);
CREATE UNIQUE INDEX claim_moves_live_by_source ON claim_moves (source_claim_id) WHERE live;
CREATE INDEX claim_moves_by_source ON claim_moves (source_claim_id);
COMMENT ON TABLE claim_moves IS 'moves of an instance''s devices from a source claim to a target claim';
COMMENT ON COLUMN claim_moves.kind IS
    'live: the guest runs on while it moves, and its devices are exchanged by the agents';
COMMENT ON COLUMN claim_moves.reason IS 'why the move ended; null: a caller ended it, or it has not ended';

-- Rows that change with every claim. Autovacuum cleans them after a thousand dead rows, without pauses. By
-- default it waits for a share of the table, which is hours of claims in a large fleet.
ALTER TABLE pci_devices SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                             autovacuum_vacuum_cost_delay = 0);
ALTER TABLE port_pools SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                            autovacuum_vacuum_cost_delay = 0);
ALTER TABLE claims SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                        autovacuum_vacuum_cost_delay = 0);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                        autovacuum_vacuum_cost_delay = 0);
