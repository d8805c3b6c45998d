-- What operators read: docs/operator-sql.md answers questions with these views. Their columns are a contract.
--
-- The role portclaim_operator may read them (roles.sql). They are made anew with every upgrade, so that a new version
-- may change their columns.

DROP VIEW IF EXISTS
    pf_vf_tree, pool_totals, hosts, claims_now, waiting, moves, awaited_steps, device_history, event_backlog,
    quotas, audit, refusals, recent_refusals;

CREATE VIEW pf_vf_tree AS
SELECT n.host,
       coalesce(pf.address, d.address) AS port,
       d.address,
       d.dev_type,
       p.vendor_id,
       p.product_id,
       d.numa_node,
       d.status,
       CASE WHEN d.status <> 'available' THEN d.status
            WHEN pf.status = 'allocated' OR held_vfs.allocated THEN 'unavailable'
            WHEN pf.status = 'claimed' OR held_vfs.claimed THEN 'unclaimable'
            WHEN n.disabled_reason IS NOT NULL THEN 'unavailable'
            ELSE d.status END AS effective_status,
       CASE WHEN d.status IN ('claimed', 'allocated') THEN 'held by instance ' || c.instance_id
                 || coalesce('; ' || d.unusable_reason,
                             CASE WHEN NOT d.present THEN '; its host does not report it now' END, '')
            WHEN d.status = 'removed' THEN 'its host no longer reports it'
            WHEN NOT d.offered THEN 'no device_spec entry of its host matches it'
            WHEN d.drained_reason IS NOT NULL THEN 'port drained: ' || d.drained_reason
            WHEN d.reserved_for IS NOT NULL THEN 'reserved for waiting claim ' || d.reserved_for
            WHEN d.unusable_reason IS NOT NULL THEN d.unusable_reason
            WHEN pf.status IN ('claimed', 'allocated') THEN 'its PF is ' || pf.status
            WHEN held_vfs.held = 1 THEN 'one of its VFs is held'
            WHEN held_vfs.held > 1 THEN held_vfs.held || ' of its VFs are held'
            WHEN NOT d.present THEN 'its host does not report it now'
            WHEN n.disabled_reason IS NOT NULL THEN 'host drained: ' || n.disabled_reason
       END AS reason,
       d.claim_id,
       c.instance_id,
       p.tags,
       d.attributes ->> 'driver' AS driver,
       d.attributes ->> 'netdev' AS netdev,
       d.present AND coalesce((d.attributes ->> 'exists')::boolean, true) AS on_host
  FROM pci_devices d
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = d.pool_id
  LEFT JOIN pci_devices pf ON pf.id = d.parent_id
  LEFT JOIN claims c ON c.id = d.claim_id
  LEFT JOIN LATERAL (
       SELECT count(*) AS held,
              bool_or(vf.status = 'allocated') AS allocated,
              bool_or(vf.status = 'claimed') AS claimed
         FROM pci_devices vf
        WHERE d.dev_type = 'type-PF' AND vf.parent_id = d.id AND NOT vf.unheld
       ) held_vfs ON true;
COMMENT ON VIEW pf_vf_tree IS 'every device with its port and whether a claim can have it';
COMMENT ON COLUMN pf_vf_tree.host IS 'the compute node';
COMMENT ON COLUMN pf_vf_tree.port IS 'PCI address of the PF of a VF, else the device''s own';
COMMENT ON COLUMN pf_vf_tree.address IS 'PCI address';
COMMENT ON COLUMN pf_vf_tree.dev_type IS 'type-PF, type-VF or type-PCI';
COMMENT ON COLUMN pf_vf_tree.vendor_id IS 'hexadecimal';
COMMENT ON COLUMN pf_vf_tree.product_id IS 'hexadecimal';
COMMENT ON COLUMN pf_vf_tree.numa_node IS 'null: the host does not say';
COMMENT ON COLUMN pf_vf_tree.status IS 'what the row says';
COMMENT ON COLUMN pf_vf_tree.effective_status IS
    'what a claim would meet: also looks at the tree partner and at the host';
COMMENT ON COLUMN pf_vf_tree.reason IS 'why the device cannot be claimed; null: it can';
COMMENT ON COLUMN pf_vf_tree.claim_id IS 'the claim that holds it';
COMMENT ON COLUMN pf_vf_tree.instance_id IS 'the instance of that claim';
COMMENT ON COLUMN pf_vf_tree.tags IS 'from device_spec';
COMMENT ON COLUMN pf_vf_tree.driver IS 'the host''s driver at the last report';
COMMENT ON COLUMN pf_vf_tree.netdev IS 'the host''s network interface at the last report';
COMMENT ON COLUMN pf_vf_tree.on_host IS
    'false: the host does not have it now, for example a VF that is made when it is claimed';

