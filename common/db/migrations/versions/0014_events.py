"""What changes, told to whoever wants to know: changes of devices, and how far events have been published.

A claim's changes are in ``claim_events`` already, so that a claim writes nothing more for this.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

DEVICE_EVENTS = """
CREATE TABLE device_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id   bigint NOT NULL REFERENCES pci_devices,
    at          timestamptz NOT NULL DEFAULT now(),
    from_status text,
    to_status   text NOT NULL CHECK (to_status IN ('available', 'unavailable', 'removed')),
    cause       text NOT NULL
);
COMMENT ON TABLE device_events IS 'what devices became, apart from who claims them';
"""

# Ids are not committed in their order: those that were missing below the last one that was published are
# looked for again until every transaction that may have taken them has ended.
PROGRESS = """
CREATE TABLE event_cursors (
    kind    text PRIMARY KEY CHECK (kind IN ('claim', 'device')),
    last_id bigint NOT NULL
);
COMMENT ON COLUMN event_cursors.last_id IS 'the highest id that was published; of lower ones see event_gaps';

CREATE TABLE event_gaps (
    kind    text REFERENCES event_cursors,
    id      bigint,
    horizon xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (kind, id)
);
COMMENT ON TABLE event_gaps IS 'ids that were not there when a higher one was published';
COMMENT ON COLUMN event_gaps.horizon IS 'a transaction younger than any that may bring the id';

INSERT INTO event_cursors (kind, last_id)
SELECT 'claim', coalesce(max(id), 0) FROM claim_events UNION ALL SELECT 'device', 0;
"""

# A device apart from claims: what it would be if nobody held anything of its tree, and why.
OWN_STATUS = """
CREATE FUNCTION own_status(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'removed'
                ELSE settled_status(_d.offered, _d.present, coalesce(_d.drained_reason, _d.unusable_reason),
                                    NULL) END
$$;
"""

OWN_REASON = """
CREATE FUNCTION own_reason(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'its host no longer lists it'
                WHEN NOT _d.offered THEN 'no device_spec entry of its host takes it'
                WHEN _d.drained_reason IS NOT NULL THEN 'port drained: ' || _d.drained_reason
                WHEN _d.unusable_reason IS NOT NULL THEN _d.unusable_reason
                WHEN NOT _d.present THEN 'its host does not list it now'
                ELSE 'its host has it in order' END
$$;
"""

# Claims and releases write none of the columns that the second trigger is for: it costs them nothing.
RECORD = """
CREATE FUNCTION record_new_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_events (device_id, to_status, cause)
    SELECT d.id, own_status(d), own_reason(d) FROM new_devices d ORDER BY d.id;
    RETURN NULL;
END $$;

CREATE TRIGGER record_new_devices AFTER INSERT ON pci_devices
    REFERENCING NEW TABLE AS new_devices
    FOR EACH STATEMENT EXECUTE FUNCTION record_new_devices();

CREATE FUNCTION record_changed_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (own_status(OLD), own_reason(OLD)) IS DISTINCT FROM (own_status(NEW), own_reason(NEW)) THEN
        INSERT INTO device_events (device_id, from_status, to_status, cause)
        VALUES (NEW.id, own_status(OLD), own_status(NEW), own_reason(NEW));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_changed_device
    AFTER UPDATE OF offered, present, drained_reason, unusable_reason ON pci_devices
    FOR EACH ROW EXECUTE FUNCTION record_changed_device();
"""

EVENT_BACKLOG = """
CREATE VIEW event_backlog AS
SELECT event_cursors.kind,
       count(waiting.at) AS unpublished,
       now() - min(waiting.at) AS oldest_waits_for
  FROM event_cursors
  LEFT JOIN LATERAL (
       SELECT at FROM claim_events e
        WHERE kind = 'claim' AND e.id > last_id
        UNION ALL
       SELECT at FROM device_events e
        WHERE kind = 'device' AND e.id > last_id
        UNION ALL
       SELECT at FROM event_gaps g JOIN claim_events e ON e.id = g.id
        WHERE event_cursors.kind = 'claim' AND g.kind = 'claim'
        UNION ALL
       SELECT at FROM event_gaps g JOIN device_events e ON e.id = g.id
        WHERE event_cursors.kind = 'device' AND g.kind = 'device'
       ) waiting ON true
 GROUP BY event_cursors.kind;
GRANT SELECT ON event_backlog TO portclaim_operator;
"""

FUNCTIONS = (
    "own_status(pci_devices)",
    "own_reason(pci_devices)",
    "record_new_devices()",
    "record_changed_device()",
)


def upgrade() -> None:
    for statement in (DEVICE_EVENTS, PROGRESS, OWN_STATUS, OWN_REASON, RECORD, EVENT_BACKLOG):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP VIEW event_backlog")
    op.execute("DROP TRIGGER record_new_devices ON pci_devices")
    op.execute("DROP TRIGGER record_changed_device ON pci_devices")
    op.execute(f"DROP FUNCTION {', '.join(FUNCTIONS)}")
    op.execute("DROP TABLE event_gaps, event_cursors, device_events")
