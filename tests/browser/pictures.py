"""Make the pictures of the page for the documentation: ``make screenshots``.

A fleet of 1,000 hosts with 256,000 VFs is made, with a history, queues and refusals, and then looked at.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from playwright.sync_api import ViewportSize

from portclaim.common.errors import ClaimRefused
from tests.support import engines, postgresql
from tests.support.browser import DESK, PHONE, Shown, chromium, shown
from tests.support.fleet import Fleet, pf
from tests.support.http_api import http_api
from tests.support.pictured_fleet import build_in_use
from tests.support.straight_fleet import Size

SIZE = Size(1000, 4, 64)
HOST = "r41-n01"
REFUSED = UUID("9d3f6c1e-58a4-4b07-9e21-6f0c2b7d1a35")
FULL_RACK = ",".join(f"r01-n{number:02}" for number in range(1, 26))


class Picture(NamedTuple):
    """A view, what must be there before it is taken, and how it is looked at."""

    name: str
    parts: tuple[str, ...]
    there: str
    zoom: str = "Ports"
    size: ViewportSize = DESK
    is_dark: bool = False


PICTURES = [
    Picture("page-fleet", ("map",), ".figures"),
    Picture("page-port", ("port", HOST, pf(0)), ".timeline", zoom="VFs"),
    Picture("page-why", ("why", "nic-pf:3", FULL_RACK), ".funnel .stops"),
    Picture("page-refusals", ("why",), ".words"),
    Picture("page-refused", ("why", str(REFUSED)), ".funnel .stops"),
    Picture("page-waiting", ("waiting",), ".sheet table"),
    Picture("page-trouble", ("trouble",), ".troubles"),
    Picture("page-dark", ("host", "r01-n03"), ".detail .timeline", zoom="Shares", is_dark=True),
    Picture("page-narrow", ("map",), ".figures", size=PHONE),
]


def history(fleet: Fleet) -> None:
    """A host with a port that has had several holders, on the newest rack."""
    fleet.host(HOST, ports=4, vfs=16)
    spans = [(190, 131), (168, 96), (121, 84), (88, 30), (80, None), (71, 23), (26, None), (9, None)]
    for vfs, (begun, ended) in zip((4, 2, 8, 4, 3, 2, 5, 4), spans, strict=True):
        claim = fleet.attached(fleet.claim(f"nic-vf:{vfs}", hosts=[HOST], project="web"))
        if ended is not None:
            fleet.leave(claim)
        fleet.sql(
            "UPDATE claim_devices SET held_from = now() - cast(:begun AS interval),"
            " held_until = now() - cast(:ended AS interval) WHERE claim_id = :claim_id",
            begun=timedelta(hours=begun),
            ended=None if ended is None else timedelta(hours=ended),
            claim_id=claim.claim_id,
        )
    fleet.claim("nic-pf:1", hosts=[HOST])


def queues(fleet: Fleet) -> None:
    """Claims that wait, and ports that are reserved for them."""
    for number, (alias, hosts) in enumerate(
        [
            ("nic-pf:4", ["r01-n01", "r01-n02", "r01-n03"]),
            ("nic-pf:4", ["r01-n01", "r01-n02", "r01-n03"]),
            ("nic-pf:4", ["r01-n01", "r01-n02", "r01-n03"]),
            ("nic-pf:2,nic-vf:8", ["r01-n05", "r01-n06"]),
            ("nic-pf:2,nic-vf:8", ["r01-n05", "r01-n06"]),
        ]
    ):
        fleet.claim(alias, hosts=hosts, wait=3600 + 600 * number)
    fleet.serve()
    fleet.sql(
        "UPDATE waiting_claims SET queued_at = queued_at - make_interval(secs => 1900 - 290 * position)"
    )


def refused(fleet: Fleet) -> None:
    """What was refused in the last hour."""
    fleet.sql("""
        INSERT INTO refused_claims
        SELECT date_trunc('minute', now()) - make_interval(mins => m), reason, alias,
               1 + (most * (1 + sin(m / 6.0)) / 2)::integer
          FROM generate_series(0, 59) m
         CROSS JOIN (VALUES ('available', 'nic-pf', 14), ('together', 'nic-pf', 30), ('alive', 'nic-vf', 2))
                 AS kind (reason, alias, most)
    """)
    rack = FULL_RACK.split(",")
    claims = [("nic-pf:2", rack[:2]), ("nic-vf:200", rack[:8]), ("nic-pf:4", rack[4:7]), ("gpu:1", None)]
    for alias, hosts in (*claims, ("nic-pf:3", rack)):
        with suppress(ClaimRefused):
            fleet.claim(alias, REFUSED if hosts == rack else None, hosts=hosts, project="web")
        fleet.refusals.record()
    fleet.sql("""
        UPDATE refused_requests
           SET times = 1 + place % 3, at = now() - make_interval(mins => 7 * place::integer - 5)
          FROM (SELECT claim_id AS id, row_number() OVER (ORDER BY at DESC) AS place
                  FROM refused_requests) newest
         WHERE id = claim_id
    """)


def overdue(fleet: Fleet) -> None:
    """A step that its agent has failed so often that it is no longer sent."""
    fleet.claim("nic-vf:1", hosts=[HOST])
    fleet.sql(
        "UPDATE outbox SET created_at = now() - interval '48 min', sends = 100, send_after = 'infinity'"
        " WHERE claim_id = (SELECT id FROM claims ORDER BY created_at DESC LIMIT 1)"
    )


def take(page: Shown, picture: Picture, folder: Path) -> None:
    page.go(*picture.parts)
    page.page.wait_for_selector(picture.there)
    if picture.parts[0] in {"map", "host", "port"}:
        page.page.click(f".zoom button >> text={picture.zoom}")
    page.page.wait_for_timeout(1500)  # what is said after a click has gone, and all is drawn
    page.page.screenshot(path=folder / f"{picture.name}.png")


def main(folder: Path) -> None:
    engines.begin_run()
    try:
        url = postgresql.create_database()
        fleet = Fleet(url)
        build_in_use(fleet.engine, SIZE)
        for part in (history, queues, refused, overdue):
            part(fleet)
        fleet.sql(
            "UPDATE compute_nodes SET last_seen = now() + interval '1 day'"
            " WHERE last_seen > now() - interval '5 min'"
        )
        with chromium() as browser, http_api(fleet, url) as api:
            for picture in PICTURES:
                scheme = "dark" if picture.is_dark else "light"
                with shown(browser, api, role="operator", size=picture.size, scheme=scheme) as page:
                    take(page, picture, folder)
        fleet.close()
    finally:
        engines.end_run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