CREATE VIEW pool_totals AS
SELECT n.host,
       p.dev_type,
       p.vendor_id,
       p.product_id,
       d.numa_node,
       p.tags,
       count(*) FILTER (WHERE d.status <> 'removed') AS total,
       count(*) FILTER (WHERE d.status = 'available' AND n.disabled_reason IS NULL) AS available,
       count(*) FILTER (WHERE d.status = 'claimed') AS claimed,
       count(*) FILTER (WHERE d.status = 'allocated') AS allocated,
       count(*) FILTER (WHERE d.status = 'unclaimable') AS unclaimable,
       count(*) FILTER (WHERE d.status = 'unavailable'
                           OR d.status = 'available' AND n.disabled_reason IS NOT NULL) AS unavailable
  FROM pci_devices d
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = d.pool_id
 GROUP BY n.host, p.id, d.numa_node
HAVING count(*) FILTER (WHERE d.status <> 'removed') > 0;
COMMENT ON VIEW pool_totals IS 'devices of each host that are alike, counted by effective status';
COMMENT ON COLUMN pool_totals.host IS 'the compute node';
COMMENT ON COLUMN pool_totals.dev_type IS 'type-PF, type-VF or type-PCI';
COMMENT ON COLUMN pool_totals.vendor_id IS 'hexadecimal';
COMMENT ON COLUMN pool_totals.product_id IS 'hexadecimal';
COMMENT ON COLUMN pool_totals.numa_node IS 'null: the host does not say';
COMMENT ON COLUMN pool_totals.tags IS 'from device_spec';
COMMENT ON COLUMN pool_totals.total IS 'all but removed devices';
COMMENT ON COLUMN pool_totals.available IS 'can be claimed';
COMMENT ON COLUMN pool_totals.claimed IS 'reserved for an instance, not attached yet';
COMMENT ON COLUMN pool_totals.allocated IS 'attached to an instance';
COMMENT ON COLUMN pool_totals.unclaimable IS 'the tree partner is claimed';
COMMENT ON COLUMN pool_totals.unavailable IS 'the tree partner is allocated, or the device cannot be used now';

-- The VFs of a port are counted in port_pools: so a host costs what its ports number, and not its VFs.
CREATE VIEW hosts AS
SELECT n.host,
       n.disabled_reason AS drained_reason,
       now() - n.last_seen AS agent_silent_for,
       d.devices,
       d.available,
       d.ports_drained,
       (SELECT count(*) FROM claims c WHERE c.compute_node_id = n.id AND c.live) AS live_claims,
       d.pfs_available,
       d.pfs_held,
       d.vfs_available,
       d.vfs_held,
       d.drained_ports
  FROM compute_nodes n
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE d.status <> 'removed') + coalesce(sum(d.vfs), 0) AS devices,
              count(*) FILTER (WHERE is_available) + coalesce(sum(vfs.available), 0)::bigint AS available,
              count(*) FILTER (WHERE d.drained_reason IS NOT NULL) AS ports_drained,
              count(*) FILTER (WHERE d.dev_type = 'type-PF' AND is_available) AS pfs_available,
              count(*) FILTER (WHERE d.dev_type = 'type-PF' AND NOT d.unheld) AS pfs_held,
              coalesce(sum(vfs.available), 0)::bigint AS vfs_available,
              coalesce(sum(vfs.held), 0) AS vfs_held,
              coalesce(jsonb_object_agg(d.address, d.drained_reason) FILTER (WHERE d.drained_reason IS NOT NULL),
                       '{}') AS drained_ports
         FROM pci_devices d
        CROSS JOIN LATERAL (
              SELECT sum(pp.free) FILTER (WHERE n.disabled_reason IS NULL) AS available, max(pp.held) AS held
                FROM port_pools pp
               WHERE pp.port_id = d.id) vfs
        CROSS JOIN LATERAL (
              SELECT d.status = 'available' AND n.disabled_reason IS NULL AS is_available) now
        WHERE d.compute_node_id = n.id AND d.parent_id IS NULL
       ) d;
