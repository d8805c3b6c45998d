"""The map of the fleet over HTTP: all of it once, then each change; and the page's files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from portclaim.services.api import fleet_map, page
from portclaim.services.api.map_changes import Changes
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet, gpu, pf, vf
from tests.support.http_api import TIMEOUT, HttpApi, http_api, problem


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=4)
    with http_api(fleet, database_url) as api:
        yield api


class View:
    """Somebody who looks at the map, and what they know."""

    def __init__(self, stream: httpx.Response) -> None:
        self.hosts: dict[int, list[Any]] = {}
        self.ports: dict[int, list[Any]] = {}
        self.last: dict[str, Any] = {}
        self.version = ""
        self._lines = stream.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next message."""
        for line in self._lines:
            key, _, value = line.partition(": ")
            if key == "id":
                self.version = value
            elif key == "data":
                self._take(json.loads(value))
                return self.last
        raise AssertionError("the stream has ended")

    def until(self, host: str, address: str, letters: str) -> list[Any]:
        """Read on until a port's VFs are so; answer the port."""
        while True:
            for port in self.ports.values():
                if (self.hosts[port[1]][1], port[2], port[6]) == (host, address, letters):
                    return port
            self.next()

    def _take(self, message: dict[str, Any]) -> None:
        self.last = message
        if message.get("whole"):
            self.hosts, self.ports = {}, {}
        self.hosts |= {row[0]: row for row in message["hosts"]}
        self.ports |= {row[0]: row for row in message["ports"]}
        for gone in message.get("gone_hosts", ()):
            del self.hosts[gone]
        for gone in message.get("gone_ports", ()):
            del self.ports[gone]


