"""Tokens of Keystone at the HTTP API: which role and which project they give."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.errors import InvalidConfiguration
from portclaim.services.api import access, options
from portclaim.services.api.keystone import KeystoneTokens
from tests.support import keystone
from tests.support.fleet import Fleet
from tests.support.http_api import TIMEOUT, HttpApi, asked, http_api, problem
from tests.support.keystone import Identity, StandIn
from tests.support.services import as_ini


def configured(
    directory: Path, identity: Identity, password: str = keystone.ADMIN, **api: object
) -> cfg.ConfigOpts:
    file = directory / "portclaim.conf"
    section = identity.options() | {"password": password}
    file.write_text(as_ini({"api": {"auth": "keystone", **api}, "keystone_authtoken": section}))
    conf = config.load(["--config-file", str(file)], "api")
    conf.register_opts(options.OPTIONS, options.GROUP)
    return conf


@pytest.fixture(params=["stand-in", "keystone"])
def identity(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Identity]:
    with ExitStack() as running:
        if request.param == "stand-in":
            yield running.enter_context(keystone.stand_in())
            return
        if not keystone.PROGRAMS.exists():
            pytest.skip("Keystone is not installed: PORTCLAIM_KEYSTONE names no directory of programs")
        yield running.enter_context(keystone.keystone(tmp_path))


@pytest.fixture
def api(fleet: Fleet, database_url: str, identity: Identity, tmp_path: Path) -> Iterator[HttpApi]:
    fleet.host("h1", ports=2, vfs=4)
    tokens = KeystoneTokens(configured(tmp_path, identity))
    with http_api(fleet, database_url, keystone=tokens) as api:
        yield api


def client(api: HttpApi, token: str, header: str = "X-Auth-Token") -> httpx.Client:
    value = f"Bearer {token}" if header == "Authorization" else token
    return httpx.Client(base_url=api.url, headers={header: value}, timeout=TIMEOUT)


def test_roles_and_projects_are_those_of_the_token(api: HttpApi, identity: Identity, fleet: Fleet) -> None:
    claim = f"/v1/claims/{uuid4()}"
    member, project = identity.token("member", "web")
    with client(api, member) as web:
        assert web.put(claim, json=asked()).status_code == 200
        assert fleet.sql("SELECT request ->> 'project' FROM claims") == [(project,)]
        assert web.get(claim).status_code == 200
        problem(web.get("/v1/hosts"), 403, "forbidden")
    other, _ = identity.token("member", "db")
    with client(api, other, "Authorization") as db:
        problem(db.delete(claim), 404, "claim-not-found")
    admin, _ = identity.token("admin", "ops")
    with client(api, admin) as ops:
        assert ops.get(claim).status_code == 200
        assert ops.post("/v1/hosts/h1/drain", json={"reason": "new fan"}).status_code == 200
        [act] = ops.get("/v1/audit").json()["acts"]
        assert act["who"].endswith("@Default")
        problem(ops.post("/v1/tokens", json={"name": "ann", "role": "reader"}), 422, "invalid-request")
    reader, _ = identity.token("reader", None)
    with client(api, reader) as auditor:
        assert auditor.get("/v1/hosts").status_code == 200
        problem(auditor.put(f"/v1/claims/{uuid4()}", json=asked()), 403, "forbidden")


def test_a_token_that_is_unknown_or_revoked_is_refused(
    api: HttpApi, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBERED", 0.0)
    token, _ = identity.token("member", "web")
    with client(api, token) as web:
        assert web.get("/v1/claims").status_code == 200
        identity.revoke(token)
        problem(web.get("/v1/claims"), 401, "unauthorized")
    with client(api, "no-such-token") as nobody:
        problem(nobody.get("/v1/claims"), 401, "unauthorized")
    with client(api, api.token("operator")) as own:
        problem(own.get("/v1/claims"), 401, "unauthorized")
    with httpx.Client(base_url=api.url, timeout=TIMEOUT) as nobody:
        problem(nobody.get("/v1/claims"), 401, "unauthorized")


class TestStandIn:
    """What cannot be arranged with Keystone at a test's speed."""

    @pytest.fixture
    def identity(self) -> Iterator[StandIn]:
        with keystone.stand_in() as identity:
            yield identity

    def test_a_token_that_has_expired_is_refused(self, api: HttpApi, identity: StandIn) -> None:
        token, _ = identity.token("member", "web", valid_for=-1.0)
        with client(api, token) as web:
            problem(web.get("/v1/claims"), 401, "unauthorized")

    def test_a_role_that_gives_nothing_is_forbidden(self, api: HttpApi, identity: StandIn) -> None:
        token, _ = identity.token("dancer", "web")
        with client(api, token) as web:
            assert "admin, member, reader" in problem(web.get("/v1/claims"), 403, "forbidden")["detail"]

    def test_keystone_is_asked_once_for_several_requests(self, api: HttpApi, identity: StandIn) -> None:
        token, _ = identity.token("member", "web")
        with client(api, token) as web:
            for _ in range(5):
                assert web.get("/v1/claims").status_code == 200
        assert identity.asked == 1

    def test_access_rules_of_an_application_credential_are_not_passed_over(
        self, api: HttpApi, identity: StandIn
    ) -> None:
        rules = [{"id": "1", "service": "pci", "method": "GET", "path": "/v1/claims"}]
        token, _ = identity.token("member", "web", application_credential={"access_rules": rules})
        with client(api, token) as web:
            problem(web.get("/v1/claims"), 401, "unauthorized")

    def test_a_keystone_that_is_away_is_not_the_callers_fault(self, api: HttpApi, identity: StandIn) -> None:
        identity.server.shutdown()
        identity.server.server_close()
        with client(api, "any") as web:
            answer = web.get("/v1/claims")
        problem(answer, 503, "service-unavailable")
        assert answer.headers["Retry-After"]

    def test_a_wrong_password_of_the_api_is_not_the_callers_fault(
        self, fleet: Fleet, database_url: str, identity: StandIn, tmp_path: Path
    ) -> None:
        tokens = KeystoneTokens(configured(tmp_path, identity, password="wrong"))
        token, _ = identity.token("member", "web")
        with http_api(fleet, database_url, keystone=tokens) as api, client(api, token) as web:
            problem(web.get("/v1/claims"), 503, "service-unavailable")

    def test_a_role_that_portclaim_does_not_know_is_refused_at_start(
        self, identity: StandIn, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidConfiguration, match="keystone_roles: king"):
            KeystoneTokens(configured(tmp_path, identity, keystone_roles="admin:king"))
