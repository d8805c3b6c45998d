"""What operators do is recorded with who, when and why."""

import json
from collections.abc import Iterator

import httpx
import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common.errors import HostIsAlive, UnknownHost
from tests.support.fleet import Fleet, pf
from tests.support.http_api import HttpApi, http_api, problem

TARGET = "c0000000-0000-4000-8000-000000000001"
OTHER = "c0000000-0000-4000-8000-000000000002"


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=2)
    with http_api(fleet, database_url) as api:
        yield api


@pytest.fixture
def operator(api: HttpApi) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


def acts(fleet: Fleet) -> list[tuple[str, str, str | None]]:
    return fleet.sql(
        "SELECT action, object, reason FROM audit_events WHERE action <> 'create-token' ORDER BY id"
    )  # type: ignore[return-value]


def test_acts_over_http_name_the_token(operator: httpx.Client, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    operator.post("/v1/hosts/h1/drain", json={"reason": "new cable"})
    operator.post("/v1/hosts/h1/drain", json={"reason": "flapping", "address": pf(1)})
    operator.post("/v1/hosts/h1/undrain", json={})
    operator.post("/v1/steps:retry", json={"reason": "the host is back"})
    operator.put("/v1/quotas/web", json={"alias": "nic-vf", "max_vfs": 1})
    operator.delete("/v1/quotas/web", params={"alias": "nic-vf"})
    operator.post("/v1/tokens", json={"name": "ann", "role": "reader"})
    operator.delete("/v1/tokens/ann")
    fleet.falls_silent("h1")
    operator.post(f"/v1/claims/{claim.claim_id}/force-release", json={"reason": "burnt"})
    operator.post("/v1/hosts/h1/remove", json={"reason": "sold"})
    shown = operator.get("/v1/audit").json()["acts"]
    mine = [each for each in shown if each["who"] is not None]
    assert [(each["action"], each["object"], each["reason"]) for each in reversed(mine)] == [
        ("drain", "h1", "new cable"),
        ("drain", f"h1 {pf(1)}", "flapping"),
        ("undrain", "h1", None),
        ("retry", "parked steps: 0 steps", "the host is back"),
        ("set-quota", "web nic-vf: max_vfs 1", None),
        ("unset-quota", "web nic-vf", None),
        ("create-token", "ann", None),
        ("revoke-token", "ann", None),
        ("force-release", str(claim.claim_id), "burnt"),
        ("remove-host", "h1", "sold"),
    ]
    [who] = {each["who"] for each in mine}
    assert who.startswith("operator-")


def test_moves_are_recorded_with_their_target(operator: httpx.Client, fleet: Fleet) -> None:
    fleet.host("h2", ports=2, vfs=2)
    source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
    body = {"source_claim_id": str(source.claim_id), "reason": "new fan"}
    for _ in range(2):  # the second one is the same move
        operator.put(f"/v1/moves/{TARGET}", json=body).raise_for_status()
    operator.post(f"/v1/moves/{TARGET}/revert").raise_for_status()
    operator.put(f"/v1/moves/{OTHER}", json=body).raise_for_status()
    for _ in range(2):
        operator.post(f"/v1/moves/{OTHER}/complete", json={"reason": "it has moved"}).raise_for_status()
    assert acts(fleet) == [
        ("begin-move", TARGET, "new fan"),
        ("revert-move", TARGET, None),
        ("begin-move", OTHER, "new fan"),
        ("complete-move", OTHER, "it has moved"),
    ]
    problem(operator.post(f"/v1/moves/{source.claim_id}/complete"), 404, "move-not-found")
    somebody_else = body | {"who": "ann"}
    problem(operator.put(f"/v1/moves/{source.claim_id}", json=somebody_else), 422, "invalid-message")
    assert len(acts(fleet)) == 4


def test_a_renewal_is_recorded(api: HttpApi, operator: httpx.Client, fleet: Fleet) -> None:
    fleet.used = {("h1", pf(0))}
    body = {"address": pf(0), "reason": "erased"}
    assert operator.post("/v1/hosts/h1/renew", json=body).json() == {"renewed": True}
    assert operator.post("/v1/hosts/h1/renew", json=body).json() == {"renewed": False}
    assert acts(fleet) == [("renew-device", f"h1 {pf(0)}", "erased")]
    problem(operator.post("/v1/hosts/h9/renew", json=body), 404, "unknown-host")
    fleet.falls_silent("h1")
    problem(operator.post("/v1/hosts/h1/renew", json=body), 503, "service-unavailable")
    with api.client("claimer", "web") as claimer:
        problem(claimer.post("/v1/hosts/h1/renew", json=body), 403, "forbidden")


@pytest.mark.parametrize(
    "command",
    [
        "host drain h1",
        "host undrain h1",
        f"host renew h1 --device {pf(0)}",
        "outbox retry --parked",
        "quota set web --vfs 2",
        "quota unset web",
        "token create --name ann --role reader",
        "token revoke ann",
    ],
)
def test_each_command_takes_a_reason(api: HttpApi, fleet: Fleet, command: str) -> None:
    token = api.token("operator")
    fleet.sql("SELECT set_quota('web', '', 1, NULL, NULL)")
    if command == "token revoke ann":
        fleet.sql("INSERT INTO api_tokens (name, role, sha256) VALUES ('ann', 'reader', '')")
    done = CliRunner().invoke(
        main,
        [*command.split(), "--reason", "because I say so"],
        env={"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": token},
    )
    assert done.exit_code == 0, done.output
    [*_, (who, reason)] = fleet.sql("SELECT who, reason FROM audit_events ORDER BY id")
    assert reason == "because I say so"
    assert str(who).startswith("operator-")


def test_what_was_refused_or_had_happened_already_is_not_recorded(api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    with pytest.raises(HostIsAlive):
        fleet.force(claim)
    with pytest.raises(HostIsAlive):
        fleet.scheduler.remove_host("h1", "ann", "sold")
    with pytest.raises(UnknownHost):
        fleet.scheduler.drain("h9", "new cable", who="ann")
    assert acts(fleet) == []
    fleet.falls_silent("h1")
    fleet.force(claim)
    fleet.force(claim)
    assert [act[0] for act in acts(fleet)] == ["force-release"]


def test_the_audit_is_filtered_and_read_page_by_page(operator: httpx.Client) -> None:
    for number in range(5):
        operator.post("/v1/hosts/h1/drain", json={"reason": f"reason {number}"})
    operator.post("/v1/hosts/h1/undrain", json={})
    wanted = {"action": "drain", "object": "h1", "limit": 2}
    seen, after = [], None
    while True:
        page = operator.get("/v1/audit", params=wanted | ({} if after is None else {"after": after})).json()
        seen += [each["reason"] for each in page["acts"]]
        if (after := page["after"]) is None:
            break
    assert seen == [f"reason {number}" for number in (4, 3, 2, 1, 0)]
    assert operator.get("/v1/audit", params={"who": "nobody"}).json()["acts"] == []
    problem(operator.get("/v1/audit", params={"action": "dance"}), 422, "invalid-message")


@pytest.mark.parametrize(("role", "project"), [("reader", None), ("claimer", "web")])
def test_only_operators_see_the_audit(api: HttpApi, role: str, project: str | None) -> None:
    with api.client(role, project) as client:  # type: ignore[arg-type]
        problem(client.get("/v1/audit"), 403, "forbidden")


def test_nobody_names_somebody_else(operator: httpx.Client) -> None:
    problem(operator.post("/v1/steps:retry", json={"who": "ann"}), 422, "invalid-message")


@pytest.mark.parametrize("way", ["http", "database"])
def test_the_command_line_lists_it(api: HttpApi, database_url: str, way: str, fleet: Fleet) -> None:
    fleet.scheduler.drain("h1", "new cable", who="ann")
    http = {"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": api.token("operator")}
    database = {"OS_DATABASE__CONNECTION": database_url, "PORTCLAIM_URL": ""}
    listed = CliRunner().invoke(
        main, ["audit", "list", "--who", "ann", "--output", "json"], env=http if way == "http" else database
    )
    [act] = json.loads(listed.stdout)
    assert (act["action"], act["object"], act["reason"]) == ("drain", "h1", "new cable")
