"""Quotas over HTTP and on the command line."""

import json
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, asked, http_api, problem


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=2)
    with http_api(fleet, database_url) as api:
        yield api


@pytest.fixture
def operator(api: HttpApi) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


def test_a_claim_beyond_the_quota_is_a_problem_of_its_own(api: HttpApi, operator: httpx.Client) -> None:
    assert operator.put("/v1/quotas/web", json={"alias": "nic-vf", "max_vfs": 1}).status_code == 204
    with api.client("claimer", "web") as web:
        made = web.put(f"/v1/claims/{uuid4()}", json=asked())
        assert made.status_code == 200
        refused = problem(web.put(f"/v1/claims/{uuid4()}", json=asked()), 403, "quota-exceeded")
        assert {name: refused[name] for name in ("project", "alias", "kind", "quota", "used", "asked")} == {
            "project": "web", "alias": "nic-vf", "kind": "VFs", "quota": 1, "used": 1, "asked": 1,
        }  # fmt: skip
        body = {"claims": [asked(claim_id=str(uuid4()))]}
        [outcome] = web.post("/v1/claims:batch", json=body).json()["outcomes"]
        assert outcome["error"]["type"] == "QuotaExceeded"
        assert web.get("/v1/quotas").json()["quotas"] == operator.get("/v1/quotas").json()["quotas"]
        problem(web.get("/v1/quotas", params={"project": "other"}), 403, "forbidden")
        problem(web.put("/v1/quotas/web", json={"max_vfs": 9}), 403, "forbidden")
        problem(web.delete("/v1/quotas/web"), 403, "forbidden")
    assert operator.delete("/v1/quotas/web", params={"alias": "nic-vf"}).status_code == 204
    problem(operator.delete("/v1/quotas/web", params={"alias": "nic-vf"}), 422, "invalid-request")


def test_another_project_sees_nothing_of_it(api: HttpApi, operator: httpx.Client) -> None:
    operator.put("/v1/quotas/web", json={"max_pfs": 1})
    with api.client("reader", "other") as other:
        assert other.get("/v1/quotas").json()["quotas"] == []


@pytest.mark.parametrize("body", [{}, {"max_vfs": -1}, {"max_vfs": 2**31}, {"alias": "", "max_vfs": 1}])
def test_a_quota_that_makes_no_sense_is_refused(operator: httpx.Client, body: dict[str, object]) -> None:
    answer = operator.put("/v1/quotas/web", json=body)
    assert (answer.status_code, answer.json()["status"]) == (422, 422)
    assert operator.get("/v1/quotas").json()["quotas"] == []


def test_a_cursor_that_the_database_cannot_read_is_refused(operator: httpx.Client) -> None:
    problem(operator.get("/v1/quotas", params={"after": "web/\0"}), 422, "invalid-message")


def test_quotas_are_listed_page_by_page(operator: httpx.Client) -> None:
    for project in ("c", "a", "b"):
        for alias in (None, "x/y"):
            operator.put(f"/v1/quotas/{project}", json={"alias": alias, "max_pfs": 1})
    seen, after = [], ""
    while after is not None:
        page = operator.get("/v1/quotas", params={"limit": 4} | ({"after": after} if after else {})).json()
        seen += [(each["project"], each["alias"]) for each in page["quotas"]]
        after = page["after"]
    assert seen == [(project, alias) for project in "abc" for alias in (None, "x/y")]


@pytest.mark.parametrize("way", ["http", "database"])
def test_the_command_line_sets_lists_and_unsets(api: HttpApi, database_url: str, way: str) -> None:
    http = {"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": api.token("operator")}
    database = {"OS_DATABASE__CONNECTION": database_url, "PORTCLAIM_URL": ""}

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(
            main, ["quota", *arguments], env=http if way == "http" else database, catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    run("set", "web", "--alias", "nic-vf", "--vfs", "3", "--waiting", "1")
    [row] = json.loads(run("list", "--project", "web", "--output", "json"))
    assert (row["alias"], row["max_pfs"], row["max_vfs"], row["vfs"]) == ("nic-vf", None, 3, 0)
    assert "nic-vf" in run("list")
    run("unset", "web", "--alias", "nic-vf")
    assert json.loads(run("list", "--output", "json")) == []


def test_the_name_of_a_token_that_cannot_be_stored_is_refused(api: HttpApi) -> None:
    """Fuzzing found it: the database has no NUL, and its client no half of a pair of surrogates."""
    with api.client() as http:
        for name in ("a%00b", "%ED%A0%80"):
            answer = http.delete(f"/v1/tokens/{name}")
            assert answer.status_code in {404, 422}, answer.text
        assert http.delete("/v1/tokens/a%00b").status_code == 422
