"""The metrics of the whole fleet. One scheduler's exporter reads them from the database, however many run."""

from __future__ import annotations

from portclaim.common.metrics.kinds import Reading

_ALIAS = "a name in [pci] alias of the scheduler; a device counts for each alias that gets it"

READER = Reading(
    "fleet_reader",
    "1: this scheduler reads the fleet's numbers. 0: another one does, or the database is away.",
)
HOSTS = Reading(
    "fleet_hosts",
    "Compute nodes.",
    {"state": "up, drained (by an operator), or silent (no sign of life from the agent, and not drained)"},
)
DEVICES = Reading(
    "fleet_devices",
    "Devices that device_spec takes, by effective status, as in the view pool_totals.",
    {"alias": _ALIAS, "status": "available, held (claimed or allocated), unclaimable, or unavailable"},
)
WHOLE_PORTS = Reading(
    "fleet_whole_ports", "Ports that are free as a whole and have devices of the alias.", {"alias": _ALIAS}
)
CLAIMS = Reading(
    "fleet_claims",
    "Claims that are on their way, at most 10000 of each status.",
    {"status": "waiting, claimed, prepared or releasing"},
)
WAITING = Reading(
    "fleet_waiting_claims",
    "Claims in queues.",
    {"alias": "what they ask for: a name in [pci] alias, several, or other"},
)
WAITING_OLDEST = Reading(
    "fleet_waiting_oldest_seconds", "How long the oldest claim in a queue has waited.", {"alias": "as above"}
)
STEPS = Reading(
    "fleet_steps",
    "Steps that no agent has answered, in the outbox.",
    {
        "state": "awaited, due (those of them that should have been sent by now), or parked (an operator "
        "must act)"
    },
)
STEPS_OLDEST = Reading(
    "fleet_steps_oldest_seconds", "How long the oldest of these steps has been in the outbox."
)
EVENTS = Reading(
    "fleet_events_unpublished", "Events that are not published yet.", {"kind": "claim or device"}
)
EVENTS_OLDEST = Reading(
    "fleet_events_oldest_seconds", "How long the oldest of these events has waited.", {"kind": "as above"}
)
