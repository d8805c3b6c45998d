"""SQL that finds double bookings, and one that tries to make some. Anybody may run it on any database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc


class Question(NamedTuple):
    """``sql`` counts double bookings. Its only answer must be 0."""

    text: str
    sql: str


MUST_BE_ZERO = (
    Question(
        "Was a device ever held by two claims at the same time?",
        """\
SELECT count(*) AS double_bookings
  FROM claim_devices a
  JOIN claim_devices b ON b.device_id = a.device_id
                      AND b.claim_id <> a.claim_id
 WHERE tstzrange(a.held_from, a.held_until)
    && tstzrange(b.held_from, b.held_until)""",
    ),
    Question(
        "Was a port ever held whole while one of its VFs was held too?",
        """\
SELECT count(*) AS double_bookings
  FROM claim_devices whole
  JOIN pci_devices vf ON vf.parent_id = whole.device_id
  JOIN claim_devices slice ON slice.device_id = vf.id
 WHERE tstzrange(whole.held_from, whole.held_until)
    && tstzrange(slice.held_from, slice.held_until)""",
    ),
    Question(
        "Is a port held whole now while one of its VFs is held too?",
        """\
SELECT count(*) AS double_bookings
  FROM pci_devices pf
  JOIN pci_devices vf ON vf.parent_id = pf.id
 WHERE pf.status IN ('claimed', 'allocated')
   AND vf.status IN ('claimed', 'allocated')""",
    ),
)

HELD_DEVICES = """\
SELECT d.dev_type,
       count(DISTINCT cd.claim_id) AS claims,
       count(*) AS holds,
       count(DISTINCT cd.device_id) AS of_devices,
       count(*) FILTER (WHERE cd.held_until IS NULL) AS still_held
  FROM claim_devices cd
  JOIN pci_devices d ON d.id = cd.device_id
 GROUP BY d.dev_type ORDER BY d.dev_type"""

# Gives the partners of every held device (the PF of a VF, the VFs of a PF) to the same claim.
DOUBLE_BOOK = """\
UPDATE pci_devices partner
   SET status = held.status, claim_id = held.claim_id
  FROM pci_devices held
 WHERE held.status = 'allocated'
   AND (partner.id = held.parent_id OR partner.parent_id = held.id)"""


def ask(engine: sa.Engine, sql: str) -> Sequence[sa.RowMapping]:
    """The rows that a query answers."""
    with engine.connect() as connection:
        return connection.execute(sa.text(sql)).mappings().all()


def refusal(engine: sa.Engine, sql: str) -> str | None:
    """The first line of the error with which PostgreSQL refuses this, or None. Changes nothing."""
    with engine.connect() as connection, connection.begin() as transaction:
        try:
            connection.execute(sa.text(sql))
        except exc.IntegrityError as error:
            return str(error.orig).splitlines()[0]
        finally:
            transaction.rollback()
    return None
