-- Record every change of a device that no claim causes. A claim's changes are in claim_events already, so claims write
-- nothing more for events.

-- The status that the device would have if no claim held anything of its tree, and why.
CREATE OR REPLACE FUNCTION own_status(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'removed'
                ELSE derived_status(_d.offered, _d.present, coalesce(_d.drained_reason, _d.unusable_reason),
                                    NULL) END
$$;

CREATE OR REPLACE FUNCTION own_reason(_d pci_devices) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN _d.status = 'removed' THEN 'its host no longer reports it'
                WHEN NOT _d.offered THEN 'no device_spec entry of its host matches it'
                WHEN _d.drained_reason IS NOT NULL THEN 'port drained: ' || _d.drained_reason
                WHEN _d.unusable_reason IS NOT NULL THEN _d.unusable_reason
                WHEN NOT _d.present THEN 'its host does not report it now'
                ELSE 'its host reports it as usable' END
$$;

-- Claims and releases write none of the columns of the second trigger, so it costs them nothing.
CREATE OR REPLACE FUNCTION record_new_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_events (device_id, to_status, cause)
    SELECT d.id, own_status(d), own_reason(d) FROM new_devices d ORDER BY d.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER record_new_devices AFTER INSERT ON pci_devices
    REFERENCING NEW TABLE AS new_devices
    FOR EACH STATEMENT EXECUTE FUNCTION record_new_devices();

CREATE OR REPLACE FUNCTION record_changed_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (own_status(OLD), own_reason(OLD)) IS DISTINCT FROM (own_status(NEW), own_reason(NEW)) THEN
        INSERT INTO device_events (device_id, from_status, to_status, cause)
        VALUES (NEW.id, own_status(OLD), own_status(NEW), own_reason(NEW));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER record_changed_device
    AFTER UPDATE OF offered, present, drained_reason, unusable_reason ON pci_devices
    FOR EACH ROW EXECUTE FUNCTION record_changed_device();
