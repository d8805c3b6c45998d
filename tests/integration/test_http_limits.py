"""The HTTP API and clients that are slow, broken or too many."""

import socket
import threading
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import meanwhile, wait_until
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, asked, http_api, problem


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=4)
    with http_api(
        fleet, database_url, threads=2, max_waiting=2, max_body=4096, request_timeout=0.5, stop_timeout=1.0
    ) as api:
        yield api


def connected(api: HttpApi) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=20)


def until_closed(client: socket.socket) -> bytes:
    """All that the server still sends until it closes the connection."""
    found = b""
    while part := client.recv(4096):
        found += part
    return found


def test_a_body_that_is_too_long_is_refused(api: HttpApi) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    with api.client() as client:
        path = f"/v1/claims/{uuid4()}"
        problem(client.put(path, json=asked(hosts=["h" * 200] * 50)), 413, "content-too-large")
        problem(client.put(path, content=parts()), 413, "content-too-large")


def test_a_client_that_sends_nothing_is_disconnected(api: HttpApi) -> None:
    with connected(api) as silent:
        assert until_closed(silent) == b""


def test_a_client_that_sends_half_a_head_is_disconnected(api: HttpApi) -> None:
    with connected(api) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert until_closed(slow) == b""


def test_a_client_that_sends_half_a_body_is_told_and_disconnected(api: HttpApi) -> None:
    with connected(api) as slow:
        slow.sendall(b"PUT /v1/claims/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b"request-timeout" in until_closed(slow)


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\0" * 100, b"A" * 100_000])
def test_what_is_not_http_is_refused(api: HttpApi, noise: bytes) -> None:
    with connected(api) as client:
        try:
            client.sendall(noise)
            said = until_closed(client)
        except ConnectionError:
            said = b""
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{api.url}/healthz").status_code == 200


def test_a_client_that_hangs_up_leaves_a_claim_that_can_be_asked_for_again(
    api: HttpApi, fleet: Fleet
) -> None:
    claim_id = uuid4()
    with api.client() as client:
        body = asked()
        request = client.build_request("PUT", f"/v1/claims/{claim_id}", json=body)
        head = f"PUT {request.url.path} HTTP/1.1\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in request.headers.items()
        )
        with connected(api) as gone:
            gone.sendall(head.encode() + b"\r\n" + request.content)
        wait_until(lambda: fleet.sql("SELECT count(*) FROM claims") == [(1,)], "the claim is made")
        assert client.put(f"/v1/claims/{claim_id}", json=body).json()["status"] == "claimed"


def test_too_many_requests_are_told_to_come_later_and_health_is_still_answered(
    api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    show = fleet.scheduler.show

    def slowly(*claim_id: object) -> Claim:
        assert go_on.wait(30)
        return show(*claim_id)  # type: ignore[arg-type]

    monkeypatch.setattr(fleet.scheduler, "show", slowly)
    claim = fleet.claim("nic-vf:1")
    with api.client() as client:
        assert client.get("/v1/aliases").status_code == 200  # its token is remembered
        path = f"/v1/claims/{claim.claim_id}"
        calls = [meanwhile(lambda: client.get(path)) for _ in range(4)]  # two threads, and two that wait
        wait_until(lambda: api.backend._running == 4, "all of them are in hand")
        answer = client.get(path)
        problem(answer, 503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200
        go_on.set()
        assert {call.result(30).status_code for call in calls} == {200}
        assert client.get(path).status_code == 200


def test_a_scheduler_that_is_away_is_a_problem_and_the_api_is_not_ready(
    api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ServiceUnavailable("the service scheduler does not answer")

    monkeypatch.setattr(fleet.scheduler, "ping", away)
    monkeypatch.setattr(fleet.scheduler, "show", away)
    with api.client() as client:
        answer = client.get(f"/v1/claims/{uuid4()}")
        problem(answer, 503, "service-unavailable")
        assert answer.headers["Retry-After"]
        ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {
        "scheduler": "the service scheduler does not answer",
        "database": "ok",
    }


def test_a_fault_in_a_handler_is_a_problem(
    api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(fleet.scheduler, "show", faulty)
    with api.client() as client:
        answer = client.get(f"/v1/claims/{uuid4()}")
        problem(answer, 500, "service-failed")
        assert "secret" not in answer.text


def test_a_request_on_one_connection_too_many_is_a_problem(fleet: Fleet, database_url: str) -> None:
    with http_api(fleet, database_url, max_connections=2) as api, api.client() as client:
        assert client.get("/v1/claims").status_code == 200
        with connected(api), connected(api) as late:
            late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            said = until_closed(late)
            assert said.startswith(b"HTTP/1.1 503")
            assert b"urn:portclaim:problem:busy" in said
            assert b"retry-after: 1" in said
        wait_until(
            lambda: client.get("/v1/claims").status_code == 200, "requests are answered when others have gone"
        )


@pytest.fixture
def small_api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    """Two threads, and room for many requests that wait for one."""
    fleet.host("h1")
    with http_api(fleet, database_url, threads=2, stop_timeout=1.0) as api:
        yield api


def test_streams_that_nobody_reads_or_that_break_off_leave_nothing_behind(
    small_api: HttpApi, fleet: Fleet
) -> None:
    """More of them than there are threads, and the API goes on answering."""
    api = small_api
    head = f"Host: x\r\nAuthorization: Bearer {api.token('operator')}\r\n\r\n".encode()
    claim = fleet.claim("nic-vf:1")
    wait = f"GET /v1/claims/{claim.claim_id}?wait_for=allocated&timeout=60 HTTP/1.1\r\n".encode()
    before = threading.active_count()
    deaf = [connected(api) for _ in range(20)]
    for number, each in enumerate(deaf):
        each.sendall((wait if number % 2 else b"GET /v1/events?after=0 HTTP/1.1\r\n") + head)
    wait_until(lambda: api.backend.feed._listeners == 20, "all of them listen")
    for _ in range(20):
        fleet.leave(fleet.claim("nic-vf:1"))
    with api.client() as client:
        assert client.get("/v1/claims").status_code == 200
        for each in deaf:
            each.close()
        # What waits for a claim notices at its next look, and then its answer goes nowhere.
        fleet.leave(claim)
        wait_until(lambda: api.backend.feed._listeners == 0, "nobody listens any more")
        assert client.get("/v1/claims").status_code == 200
    assert threading.active_count() <= before + 4  # two for calls, two for events
