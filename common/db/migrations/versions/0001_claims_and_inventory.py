"""Inventory, claims, outbox and history, with the rules that PostgreSQL keeps by itself."""

from alembic import op

revision = "0001"
down_revision = None

COMPUTE_NODES = """
CREATE TABLE compute_nodes (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host             text NOT NULL UNIQUE CHECK (host <> ''),
    agent_id         uuid NOT NULL,
    inventory_digest text,
    numa_cells       jsonb NOT NULL DEFAULT '[]',
    disabled_reason  text,
    first_seen       timestamptz NOT NULL DEFAULT now(),
    inventoried_at   timestamptz,
    last_seen        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN compute_nodes.agent_id IS 'the agent that publishes for this host';
COMMENT ON COLUMN compute_nodes.disabled_reason IS 'why an operator took the host out; null: it takes claims';
"""

# A fleet of millions of devices has few pools, so that a request is matched with pools, not devices.
POOLS = """
CREATE TABLE pools (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dev_type   text NOT NULL CHECK (dev_type IN ('type-PCI', 'type-PF', 'type-VF')),
    vendor_id  text NOT NULL CHECK (vendor_id ~ '^[0-9a-f]{4}$'),
    product_id text NOT NULL CHECK (product_id ~ '^[0-9a-f]{4}$'),
    tags       jsonb NOT NULL,
    UNIQUE (dev_type, vendor_id, product_id, tags)
);
COMMENT ON TABLE pools IS 'devices alike for scheduling: same ids, type and tags, on any host';
"""

# first_device_id and live_id: see RULES.
CLAIMS = """
CREATE TABLE claims (
    id              uuid PRIMARY KEY,
    instance_id     uuid NOT NULL,
    compute_node_id bigint NOT NULL REFERENCES compute_nodes,
    status          text NOT NULL DEFAULT 'claimed'
                    CHECK (status IN ('claimed', 'allocated', 'releasing', 'released', 'failed', 'expired')),
    step            integer NOT NULL DEFAULT 1 CHECK (step > 0),
    request         jsonb NOT NULL,
    reason          text,
    first_device_id bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    live            boolean GENERATED ALWAYS AS (status IN ('claimed', 'allocated', 'releasing')) STORED,
    live_id         uuid GENERATED ALWAYS AS
                    (CASE WHEN status IN ('claimed', 'allocated', 'releasing') THEN id END) STORED,
    UNIQUE (id, compute_node_id, live)
);
CREATE INDEX claims_live_by_node ON claims (compute_node_id) WHERE live;
COMMENT ON COLUMN claims.step IS 'number of the last step sent to the agent; lower ones are overtaken';
COMMENT ON COLUMN claims.reason IS 'why the claim failed or expired';
"""

PCI_DEVICES = """
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
    attributes      jsonb NOT NULL DEFAULT '{}',
    UNIQUE (compute_node_id, address)
);
COMMENT ON COLUMN pci_devices.parent_id IS 'the PF of a VF';
COMMENT ON COLUMN pci_devices.vfs IS 'how many VFs a PF would take along';
COMMENT ON COLUMN pci_devices.offered IS 'a device_spec entry of its host takes it';
COMMENT ON COLUMN pci_devices.present IS 'its host listed it last time; the VFs of a PF in a guest are not';
COMMENT ON COLUMN pci_devices.unusable_reason IS 'why its agent says that it cannot be handed out now';
"""