@contextmanager
def view(client: httpx.Client, version: str | None = None) -> Iterator[View]:
    headers = {} if version is None else {"Last-Event-ID": version}
    with client.stream("GET", "/v1/map", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        yield View(stream)


def test_the_map_begins_with_the_whole_fleet(api: HttpApi, fleet: Fleet) -> None:
    whole = fleet.attached(fleet.claim("nic-pf:1"))
    fleet.claim("nic-vf:3")
    fleet.host_of("h2", [gpu(0)])
    with api.client("reader") as client, view(client) as seen:
        message = seen.next()
        assert message["whole"] is True
        assert [row[1:] for row in seen.hosts.values()] == [["h1", None, False], ["h2", None, False]]
        first, second, card = seen.ports.values()
        assert first[2:7] == [pf(0), 0, first[4], "h", "4u"]
        assert first[7] == str(whole.claim_id)
        assert second[2:] == [pf(1), 0, second[4], "u", "3c1f", None, None]
        assert card[2:] == [pf(0), None, card[4], "f", "", None, None]
        kinds = {pool["id"]: pool["dev_type"] for pool in message["pools"]}
        assert [kinds[pool] for pool in second[4]] == ["type-PF", "type-VF"]


def test_every_change_comes_to_whoever_looks(api: HttpApi, fleet: Fleet) -> None:
    with api.client("reader") as client, view(client) as seen:
        seen.until("h1", pf(0), "4f")
        claim = fleet.claim("nic-vf:2")
        seen.until("h1", pf(0), "2c2f")
        fleet.attached(claim)
        seen.until("h1", pf(0), "2h2f")
        fleet.leave(claim)
        seen.until("h1", pf(0), "4f")
        fleet.sql("SELECT drain_port('h1', :port, 'new cable') IS NULL", port=pf(1))
        port = seen.until("h1", pf(1), "4d")
        assert port[8] == {"drained": "new cable"}
        fleet.host("h2", ports=1, vfs=2)
        seen.until("h2", pf(0), "2f")


def test_a_device_that_its_host_cannot_hand_out_says_why(api: HttpApi, fleet: Fleet) -> None:
    with api.client("reader") as client, view(client) as seen:
        seen.until("h1", pf(1), "4f")
        fleet.hosts["h1"].change(vf(1, 2), unusable_reason="stuck")
        fleet.hosts["h1"].report()
        assert seen.until("h1", pf(1), "2f1x1f")[5] == "f"


def test_a_port_that_is_removed_leaves_the_map(api: HttpApi, fleet: Fleet) -> None:
    with api.client("reader") as client, view(client) as seen:
        seen.until("h1", pf(1), "4f")
        fleet.hosts["h1"].lose(pf(1), *(vf(1, number) for number in range(4)))
        fleet.hosts["h1"].report()
        while len(seen.ports) > 1:
            seen.next()
        assert [port[2] for port in seen.ports.values()] == [pf(0)]


def test_a_silent_and_a_drained_host_say_so(api: HttpApi, fleet: Fleet) -> None:
    fleet.host("h2")
    with api.client("operator") as client, view(client) as seen:
        seen.next()
        fleet.falls_silent("h2")
        client_2 = api.client("operator")
        client_2.post("/v1/hosts/h1/drain", json={"reason": "rack move"})
        while {row[1]: row[2:] for row in seen.hosts.values()} != {
            "h1": ["rack move", False],
            "h2": [None, True],
        }:
            seen.next()


def test_who_comes_back_gets_what_has_changed_meanwhile(api: HttpApi, fleet: Fleet) -> None:
    with api.client("reader") as client, view(client) as stays:
        stays.next()
        with view(client) as leaves:
            leaves.next()
        fleet.claim("nic-vf:1")
        stays.until("h1", pf(0), "1c3f")
        with view(client, leaves.version) as back:
            message = back.next()
            assert "whole" not in message
            assert [row[2] for row in message["ports"]] == [pf(0)]


@pytest.mark.parametrize("version", ["", "x", "another.3", "1.1.1", "another."])
def test_who_has_a_version_of_another_process_gets_all(api: HttpApi, version: str) -> None:
    with api.client("reader") as client, view(client, version) as seen:
        assert seen.next()["whole"] is True


def test_who_is_too_far_behind_gets_all(api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.backend.map, "_sent", type(api.backend.map._sent)(maxlen=2))
    with api.client("reader") as client, view(client) as stays:
        stays.next()
        behind = stays.version
        for held in ("1c3f", "2c2f", "3c1f"):
            fleet.claim("nic-vf:1")
            stays.until("h1", pf(0), held)
        with view(client, behind) as seen:
            assert seen.next()["whole"] is True


def test_a_claim_that_waits_is_counted_and_its_port_is_reserved(api: HttpApi, fleet: Fleet) -> None:
    for _ in range(2):
        fleet.attached(fleet.claim("nic-vf:3"))
    with api.client("reader") as client, view(client) as seen:
        assert seen.next()["counts"] == {"waiting": 0, "steps": 0}
        waiting = fleet.claim("nic-pf:1", wait=600)
        fleet.serve()
        while not any((port[8] or {}).get("reserved") for port in seen.ports.values()):
            seen.next()
        while seen.last["counts"]["waiting"] != 1:
            seen.next()
        [port] = [port for port in seen.ports.values() if port[8]]
        assert port[8] == {"reserved": str(waiting.claim_id)}
        assert "r" in port[6]


def test_an_event_that_is_committed_late_is_not_missed(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=4)
    first, second = fleet.claim("nic-vf:1"), fleet.claim("nic-pf:1")
    with fleet.engine.begin() as connection:
        changes = Changes(connection)
        while changes.look(connection).port_ids:
            pass
    insert = sa.text(
        "INSERT INTO claim_events (claim_id, from_status, to_status, cause)"
        " VALUES (:claim_id, 'claimed', 'prepared', 'late')"
    )

    def ports() -> set[int]:
        with fleet.engine.begin() as connection:
            return changes.look(connection).port_ids

    with fleet.engine.connect() as slow, slow.begin() as open_transaction:
        slow.execute(insert, {"claim_id": first.claim_id})
        fleet.attached(second)
        assert len(ports()) == 1, "the later event need not wait"
        assert ports() == set()
        open_transaction.commit()
    assert len(ports()) == 1
    assert ports() == set()
    fleet.sql("DELETE FROM claim_events WHERE cause = 'late' RETURNING id")


def test_nobody_reads_while_nobody_looks(api: HttpApi) -> None:
    assert api.backend.map._task is None
    with api.client("reader") as client:
        with view(client) as seen:
            seen.next()
            assert api.backend.map._task is not None
        wait_until(lambda: api.backend.map._task is None, "the last one has left")


def test_many_who_look_share_one_reader_and_each_message(
    api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    really = fleet_map.FleetMap._message
    monkeypatch.setattr(
        fleet_map.FleetMap,
        "_message",
        lambda self, *rows, **more: made.append(more) or really(self, *rows, **more),
    )
    clients = [api.client("reader") for _ in range(10)]
    streams = [view(client) for client in clients]
    views = [each.__enter__() for each in streams]
    for each in views:
        each.next()
    fleet.claim("nic-vf:1")
    for each in views:
        each.until("h1", pf(0), "1c3f")
    assert sum(1 for more in made if more.get("whole")) == 1
    assert len(made) <= 4
    for stream in streams:
        stream.__exit__(None, None, None)
    for client in clients:
        client.close()


def test_a_token_of_a_project_does_not_see_the_fleet(api: HttpApi) -> None:
    with api.client("reader", "web") as client:
        for path in ("/v1/map", "/v1/map/held", "/v1/totals"):
            problem(client.get(path), 403, "forbidden")
        assert client.get("/v1/token").json()["project"] == "web"


def test_the_ports_that_somebody_holds(api: HttpApi, fleet: Fleet) -> None:
    instance = uuid4()
    fleet.claim("nic-vf:2", instance_id=instance, project="web")
    fleet.claim("nic-pf:1", project="db")
    with api.client("reader") as client, view(client) as seen:
        seen.next()
        by_address = {port[2]: port[0] for port in seen.ports.values()}
        for query, address in (
            ({"instance_id": str(instance)}, pf(0)),
            ({"project": "web"}, pf(0)),
            ({"project": "db"}, pf(1)),
        ):
            found = client.get("/v1/map/held", params=query).json()
            assert found == {"ports": [by_address[address]], "more": False}
        assert client.get("/v1/map/held", params={"project": "nobody"}).json()["ports"] == []


def test_the_totals_are_kept_from_the_start(api: HttpApi, fleet: Fleet) -> None:
    with api.client("reader") as client:
        wait_until(lambda: client.get("/v1/totals").json()["samples"], "the first sample is taken")
        [sample] = client.get("/v1/totals").json()["samples"]
    assert {**sample, "at": ""} == {
        **{"at": "", "free_pfs": 2, "held_pfs": 0, "free_vfs": 8, "held_vfs": 0},
        **{"waiting": 0},
    }


def test_the_page_may_load_nothing_from_elsewhere_and_be_in_no_frame(api: HttpApi) -> None:
    answer = httpx.get(api.url, timeout=TIMEOUT)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "http://" not in answer.text.replace("http://www.w3.org", "")


def test_a_file_of_the_page_is_answered_once_and_no_other_file(api: HttpApi) -> None:
    with httpx.Client(base_url=api.url, timeout=TIMEOUT) as client:
        for name in page._FILES:
            answer = client.get(f"/page/{name}")
            assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
            again = client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
        for name in ("..%2fpage.py", "page.py", "%2e%2e/app.py", "__init__.py"):
            assert client.get(f"/page/{name}").status_code == 404
