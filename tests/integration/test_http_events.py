"""Events of claims as server-sent events: in order, without a gap, also after an interruption."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from portclaim.cli.event_streams import events_over_http
from portclaim.cli.http_client import HttpScheduler
from portclaim.common.events.schema import EventFilter
from portclaim.services.api import access
from portclaim.services.api.events import EventReader, Recorded
from tests.support.concurrency import meanwhile, wait_until
from tests.support.fleet import Fleet, slice_of, vf
from tests.support.http_api import HttpApi, http_api, problem


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=4)
    with http_api(fleet, database_url) as api:
        yield api


def read(
    client: httpx.Client,
    count: int,
    headers: dict[str, str] | None = None,
    path: str = "/v1/events",
    **query: Any,
) -> list[Any]:
    """The ids and the bodies of the next events."""
    found: list[Any] = []
    with client.stream("GET", path, params=query, headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        number = 0
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            if key == "id":
                number = int(value)
            elif key == "data":
                found.append((number, json.loads(value)))
                if len(found) == count:
                    break
    return found


def test_events_come_in_their_order_and_as_on_the_bus(api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:2"))
    with api.client() as client:
        (first, made), (second, attached) = read(client, 2, after=0)
    assert first < second
    assert (made["to_status"], attached["to_status"]) == ("claimed", "allocated")
    assert made["claim_id"] == str(claim.claim_id)
    assert [device["address"] for device in made["devices"]] == [each.address for each in claim.devices]
    assert made["id"] == f"claim-{first}"


def test_a_client_that_comes_back_continues_after_the_last_id_that_it_got(api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1")
    with api.client() as client:
        [(last, _)] = read(client, 1, after=0)
        missed = fleet.claim("nic-vf:1")
        [(_, event)] = read(client, 1, headers={"Last-Event-ID": str(last)})
    assert event["claim_id"] == str(missed.claim_id)


def test_a_stream_from_now_has_what_happens_later(api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1")
    with api.client() as client, client.stream("GET", "/v1/events") as stream:
        later = fleet.claim("nic-pf:1")
        event = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert str(later.claim_id) in event


def test_a_stream_has_only_what_was_asked_for(api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1")
    wanted = fleet.attached(fleet.claim("nic-vf:1"))
    with api.client() as client:
        [(_, event)] = read(client, 1, after=0, status="allocated")
        assert event["claim_id"] == str(wanted.claim_id)
        [(_, event)] = read(client, 1, after=0, claim_id=str(wanted.claim_id))
        assert event["claim_id"] == str(wanted.claim_id)


def test_a_token_of_a_project_gets_the_events_of_its_claims(api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1")
    with api.client("claimer", "web") as web:
        web.put(
            "/v1/claims/0b0e4a4e-4e0c-4a52-9d6e-6f1e0b7f1c11",
            json={
                "instance_id": "0b0e4a4e-4e0c-4a52-9d6e-6f1e0b7f1c12",
                "extra_specs": {"pci_passthrough:alias": "nic-vf:1"},
            },
        )
        [(_, event)] = read(web, 1, after=0)
    assert event["claim_id"] == "0b0e4a4e-4e0c-4a52-9d6e-6f1e0b7f1c11"


def test_changes_of_devices_have_a_stream_of_their_own(api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1")
    fleet.scheduler.drain("h1", "new fan")
    fleet.hosts["h1"].lose(vf(0, 3))
    fleet.hosts["h1"].report()
    with api.client("reader") as client:
        [(last, event)] = read(client, 1, path="/v1/device-events", after=0, status="removed")
        assert (event["id"], event["kind"], event["host"]) == (f"device-{last}", "device", "h1")
        assert [device["address"] for device in event["devices"]] == [vf(0, 3)]
        fleet.hosts["h1"].add(slice_of(0, 3))
        fleet.hosts["h1"].report()
        later = read(client, 1, {"Last-Event-ID": str(last)}, path="/v1/device-events")
    assert later[0][1]["from_status"] == "removed"
    with api.client("claimer", "web") as web:
        problem(web.get("/v1/device-events"), 403, "forbidden")


def test_the_command_line_follows_both_kinds(api: HttpApi, fleet: Fleet) -> None:
    http = HttpScheduler(api.url, api.token("operator"))
    events = events_over_http(http, EventFilter())
    claims_alone = events_over_http(HttpScheduler(api.url, api.token("claimer", "web")), EventFilter())
    first = meanwhile(lambda: both_kinds(events))
    of_web = meanwhile(lambda: next(claims_alone))

    def happens_until_both_have_seen_it() -> bool:
        fleet.leave(fleet.claim("nic-vf:1", project="web"))
        fleet.hosts["h1"].lose(vf(1, 3))
        fleet.hosts["h1"].report()
        fleet.hosts["h1"].add(slice_of(1, 3))
        fleet.hosts["h1"].report()
        return first.done() and of_web.done()

    wait_until(happens_until_both_have_seen_it, "both have seen events")
    assert json.loads(of_web.result())["kind"] == "claim"


def both_kinds(events: Iterator[str]) -> None:
    """Read until there was one of each."""
    seen: set[str] = set()
    while seen != {"claim", "device"}:
        seen.add(json.loads(next(events))["kind"])


def test_an_event_that_is_committed_late_is_not_missed(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=4)
    first, second = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
    reader = EventReader(fleet.engine, EventReader.newest(fleet.engine))
    assert reader.read() == []
    insert = sa.text(
        "INSERT INTO claim_events (claim_id, from_status, to_status, cause)"
        " VALUES (:claim_id, 'claimed', 'prepared', 'late')"
    )
    with fleet.engine.connect() as slow, slow.begin() as open_transaction:
        slow.execute(insert, {"claim_id": first.claim_id})
        fleet.attached(second)
        assert reader.read() == [], "an event with a lower id may still come"
        assert reader.read() == []
        open_transaction.commit()
    assert [event.event().to_status for event in reader.read()] == ["prepared", "allocated"]
    fleet.sql("DELETE FROM claim_events WHERE cause = 'late' RETURNING id")


def test_an_event_that_is_never_committed_holds_the_others_up_only_so_long(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=4)
    first, second = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
    reader = EventReader(fleet.engine, EventReader.newest(fleet.engine))
    insert = sa.text(
        "INSERT INTO claim_events (claim_id, from_status, to_status, cause)"
        " VALUES (:claim_id, 'claimed', 'prepared', 'never')"
    )
    with fleet.engine.connect() as slow, slow.begin() as open_transaction:
        slow.execute(insert, {"claim_id": first.claim_id})
        open_transaction.rollback()
    fleet.attached(second)
    assert reader.read() == []
    assert [event.event().to_status for event in reader.read()] == ["allocated"]


def test_history_that_was_pruned_is_passed_over(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=4)
    fleet.sql("SELECT setval(pg_get_serial_sequence('claim_events', 'id'), 1000000) IS NULL")
    fleet.claim("nic-vf:1")
    reader = EventReader(fleet.engine, 0)
    # Transactions of other databases of the server hold events back for a moment.
    found: list[Recorded] = []
    wait_until(lambda: found.extend(reader.read()) or found, "the events after the gap are read")
    assert found[0].event().to_status == "claimed"


def test_too_many_listeners_are_told_to_come_later(fleet: Fleet, database_url: str) -> None:
    fleet.host("h1")
    with http_api(fleet, database_url, max_listeners=1) as api, api.client() as client:
        with client.stream("GET", "/v1/events"):
            answer = client.get("/v1/events")
        problem(answer, 503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        wait_until(lambda: not api.backend.feed._listeners, "the stream is given up")
        assert client.get("/v1/events", params={"until": 0.1}).status_code == 200


def test_a_stop_ends_streams_and_waits_soon(fleet: Fleet, database_url: str) -> None:
    fleet.host("h1")
    claim = fleet.claim("nic-vf:1")
    with http_api(fleet, database_url, stop_timeout=20.0) as api, api.client() as client:
        stream = meanwhile(lambda: read(client, 99))
        with api.client() as other:
            waiting = meanwhile(
                lambda: other.get(
                    f"/v1/claims/{claim.claim_id}", params={"wait_for": "allocated", "timeout": 60}
                )
            )
            wait_until(lambda: api.backend.feed._listeners == 2, "both listen")
            api.server.stop()
            assert waiting.result(5).json()["status"] == "claimed"
            assert stream.result(5) == []


def test_a_stream_ends_when_its_token_is_revoked(
    api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBERED", 0.1)
    with api.client("reader") as client, client.stream("GET", "/v1/events") as stream:
        fleet.sql("UPDATE api_tokens SET revoked_at = now() RETURNING id")
        assert len(list(stream.iter_lines())) == 2, "the stream has ended, with nothing but its head"