# What PostgreSQL refuses whoever asks, a hand-typed UPDATE included. The generated columns turn
# "if" into a foreign key: a NULL in the referencing columns switches the key off (MATCH SIMPLE).
RULES = """
ALTER TABLE pci_devices
    ADD COLUMN unheld boolean NOT NULL GENERATED ALWAYS AS
        (status NOT IN ('claimed', 'allocated')) STORED,
    ADD COLUMN needs_unheld_parent boolean GENERATED ALWAYS AS
        (CASE WHEN parent_id IS NOT NULL AND status IN ('claimed', 'allocated') THEN true END) STORED,
    ADD COLUMN parent_type text GENERATED ALWAYS AS
        (CASE WHEN parent_id IS NOT NULL AND status <> 'removed' THEN 'type-PF' END) STORED,
    ADD COLUMN needs_live_claim boolean GENERATED ALWAYS AS
        (CASE WHEN claim_id IS NOT NULL THEN true END) STORED,

    -- 1. A device is held if and only if it names its claim, ...
    ADD CONSTRAINT held_names_its_claim
        CHECK ((status IN ('claimed', 'allocated')) = (claim_id IS NOT NULL)),
    -- ... which is live and on the device's own host.
    ADD CONSTRAINT held_by_a_live_claim_of_its_host
        FOREIGN KEY (claim_id, compute_node_id, needs_live_claim)
        REFERENCES claims (id, compute_node_id, live),

    -- 2. A held VF needs a PF that is not held; so neither can be taken while the other is.
    ADD CONSTRAINT pci_devices_id_unheld UNIQUE (id, unheld),
    ADD CONSTRAINT held_vf_has_unheld_pf
        FOREIGN KEY (parent_id, needs_unheld_parent) REFERENCES pci_devices (id, unheld),

    -- 3. A VF has a parent, nothing else has; the parent is a PF of the same host.
    ADD CONSTRAINT only_a_vf_has_a_parent
        CHECK ((dev_type = 'type-VF') = (parent_id IS NOT NULL)),
    ADD CONSTRAINT pci_devices_id_node_type UNIQUE (id, compute_node_id, dev_type),
    ADD CONSTRAINT parent_is_a_pf_of_the_same_host
        FOREIGN KEY (parent_id, compute_node_id, parent_type)
        REFERENCES pci_devices (id, compute_node_id, dev_type) DEFERRABLE,

    -- The other end of rule 1 (below) refers to this, and a claim's devices are found by it.
    ADD CONSTRAINT pci_devices_claim UNIQUE (claim_id, id);

-- 1, seen from the claim: a live one holds a device, at the latest at the commit.
ALTER TABLE claims ADD CONSTRAINT live_claim_holds_a_device
    FOREIGN KEY (live_id, first_device_id) REFERENCES pci_devices (claim_id, id)
    DEFERRABLE INITIALLY DEFERRED;

-- Looked through whenever a device is freed.
CREATE INDEX claims_by_first_device ON claims (live_id, first_device_id) WHERE live_id IS NOT NULL;

CREATE INDEX pci_devices_by_parent ON pci_devices (parent_id, status) WHERE parent_id IS NOT NULL;
CREATE INDEX pci_devices_available ON pci_devices (pool_id, compute_node_id) WHERE status = 'available';
CREATE INDEX pci_devices_whole ON pci_devices (pool_id, vfs, id)
    WHERE status = 'available' AND dev_type <> 'type-VF';
"""

HISTORY = """
CREATE TABLE claim_devices (
    claim_id      uuid NOT NULL REFERENCES claims,
    device_id     bigint NOT NULL REFERENCES pci_devices,
    pool_id       integer NOT NULL,
    request_index integer NOT NULL CHECK (request_index >= 0),
    held_from     timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_until    timestamptz,
    PRIMARY KEY (claim_id, device_id)
);
CREATE INDEX claim_devices_by_device ON claim_devices (device_id, held_from);
COMMENT ON TABLE claim_devices IS 'who held what and when; kept after the claim has ended';

CREATE TABLE claim_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claim_id    uuid NOT NULL REFERENCES claims,
    at          timestamptz NOT NULL DEFAULT now(),
    from_status text,
    to_status   text NOT NULL,
    cause       text NOT NULL
);
CREATE INDEX claim_events_by_claim ON claim_events (claim_id, id);

CREATE TABLE outbox (
    claim_id   uuid NOT NULL REFERENCES claims,
    step       integer NOT NULL,
    action     text NOT NULL CHECK (action IN ('attach', 'detach')),
    created_at timestamptz NOT NULL DEFAULT now(),
    sends      integer NOT NULL DEFAULT 0,
    send_after timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (claim_id, step)
);
CREATE INDEX outbox_due ON outbox (send_after);
COMMENT ON TABLE outbox IS 'steps that no agent has answered yet; sent again from send_after on';
"""


def upgrade() -> None:
    for statement in (COMPUTE_NODES, POOLS, CLAIMS, PCI_DEVICES, RULES, HISTORY):
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE claims DROP CONSTRAINT live_claim_holds_a_device")
    op.execute("DROP TABLE outbox, claim_events, claim_devices, pci_devices, claims, pools, compute_nodes")