COMMENT ON VIEW hosts IS 'every compute node: whether it takes claims, and what it has';
COMMENT ON COLUMN hosts.host IS 'the compute node';
COMMENT ON COLUMN hosts.drained_reason IS 'why an operator drained it; null: it is not drained';
COMMENT ON COLUMN hosts.agent_silent_for IS 'time since the agent''s last report';
COMMENT ON COLUMN hosts.devices IS 'all but removed devices';
COMMENT ON COLUMN hosts.available IS 'devices that can be claimed';
COMMENT ON COLUMN hosts.ports_drained IS 'how many ports are drained';
COMMENT ON COLUMN hosts.live_claims IS 'claims that hold devices';
COMMENT ON COLUMN hosts.pfs_available IS 'PFs that can be claimed';
COMMENT ON COLUMN hosts.pfs_held IS 'PFs that claims hold';
COMMENT ON COLUMN hosts.vfs_available IS 'VFs that can be claimed';
COMMENT ON COLUMN hosts.vfs_held IS 'VFs that claims hold';
COMMENT ON COLUMN hosts.drained_ports IS 'address and reason of each drained port';

CREATE VIEW claims_now AS
SELECT c.id AS claim_id,
       c.instance_id,
       n.host,
       c.status,
       held.devices,
       c.created_at AS claimed_at,
       o.action AS awaited_step,
       o.sends AS times_sent,
       now() - o.created_at AS awaited_for,
       now() - n.last_seen AS agent_silent_for,
       CASE c.status WHEN 'prepared' THEN c.guest_deadline - now() END AS guest_expires_in
  FROM claims c
  JOIN compute_nodes n ON n.id = c.compute_node_id
  LEFT JOIN outbox o ON o.claim_id = c.id AND o.step = c.step
 CROSS JOIN LATERAL (
       SELECT array_agg(d.address ORDER BY d.address) AS devices
         FROM pci_devices d
        WHERE d.claim_id = c.id
       ) held
 WHERE c.live;
COMMENT ON VIEW claims_now IS 'every claim that holds devices, with the step that its agent has not answered';
COMMENT ON COLUMN claims_now.claim_id IS 'the claim';
COMMENT ON COLUMN claims_now.instance_id IS 'its instance';
COMMENT ON COLUMN claims_now.host IS 'its compute node';
COMMENT ON COLUMN claims_now.status IS 'claimed, prepared, allocated or releasing';
COMMENT ON COLUMN claims_now.devices IS 'PCI addresses';
COMMENT ON COLUMN claims_now.claimed_at IS 'when the devices were reserved';
COMMENT ON COLUMN claims_now.awaited_step IS
    'prepare, attach, unplug or detach: the step that the agent has not answered; null: none';
COMMENT ON COLUMN claims_now.times_sent IS 'how often that step was sent';
COMMENT ON COLUMN claims_now.awaited_for IS 'time since that step was written';
COMMENT ON COLUMN claims_now.agent_silent_for IS 'time since the agent''s last report';
COMMENT ON COLUMN claims_now.guest_expires_in IS
    'time until a prepared claim expires because its instance has not got the devices; null: it does not expire';

CREATE VIEW waiting AS
SELECT w.id AS claim_id,
       c.instance_id,
       row_number() OVER (PARTITION BY w.requests ORDER BY w.position) AS position,
       w.requests -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias,
       w.requests,
       now() - w.queued_at AS waited,
       w.deadline - now() AS expires_in,
       reserved.host AS reserved_host,
       reserved.ports AS reserved_ports
  FROM waiting_claims w
  JOIN claims c ON c.id = w.id
 CROSS JOIN LATERAL (
       SELECT min(n.host) AS host, array_agg(d.address ORDER BY d.address) AS ports
         FROM pci_devices d
         JOIN compute_nodes n ON n.id = d.compute_node_id
        WHERE d.reserved_for = w.id AND d.parent_id IS NULL
       ) reserved;
COMMENT ON VIEW waiting IS 'every claim in a queue, and the ports that are reserved for it';
COMMENT ON COLUMN waiting.claim_id IS 'the claim';
COMMENT ON COLUMN waiting.instance_id IS 'its instance';
COMMENT ON COLUMN waiting.position IS '1: the head of its queue';
COMMENT ON COLUMN waiting.alias IS 'the extra spec pci_passthrough:alias';
COMMENT ON COLUMN waiting.requests IS 'what the claim asks for: claims with the same requests form a queue';
COMMENT ON COLUMN waiting.waited IS 'time since the claim was queued';
COMMENT ON COLUMN waiting.expires_in IS 'time until it expires';
COMMENT ON COLUMN waiting.reserved_host IS 'the compute node of the reserved ports; null: none is reserved';
COMMENT ON COLUMN waiting.reserved_ports IS 'PCI addresses of the ports that only this claim gets';

