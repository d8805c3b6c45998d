"""What a round of the publisher costs: as much after a long history as after none, and little without events.

The tests count the buffers of tables and indexes that a round touches.
"""

from collections.abc import Iterator

import pytest

from portclaim.services.conductor.publisher import Publisher
from tests.integration.test_plans import touched
from tests.support import postgresql
from tests.support.fleet import Fleet
from tests.support.straight_fleet import Size, build

TABLES = ("claims", "claim_devices", "claim_events", "device_events", "event_cursors", "event_gaps")

HISTORY = """
    WITH ended AS (
        INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
        SELECT gen_random_uuid(), gen_random_uuid(), d.compute_node_id, 'released', '{}', d.id
          FROM (SELECT * FROM pci_devices WHERE dev_type = 'type-VF') d, generate_series(1, :each)
        RETURNING id, first_device_id
    ), held AS (
        INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index, held_until)
        SELECT id, first_device_id, 2, 0, now() FROM ended
    )
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    SELECT id, change.* FROM ended,
           (VALUES (NULL, 'claimed', 'claim'), ('claimed', 'releasing', 'release'),
                   ('releasing', 'released', 'detach done')) AS change
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet that nobody has used yet. Its statistics stay as they are now."""
    url = postgresql.create_database()
    fleet = Fleet(url)
    build(fleet.engine, Size(hosts=20, ports=4, vfs=8), used=False)
    for table in TABLES:
        fleet.sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    yield fleet
    fleet.close()
    postgresql.drop_database(url)


@pytest.fixture
def publisher(fleet: Fleet) -> Publisher:
    """A publisher whose connection has planned its statements while there was no event."""
    publisher = Publisher(fleet.engine, lambda _events: None)
    publisher.work()
    return publisher


def cost(fleet: Fleet, publisher: Publisher) -> int:
    """The buffers that one round touches."""
    before = touched(fleet)
    publisher.publish_batches()
    return touched(fleet) - before


def test_a_round_without_events_touches_few_buffers(fleet: Fleet, publisher: Publisher) -> None:
    fleet.sql(HISTORY, each=1)
    while publisher.work():
        continue
    assert cost(fleet, publisher) <= 30


def test_a_round_costs_the_same_after_a_long_history(fleet: Fleet, publisher: Publisher) -> None:
    costs = []
    for each in (1, 20):
        fleet.sql(HISTORY, each=each)
        while publisher.work():
            continue
        fleet.claim("nic-vf:1")
        costs.append(cost(fleet, publisher))
    few, many = costs
    assert many <= 1.5 * few + 5
    assert few <= 60


def test_gaps_are_looked_up_one_by_one(fleet: Fleet, publisher: Publisher) -> None:
    """A gap may stay as long as some transaction of the server is open."""
    fleet.sql(HISTORY, each=20)
    while publisher.work():
        continue
    fleet.sql(
        "INSERT INTO event_gaps (kind, id, horizon)"
        " SELECT 'claim', -id, '9000000000000000000' FROM generate_series(1, 20) AS id"
    )
    assert cost(fleet, publisher) <= 30 + 4 * 20
