-- What the HTTP API reads by itself: who has a token, whose a claim is, and the events of claims in their order.

CREATE OR REPLACE FUNCTION claim_events_after(_after bigint, _limit integer)
RETURNS TABLE (id bigint, project text, body text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.id, c.request ->> 'project', json_build_object(
               'version', 1, 'id', 'claim-' || e.id, 'at', e.at, 'kind', 'claim', 'host', c.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', e.claim_id, 'instance_id', c.instance_id, 'devices', (
                   SELECT coalesce(json_agg(json_build_object('address', d.address, 'dev_type', d.dev_type)
                                            ORDER BY cd.request_index, cd.device_id), '[]')
                     FROM claim_devices cd
                     JOIN pci_devices d ON d.id = cd.device_id
                    WHERE cd.claim_id = e.claim_id))::text
      FROM (SELECT * FROM claim_events WHERE claim_events.id > _after ORDER BY claim_events.id LIMIT _limit) e
     CROSS JOIN LATERAL (
           SELECT claims.request, claims.instance_id,
                  (SELECT host FROM compute_nodes WHERE compute_nodes.id = claims.compute_node_id) AS host
             FROM claims WHERE claims.id = e.claim_id) c
     ORDER BY e.id;
END $$;
COMMENT ON FUNCTION claim_events_after IS
    'events of claims after an id, each as events are published, with the project of its claim';

CREATE OR REPLACE FUNCTION device_events_after(_after bigint, _limit integer)
RETURNS TABLE (id bigint, project text, body text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.id, NULL::text, json_build_object(
               'version', 1, 'id', 'device-' || e.id, 'at', e.at, 'kind', 'device', 'host', d.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', null, 'instance_id', null,
               'devices', json_build_array(json_build_object('address', d.address, 'dev_type', d.dev_type)))::text
      FROM (SELECT * FROM device_events WHERE device_events.id > _after ORDER BY device_events.id LIMIT _limit) e
     CROSS JOIN LATERAL (
           SELECT address, dev_type,
                  (SELECT host FROM compute_nodes WHERE compute_nodes.id = pci_devices.compute_node_id) AS host
             FROM pci_devices WHERE pci_devices.id = e.device_id) d
     ORDER BY e.id;
END $$;
COMMENT ON FUNCTION device_events_after IS 'events of devices after an id, each as events are published';