CREATE VIEW moves AS
SELECT source.instance_id,
       m.status,
       m.reason,
       m.source_claim_id,
       source_node.host AS source_host,
       source.status AS source_status,
       m.target_claim_id,
       target_node.host AS target_host,
       target.status AS target_status,
       m.begun_at,
       m.updated_at
  FROM claim_moves m
  JOIN claims source ON source.id = m.source_claim_id
  JOIN claims target ON target.id = m.target_claim_id
  JOIN compute_nodes source_node ON source_node.id = source.compute_node_id
  JOIN compute_nodes target_node ON target_node.id = target.compute_node_id;
COMMENT ON VIEW moves IS 'every move of an instance''s devices from one host to another';
COMMENT ON COLUMN moves.instance_id IS 'the instance';
COMMENT ON COLUMN moves.status IS 'begun, completing, completed or reverted';
COMMENT ON COLUMN moves.reason IS 'why the move ended; null: a caller ended it, or it has not ended';
COMMENT ON COLUMN moves.source_claim_id IS 'the claim that the instance moves from';
COMMENT ON COLUMN moves.source_host IS 'its compute node';
COMMENT ON COLUMN moves.source_status IS 'its status';
COMMENT ON COLUMN moves.target_claim_id IS 'the claim that the instance moves to';
COMMENT ON COLUMN moves.target_host IS 'its compute node';
COMMENT ON COLUMN moves.target_status IS 'its status';
COMMENT ON COLUMN moves.begun_at IS 'when the target was claimed';
COMMENT ON COLUMN moves.updated_at IS 'last change of status';

CREATE VIEW awaited_steps AS
SELECT n.host,
       o.claim_id,
       c.instance_id,
       o.step,
       o.action,
       o.send_after = 'infinity' AS parked,
       o.sends AS times_sent,
       nullif(o.send_after, 'infinity') AS next_send,
       now() - o.created_at AS awaited_for,
       now() - n.last_seen AS agent_silent_for,
       c.reason AS last_failure
  FROM outbox o
  JOIN claims c ON c.id = o.claim_id
  JOIN compute_nodes n ON n.id = c.compute_node_id;
COMMENT ON VIEW awaited_steps IS 'every step that no agent has answered yet';
COMMENT ON COLUMN awaited_steps.host IS 'the compute node';
COMMENT ON COLUMN awaited_steps.claim_id IS 'the claim';
COMMENT ON COLUMN awaited_steps.instance_id IS 'its instance';
COMMENT ON COLUMN awaited_steps.step IS 'number of the step within its claim';
COMMENT ON COLUMN awaited_steps.action IS 'prepare, attach, unplug or detach';
COMMENT ON COLUMN awaited_steps.parked IS 'the step is not sent again until an operator retries it';
COMMENT ON COLUMN awaited_steps.times_sent IS 'how often it was sent';
COMMENT ON COLUMN awaited_steps.next_send IS 'when it is sent again; null: it is parked';
COMMENT ON COLUMN awaited_steps.awaited_for IS 'time since the step was written';
COMMENT ON COLUMN awaited_steps.agent_silent_for IS 'time since the agent''s last report';
COMMENT ON COLUMN awaited_steps.last_failure IS 'why the agent''s last try failed';

CREATE VIEW device_history AS
SELECT n.host,
       d.address,
       p.dev_type,
       p.vendor_id,
       p.product_id,
       cd.held_from,
       cd.held_until,
       c.instance_id,
       cd.claim_id,
       c.status AS claim_status,
       c.reason AS claim_reason
  FROM claim_devices cd
  JOIN claims c ON c.id = cd.claim_id
  JOIN pci_devices d ON d.id = cd.device_id
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = cd.pool_id;
COMMENT ON VIEW device_history IS 'which claim held which device, and when';
COMMENT ON COLUMN device_history.host IS 'the compute node';
COMMENT ON COLUMN device_history.address IS 'PCI address';
COMMENT ON COLUMN device_history.dev_type IS 'type-PF, type-VF or type-PCI';
COMMENT ON COLUMN device_history.vendor_id IS 'hexadecimal';
COMMENT ON COLUMN device_history.product_id IS 'hexadecimal';
COMMENT ON COLUMN device_history.held_from IS 'when the claim took the device';
COMMENT ON COLUMN device_history.held_until IS 'when the device was free again; null: the claim still holds it';
COMMENT ON COLUMN device_history.instance_id IS 'the instance';
COMMENT ON COLUMN device_history.claim_id IS 'the claim';
COMMENT ON COLUMN device_history.claim_status IS 'the claim''s status now';
COMMENT ON COLUMN device_history.claim_reason IS 'why the claim failed, expired or was released by force';

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
COMMENT ON VIEW event_backlog IS 'events that are not published yet, by kind';
COMMENT ON COLUMN event_backlog.kind IS 'claim or device';
COMMENT ON COLUMN event_backlog.unpublished IS 'how many';
COMMENT ON COLUMN event_backlog.oldest_waits_for IS 'time since the oldest of them was recorded';

