"""The HTTP API: claims, who may do what, and how errors look."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from tests.support.concurrency import at_once, meanwhile
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, asked, http_api, problem


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    """The API of a fleet of one host with two ports of two VFs."""
    fleet.host("h1", ports=2, vfs=2)
    with http_api(fleet, database_url) as api:
        yield api


@pytest.fixture
def operator(api: HttpApi) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


def test_a_claim_is_made_shown_and_released(operator: httpx.Client, fleet: Fleet) -> None:
    claim_id, body = uuid4(), asked("nic-vf:2")
    made = operator.put(f"/v1/claims/{claim_id}", json=body)
    assert (made.status_code, made.json()["status"], made.json()["host"]) == (200, "claimed", "h1")
    assert operator.put(f"/v1/claims/{claim_id}", json=body).json() == made.json()
    shown = operator.get(f"/v1/claims/{claim_id}").json()
    assert shown == made.json()
    [listed] = operator.get("/v1/claims", params={"host": "h1"}).json()["claims"]
    assert listed["claim_id"] == str(claim_id)
    assert operator.delete(f"/v1/claims/{claim_id}").json()["status"] == "releasing"
    [step] = operator.get("/v1/steps").json()["steps"]
    assert step["action"] == "detach"


def test_the_same_id_for_another_request_is_a_conflict(operator: httpx.Client) -> None:
    claim_id = uuid4()
    operator.put(f"/v1/claims/{claim_id}", json=asked())
    problem(operator.put(f"/v1/claims/{claim_id}", json=asked()), 409, "claim-conflict")


def test_the_same_claim_sent_at_once_is_made_once(operator: httpx.Client, fleet: Fleet) -> None:
    claim_id, body = uuid4(), asked("nic-pf:1")
    answers = at_once([lambda: operator.put(f"/v1/claims/{claim_id}", json=body)] * 8)
    assert {answer.status_code for answer in answers} == {200}  # type: ignore[union-attr]
    assert fleet.sql("SELECT count(*) FROM claims") == [(1,)]


def test_a_refusal_carries_its_explanation(operator: httpx.Client) -> None:
    refused = problem(operator.put(f"/v1/claims/{uuid4()}", json=asked("nic-pf:3")), 409, "claim-refused")
    assert refused["explanation"]["served"] is False
    assert refused["explanation"]["filters"][-1]["devices"] == 0
    assert refused["detail"] == refused["explanation"]["nearest_miss"]


def test_a_claim_may_wait_in_a_queue(operator: httpx.Client) -> None:
    claim_id = uuid4()
    waiting = operator.put(f"/v1/claims/{claim_id}", json=asked("nic-pf:3", wait=60))
    assert (waiting.status_code, waiting.json()["status"]) == (202, "waiting")
    [queued] = operator.get("/v1/waiting").json()["claims"]
    assert (queued["claim_id"], queued["position"]) == (str(claim_id), 1)


def test_a_batch_answers_for_each_claim(operator: httpx.Client) -> None:
    good, bad = (asked(alias, claim_id=str(uuid4())) for alias in ("nic-vf:1", "nic-pf:9"))
    outcomes = operator.post("/v1/claims:batch", json={"claims": [good, bad]}).json()["outcomes"]
    assert outcomes[0]["claim"]["claim_id"] == good["claim_id"]
    assert outcomes[1]["error"]["type"] == "ClaimRefused"
    released = operator.post("/v1/claims:release", json={"claim_ids": [good["claim_id"]]}).json()
    assert released["outcomes"][0]["claim"]["status"] == "releasing"


def test_a_request_waits_until_its_claim_is_allocated(
    operator: httpx.Client, api: HttpApi, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:1")
    waiting = meanwhile(
        lambda: operator.get(f"/v1/claims/{claim.claim_id}", params={"wait_for": "allocated", "timeout": 30})
    )
    fleet.hosts["h1"].done(claim)
    assert waiting.result(20).json()["status"] == "allocated"


def test_a_wait_ends_with_its_timeout_and_with_what_can_never_be(
    operator: httpx.Client, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:1")
    path = f"/v1/claims/{claim.claim_id}"
    late = operator.get(path, params={"wait_for": "allocated", "timeout": 0.05})
    assert late.json()["status"] == "claimed"
    fleet.leave(claim)
    gone = operator.get(path, params={"wait_for": "allocated", "timeout": 60})
    assert gone.json()["status"] == "released"


def test_an_allocated_claim_is_moved(operator: httpx.Client, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    fleet.host("h2")
    target = uuid4()
    move = operator.put(f"/v1/moves/{target}", json={"source_claim_id": str(claim.claim_id)})
    assert (move.json()["status"], move.json()["target"]["host"]) == ("begun", "h2")
    assert operator.post(f"/v1/moves/{target}/complete").json()["status"] == "completing"
    assert operator.post(f"/v1/moves/{target}/revert").json()["status"] == "reverted"
    problem(operator.post(f"/v1/moves/{target}/complete"), 409, "move-conflict")
    problem(operator.post(f"/v1/moves/{uuid4()}/complete"), 404, "move-not-found")


def test_the_fleet_is_shown_and_drained(operator: httpx.Client) -> None:
    assert operator.get("/v1/hosts/h1").json()["vfs_available"] == 4
    problem(operator.get("/v1/hosts/h9"), 404, "unknown-host")
    assert operator.post("/v1/hosts/h1/drain", json={"reason": "new cable"}).json() == {"live_claims": 0}
    [host] = operator.get("/v1/hosts", params={"is_drained": True}).json()["hosts"]
    assert host["drained_reason"] == "new cable"
    problem(operator.put(f"/v1/claims/{uuid4()}", json=asked()), 409, "claim-refused")
    operator.post("/v1/hosts/h1/undrain", json={})
    devices = operator.get("/v1/devices", params={"status": "available"}).json()
    assert len(devices["devices"]) == 6
    pools = operator.get("/v1/pools").json()["pools"]
    assert {(pool["dev_type"], pool["available"]) for pool in pools} == {("type-PF", 2), ("type-VF", 4)}
    aliases = {each["name"]: each["available"] for each in operator.get("/v1/aliases").json()["aliases"]}
    assert aliases["nic-pf"] == 2


def test_lists_are_answered_page_by_page(operator: httpx.Client, fleet: Fleet) -> None:
    made = [str(fleet.claim("nic-vf:1").claim_id) for _ in range(3)]
    seen, after = [], None
    while True:
        page = operator.get("/v1/claims", params={"limit": 2} | ({"after": after} if after else {})).json()
        seen += [claim["claim_id"] for claim in page["claims"]]
        if (after := page["after"]) is None:
            break
    assert seen == made
    fleet.host("h2")
    first = operator.get("/v1/pools", params={"limit": 1}).json()
    assert ({pool["host"] for pool in first["pools"]}, first["after"]) == ({"h1"}, "h1")
    second = operator.get("/v1/pools", params={"limit": 1, "after": "h1"}).json()
    assert ({pool["host"] for pool in second["pools"]}, second["after"]) == ({"h2"}, None)


def test_explain_and_candidates_reserve_nothing(operator: httpx.Client, fleet: Fleet) -> None:
    specs = {"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}}
    assert operator.post("/v1/explain", json=specs).json()["served"] is True
    [candidate] = operator.post("/v1/candidates", json=specs).json()["candidates"]
    assert candidate["host"] == "h1"
    assert fleet.sql("SELECT count(*) FROM claims") == [(0,)]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"instance_id": "x"}, "instance_id"),
        ({"instance_id": str(uuid4()), "surprise": 1}, "surprise"),
        ({"instance_id": str(uuid4()), "wait": "60"}, "wait"),
        ([], "body"),
    ],
)
def test_an_invalid_body_is_refused_and_says_which_field(
    operator: httpx.Client, body: object, named: str
) -> None:
    faults = problem(operator.put(f"/v1/claims/{uuid4()}", json=body), 422, "invalid-message")["faults"]
    assert any(named in fault["field"] for fault in faults)


def test_everything_else_that_is_wrong_is_a_problem_too(operator: httpx.Client) -> None:
    json = {"Content-Type": "application/json"}
    problem(operator.put(f"/v1/claims/{uuid4()}", content=b"{", headers=json), 422, "invalid-message")
    problem(operator.put(f"/v1/claims/{uuid4()}", json=asked("no-such:1")), 422, "invalid-request")
    problem(operator.get("/v1/nothing"), 404, "not-found")
    problem(operator.patch("/v1/claims"), 405, "method-not-allowed")
    problem(operator.get(f"/v1/claims/{uuid4()}"), 404, "claim-not-found")
    problem(operator.get("/v1/claims", params={"limit": 0}), 422, "invalid-message")
    problem(operator.get("/v1/claims", params={"after": "no cursor"}), 422, "invalid-request")
    long = asked(claim_id=str(uuid4()))
    problem(operator.put(f"/v1/claims/{uuid4()}", json=long), 422, "invalid-request")


def test_nobody_gets_in_without_a_valid_token(api: HttpApi) -> None:
    with httpx.Client(base_url=api.url) as nobody:
        for path in ("/v1/claims", "/v1/openapi.json", "/v1/events"):
            answer = nobody.get(path)
            problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        wrong = {"Authorization": "Bearer portclaim_wrong"}
        problem(nobody.get("/v1/claims", headers=wrong), 401, "unauthorized")
        assert nobody.get("/healthz").json()["status"] == "ok"
        ready = nobody.get("/readyz").json()
        assert ready == {"status": "ok", "checks": {"scheduler": "ok", "database": "ok"}}


def test_a_token_is_made_listed_and_revoked_and_kept_only_as_a_hash(
    operator: httpx.Client, api: HttpApi, fleet: Fleet
) -> None:
    new = {"name": "web", "role": "claimer", "project": "web"}
    token = operator.post("/v1/tokens", json=new).json()["token"]
    problem(operator.post("/v1/tokens", json=new), 422, "invalid-request")
    problem(operator.post("/v1/tokens", json={"name": "x", "role": "claimer"}), 422, "invalid-request")
    assert token not in str(fleet.sql("SELECT api_tokens::text FROM api_tokens"))
    listed = operator.get("/v1/tokens").json()["tokens"]
    assert "web" in {each["name"] for each in listed}
    assert operator.delete("/v1/tokens/web").status_code == 204
    problem(operator.delete("/v1/tokens/web"), 422, "invalid-request")
    headers = {"Authorization": f"Bearer {token}"}
    problem(httpx.get(f"{api.url}/v1/claims", headers=headers), 401, "unauthorized")


def test_an_expired_token_is_refused(operator: httpx.Client, api: HttpApi, fleet: Fleet) -> None:
    new = {"name": "short", "role": "reader", "valid_for": 60}
    token = operator.post("/v1/tokens", json=new).json()["token"]
    fleet.sql("UPDATE api_tokens SET expires_at = now() WHERE name = 'short'")
    headers = {"Authorization": f"Bearer {token}"}
    problem(httpx.get(f"{api.url}/v1/claims", headers=headers), 401, "unauthorized")


def test_a_claimer_sees_and_releases_only_claims_of_its_project(api: HttpApi, fleet: Fleet) -> None:
    with api.client("claimer", "web") as web, api.client("claimer", "shop") as shop:
        mine, theirs = uuid4(), uuid4()
        assert web.put(f"/v1/claims/{mine}", json=asked()).status_code == 200
        assert shop.put(f"/v1/claims/{theirs}", json=asked()).status_code == 200
        ids = [claim["claim_id"] for claim in web.get("/v1/claims").json()["claims"]]
        assert ids == [str(mine)]
        foreign = [
            web.get(f"/v1/claims/{theirs}"),
            web.get(f"/v1/claims/{theirs}", params={"wait_for": "allocated"}),
            web.delete(f"/v1/claims/{theirs}"),
            web.post(f"/v1/claims/{theirs}/attach"),
            web.post("/v1/claims:release", json={"claim_ids": [str(mine), str(theirs)]}),
            web.put(f"/v1/moves/{uuid4()}", json={"source_claim_id": str(theirs)}),
            web.post(f"/v1/moves/{theirs}/complete"),
            web.post(f"/v1/moves/{theirs}/revert"),
            web.put(f"/v1/claims/{uuid4()}", json=asked(near=[str(theirs)])),
            web.post(
                "/v1/explain",
                json={"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}, "apart_from": [str(theirs)]},
            ),
            web.get("/v1/waiting", params={"claim_id": str(theirs)}),
        ]
        for answer in foreign:
            problem(answer, 404, "claim-not-found")
        assert fleet.sql("SELECT status FROM claims") == [("claimed",), ("claimed",)]
        assert web.delete(f"/v1/claims/{mine}").json()["status"] == "releasing"


def test_a_claim_keeps_its_project_when_it_moves(api: HttpApi, fleet: Fleet) -> None:
    with api.client("claimer", "web") as web:
        source, target = uuid4(), uuid4()
        web.put(f"/v1/claims/{source}", json=asked())
        [claim] = [fleet.scheduler.show(source)]
        fleet.hosts["h1"].done(claim)
        fleet.host("h2")
        assert web.put(f"/v1/moves/{target}", json={"source_claim_id": str(source)}).status_code == 200
        assert web.get(f"/v1/claims/{target}").status_code == 200


def test_an_operator_claims_for_any_project_and_a_claimer_for_its_own(api: HttpApi) -> None:
    with api.client() as operator, api.client("claimer", "web") as web:
        given = uuid4()
        operator.put(f"/v1/claims/{given}", json=asked(project="web"))
        assert web.get(f"/v1/claims/{given}").status_code == 200
        problem(web.put(f"/v1/claims/{uuid4()}", json=asked(project="shop")), 403, "forbidden")
        problem(web.get("/v1/claims", params={"project": "shop"}), 403, "forbidden")
        [listed] = operator.get("/v1/claims", params={"project": "web"}).json()["claims"]
        assert listed["claim_id"] == str(given)


def test_claims_of_two_projects_wait_in_one_queue(api: HttpApi) -> None:
    with api.client("claimer", "web") as web, api.client("claimer", "shop") as shop:
        first, second = uuid4(), uuid4()
        web.put(f"/v1/claims/{first}", json=asked("nic-pf:3", wait=60))
        shop.put(f"/v1/claims/{second}", json=asked("nic-pf:3", wait=60))
        [queued] = shop.get("/v1/waiting", params={"claim_id": str(second)}).json()["claims"]
        assert queued["position"] == 2


def test_a_refusal_tells_a_claimer_nothing_of_other_instances(api: HttpApi) -> None:
    body = asked("nic-pf:2")
    with api.client() as operator, api.client("claimer", "web") as web:
        operator.put(f"/v1/claims/{uuid4()}", json=body)
        answers = [
            web.put(f"/v1/claims/{uuid4()}", json=asked("nic-vf:1")),
            web.post("/v1/claims:batch", json={"claims": [asked(claim_id=str(uuid4()))]}),
            web.post("/v1/explain", json={"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}}),
        ]
        told = operator.put(f"/v1/claims/{uuid4()}", json=asked("nic-vf:1"))
    assert body["instance_id"] in told.text
    for answer in answers:
        assert "another instance" in answer.text
        assert body["instance_id"] not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/claims/0b5fd0ce-8c8b-4a4e-9a0f-6d5cbb4a4d53", asked()),
        ("DELETE", "/v1/claims/0b5fd0ce-8c8b-4a4e-9a0f-6d5cbb4a4d53", None),
        ("POST", "/v1/claims:batch", {"claims": [asked(claim_id=str(uuid4()))]}),
        ("POST", "/v1/hosts/h1/drain", {"reason": "x"}),
        ("POST", "/v1/steps:retry", {}),
        ("POST", "/v1/tokens", {"name": "x", "role": "operator"}),
        ("GET", "/v1/tokens", None),
    ],
)
def test_a_reader_changes_nothing(api: HttpApi, method: str, path: str, body: object) -> None:
    with api.client("reader") as reader:
        problem(reader.request(method, path, json=body), 403, "forbidden")
        assert reader.get("/v1/hosts").status_code == 200


@pytest.mark.parametrize("path", ["/v1/hosts", "/v1/devices", "/v1/pools", "/v1/steps", "/v1/waiting"])
@pytest.mark.parametrize("role", ["claimer", "reader"])
def test_a_token_of_a_project_does_not_see_the_whole_fleet(api: HttpApi, role: str, path: str) -> None:
    with api.client(role, "web") as client:  # type: ignore[arg-type]
        problem(client.get(path), 403, "forbidden")


def test_only_an_operator_forces_a_release_and_the_history_names_it(api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    path, why = f"/v1/claims/{claim.claim_id}/force-release", {"reason": "burned"}
    with api.client() as operator, api.client("claimer", "web") as web:
        problem(web.post(path, json=why), 403, "forbidden")
        problem(operator.post(path, json=why), 409, "host-is-alive")
        fleet.falls_silent("h1")
        ended = operator.post(path, json=why).json()
    assert ended["status"] == "released"
    assert "operator-" in ended["reason"]
    assert "burned" in ended["reason"]


def test_the_role_of_the_api_cannot_write_claims(api: HttpApi) -> None:
    with api.backend._engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="denied"):
        connection.execute(sa.text("UPDATE claims SET reason = 'x'"))
