"""A fleet to measure on, in a database of its own, and what is asked of it."""

from __future__ import annotations

import json
from uuid import uuid4

import sqlalchemy as sa

from portclaim.common.db import migrate
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.services.scheduler.fleet import Requirements
from tests.support.straight_fleet import Size, build

ALIASES = [
    json.dumps({"name": "nic-pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}),
    json.dumps({"name": "nic-vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}),
]

# Else a conductor would publish an event for each claim that was built in.
_PUBLISHED = """
    UPDATE event_cursors SET last_id = coalesce((SELECT max(id) FROM claim_events), 0) WHERE kind = 'claim'
"""


def new_fleet(cluster_url: str, size: Size, *, used: bool = True) -> str:
    """A database of its own with such a fleet, partly in use or all free; answers its URL."""
    name = f"fleet_{size}_{uuid4().hex[:6]}"
    cluster = sa.create_engine(cluster_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with cluster.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    url = sa.make_url(cluster_url).set(database=name).render_as_string(hide_password=False)
    migrate.upgrade(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    build(engine, size, used=used)
    with engine.begin() as connection:
        connection.execute(sa.text(_PUBLISHED))
    return url


def wanted(alias: str) -> Requirements:
    """What a flavor with this alias asks for, like ``nic-vf:1``."""
    requests = requests_from_extra_specs({"pci_passthrough:alias": alias}, Aliases.parse(ALIASES))
    return Requirements(requests.requests)