CREATE VIEW quotas AS
SELECT project, nullif(alias, '') AS alias, max_pfs, pfs, max_vfs, vfs, max_waiting, waiting FROM project_quotas;
COMMENT ON VIEW quotas IS 'how much the claims of projects may have, and how much they have';
COMMENT ON COLUMN quotas.project IS 'the project';
COMMENT ON COLUMN quotas.alias IS 'counts only what is requested by this alias; null: everything';
COMMENT ON COLUMN quotas.max_pfs IS 'PFs, and devices without VFs; null: no limit';
COMMENT ON COLUMN quotas.pfs IS 'how many of these its claims hold';
COMMENT ON COLUMN quotas.max_vfs IS 'null: no limit';
COMMENT ON COLUMN quotas.vfs IS 'how many VFs its claims hold';
COMMENT ON COLUMN quotas.max_waiting IS 'claims that wait in queues; null: no limit';
COMMENT ON COLUMN quotas.waiting IS 'how many of its claims wait';

CREATE VIEW audit AS SELECT at, who, action, object, reason FROM audit_events;
COMMENT ON VIEW audit IS 'what operators did: who, what, when and why';
COMMENT ON COLUMN audit.at IS 'when';
COMMENT ON COLUMN audit.who IS 'the name of the token, or what a caller over RPC gave; null: nothing';
COMMENT ON COLUMN audit.action IS 'what was done, for example drain';
COMMENT ON COLUMN audit.object IS 'the claim, host, port, token or quota';
COMMENT ON COLUMN audit.reason IS 'why; null: no reason was given';

CREATE VIEW refusals AS SELECT minute, reason, nullif(alias, '') AS alias, refused FROM refused_claims;
COMMENT ON VIEW refusals IS 'how many claims were refused in each minute of the last week, by reason';
COMMENT ON COLUMN refusals.minute IS 'its beginning; a refusal may be counted some seconds late';
COMMENT ON COLUMN refusals.reason IS
    'the first filter that left no device; or queue, quota, conflict or invalid';
COMMENT ON COLUMN refusals.alias IS 'the alias that the claims asked for; null: none, or several';
COMMENT ON COLUMN refusals.refused IS 'how many calls were refused; a call that is repeated counts again';

CREATE VIEW recent_refusals AS
SELECT at, claim_id, instance_id, nullif(project, '') AS project, reason, message,
       request -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias,
       times, request, is_cut, explanation
  FROM refused_requests
 WHERE at >= now() - interval '1 day';
COMMENT ON VIEW recent_refusals IS 'the claims that were refused last: at most a thousand, of the last day';
COMMENT ON COLUMN recent_refusals.at IS 'when it was refused last; it may be listed some seconds late';
COMMENT ON COLUMN recent_refusals.claim_id IS 'the id that the caller gave the claim';
COMMENT ON COLUMN recent_refusals.instance_id IS 'the instance that it was for';
COMMENT ON COLUMN recent_refusals.project IS 'the project of the claim; null: none';
COMMENT ON COLUMN recent_refusals.reason IS 'as in refusals';
COMMENT ON COLUMN recent_refusals.message IS 'what the caller was told';
COMMENT ON COLUMN recent_refusals.alias IS 'its extra spec pci_passthrough:alias';
COMMENT ON COLUMN recent_refusals.times IS 'how often it was refused';
COMMENT ON COLUMN recent_refusals.request IS 'what it asked for';
COMMENT ON COLUMN recent_refusals.is_cut IS 'the request named more than 100 hosts or claims, and the rest is not kept';
COMMENT ON COLUMN recent_refusals.explanation IS
    'what each filter left then, and what came closest; null: it was not refused for want of devices';
