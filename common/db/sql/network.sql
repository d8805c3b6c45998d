-- The network settings that claims ask for, and which of their devices gets which.

-- Devices of one request are alike: they get the settings in the order of their ids, as answers list them.
CREATE OR REPLACE FUNCTION write_network_settings(_claim_id uuid, _request jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT _request ? 'network_settings' THEN
        RETURN;
    END IF;
    UPDATE claim_devices cd
       SET network_settings = asked.settings - '{request_index,device_index}'::text[]
      FROM (SELECT device_id, request_index,
                   row_number() OVER (PARTITION BY request_index ORDER BY device_id) - 1 AS device_index
              FROM claim_devices WHERE claim_id = _claim_id) device,
           jsonb_array_elements(_request -> 'network_settings') AS asked (settings)
     WHERE (cd.claim_id, cd.device_id) = (_claim_id, device.device_id)
       AND (asked.settings -> 'request_index')::integer = device.request_index
       AND (asked.settings -> 'device_index')::integer = device.device_index;
END $$;
COMMENT ON FUNCTION write_network_settings IS
    'note with each device of this claim, which was written just now, the network settings that its request asks for';

-- Whose settings they are does not matter for what can serve a claim.
CREATE OR REPLACE FUNCTION network_kinds(_request jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_array(
               settings -> 'request_index',
               settings ->> 'mtu' IS NOT NULL,
               coalesce(settings ->> 'vlan', settings ->> 'spoofchk', settings ->> 'trust', settings ->> 'link_state',
                        settings ->> 'min_tx_rate', settings ->> 'max_tx_rate') IS NOT NULL)), '[]')
      FROM jsonb_array_elements(_request -> 'network_settings') AS settings
$$;
COMMENT ON FUNCTION network_kinds IS
    'the PCI requests whose devices get network settings, and whether there are some that only PFs, or only VFs, can have';
