"""Secrets come from files or the environment, and nothing that anybody can read or hear has one of them."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common import config, config_faults
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.rpc.bus_url import bus_url
from portclaim.services.api.service import Api
from tests.support.guarded_postgresql import guarded_postgresql
from tests.support.keystone import stand_in
from tests.support.otlp import collector
from tests.support.secret_site import OWNER, SecretSite, ended
from tests.support.served import PROGRAM
from tests.support.services import as_ini

CLAIM: dict[str, Any] = {"extra_specs": {"pci_passthrough:alias": "vf:1"}}


@pytest.fixture(params=["configuration", "files"])
def site(request: pytest.FixtureRequest, tmp_path: Path, rabbit_url: str) -> Iterator[SecretSite]:
    password = f"Keystone{uuid4().hex}"
    with (
        guarded_postgresql() as database,
        stand_in(password) as identity,
        collector() as collecting,
        ended(
            SecretSite(
                tmp_path, rabbit_url, database, identity, collecting, in_files=request.param == "files"
            )
        ) as site,
    ):
        yield site


def test_no_secret_is_in_anything_that_is_said(site: SecretSite, request: pytest.FixtureRequest) -> None:
    use_everything(site)
    use_wrong_passwords(site)
    site.collect()
    lose_the_database(site)
    if request.node.callspec.params["site"] == "files":
        assert [name for name, text in site.environments() if site.secrets.within(text)] == []
        assert [file for file in site.configurations if site.secrets.within(file.read_text())] == []
    else:
        assert site.secrets.within(site.configurations[0].read_text()) >= {"password of the database"}
    site.services.end()
    site.logs()
    site.services.processes.clear()

    assert any("DEBUG" in text for place, text in site.said.items() if place.startswith("log of"))
    assert "portclaim.claim_id" in site.said["spans"]
    assert site.leaks() == []


def use_everything(site: SecretSite) -> None:
    """Claims over HTTP and RPC, and whatever shows how the site is."""
    with httpx.Client(base_url=site.url, timeout=60) as http:
        http.headers["Authorization"] = f"Bearer {site.token}"
        path = f"/v1/claims/{uuid4()}"
        site.ask("claim", http.put(path, json=CLAIM | {"instance_id": str(uuid4())}), 200)
        site.ask("wait", http.get(path, params={"wait_for": "allocated", "timeout": 60}), 200)
        site.ask("release", http.delete(path), 200)
        site.ask("odd claim", http.put(path, json={"instance_id": "none"}), 422)
        site.ask("broken", http.put(path, content=b"{"), 422)
        site.ask("drain", http.post(f"/v1/hosts/{site.host}/drain", json={"reason": "a look"}), 200)
        for place in ("audit", "token", "tokens", "hosts", "claims", "summary"):
            site.ask(place, http.get(f"/v1/{place}"), 200)
        site.ask("undrain", http.post(f"/v1/hosts/{site.host}/undrain", json={"reason": "done"}), 200)
        wrong = site.secrets.new("wrong token")
        unknown = http.get("/v1/claims", headers={"Authorization": f"Bearer {wrong}"})
        site.ask("wrong token", unknown, 401)
    member, _ = site.identity.token("member", "web")
    for name, token, status in (("member", member, 200), ("stranger", wrong, 401)):
        asked = httpx.get(f"{site.keystone_url}/v1/claims", headers={"X-Auth-Token": token}, timeout=60)
        site.ask(f"{name} of Keystone", asked, status)
    for words in ("audit list", "host keys", "host list", "broker list", "token list", "ping scheduler"):
        site.says(*words.split())
    for words in ("claim list", "audit list"):
        site.says(*words.split(), token=site.token)
    for words in ("doctor", "doctor --output json"):
        site.says(*words.split(), status=None)
        site.says(*words.split(), status=None, token=site.token)
    for file in list(site.configurations):
        site.says("config", "check", str(file), "--no-host", status=None)


def use_wrong_passwords(site: SecretSite) -> None:
    """Each client says that it is refused, and a service too."""
    database = site.wrong("database", "wrong password for the database")
    site.says("audit", "list", status=1, database=database)
    site.says("doctor", status=2, database=database)
    bus = site.wrong("bus", "wrong password for the bus")
    site.says("ping", "scheduler", status=1, bus=bus)
    site.says("doctor", status=2, bus=bus)
    broker = site.secrets.new("wrong password of an administrator")
    site.says("broker", "list", status=1, broker=f"http://nobody:{broker}@127.0.0.1:{site.management_port}")
    site.says("claim", "list", status=1, token=site.secrets.new("another wrong token"))
    nova = site.database.url("nova", site.secrets.new("wrong password for Nova's database"))
    site.says("import", "nova", status=1, nova=nova)
    refused = site.start("conductor", "refused", bus=bus, until="ACCESS_REFUSED|Access refused|refused")
    refused.kill()
    refused = site.start("api", "refused", database=database, until="ready", api={"port": 0})
    refused.kill()


def lose_the_database(site: SecretSite) -> None:
    """The password is changed while services have connections."""
    site.database.set_password(OWNER, site.secrets.new("next password of the database"))
    with httpx.Client(base_url=site.url, timeout=60) as http:
        http.headers["Authorization"] = f"Bearer {site.token}"
        site.ask("readiness without a database", http.get("/readyz"), 503)
        site.ask("claim without a database", http.get(f"/v1/claims/{uuid4()}"), 503)
    site.says("doctor", status=2)


def no_file(directory: Path) -> list[str]:
    """Arguments with which a configuration has no options but those of the environment."""
    file = directory / "empty.conf"
    file.touch()
    return ["--config-file", str(file)]


HALVES = re.compile("LEFT|RIGHT|MIDDLE")
DATABASE = "postgresql+psycopg2://me:LEFT{}RIGHT@127.0.0.1:1/db"
BUS = "rabbit://me:LEFT{}RIGHT@127.0.0.1:1/virtual_host"


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("[database] connection", DATABASE.format("@")),
        ("[database] connection", DATABASE.format("$")),
        ("[database] connection", DATABASE.format("$MIDDLE.")),
        ("[database] connection", "postgresql+psycopg2://me:LEFT/db"),
        ("[database] connection", "postgresql+psycopg2://127.0.0.1:RIGHT/db"),
        ("[database] connection", "mysql://me:LEFT@127.0.0.1/db"),
        ("[database] connection", "postgresql://me:LEFT@127.0.0.1/db"),
        *(("[DEFAULT] transport_url", BUS.format(character)) for character in "$/#?,"),
        ("[DEFAULT] transport_url", BUS.format("/7@")),
        ("[DEFAULT] transport_url", "rabbit://me:7/RIGHT@127.0.0.1:1/virtual_host"),
        ("[DEFAULT] transport_url", "rabbit://me:LEFT@127.0.0.1:RIGHT/virtual_host"),
        ("[DEFAULT] transport_url", "LEFT"),
        ("[api] connection", DATABASE.format("@")),
        ("[api] connection", DATABASE.format("$")),
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(option: str, url: str, tmp_path: Path) -> None:
    section, name = option[1:].split("] ")
    right = "postgresql+psycopg2://me@127.0.0.1:1/db"
    given: dict[str, dict[str, object]] = {"database": {"connection": right}}
    given[section] = {name: url}
    file = tmp_path / "portclaim.conf"
    file.write_text(as_ini(given))
    service = "api" if section == "api" else "conductor"
    command = [str(PROGRAM.with_name(f"portclaim-{service}")), "--config-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert option in said
    assert "Traceback" not in said
    assert HALVES.findall(said) == []


@pytest.mark.parametrize(
    "url",
    [
        DATABASE.format("%40"),
        DATABASE.format("/"),
        "postgresql+psycopg2://me:LEFT@[::1]:5432/db",
        "postgresql+psycopg2://me@/db?host=/run/postgresql",
        "postgresql+psycopg2:///db?host=a,b&user=a@b&password=LEFT@RIGHT&target_session_attrs=read-write",
        "postgresql+psycopg2://me:LEFT@db.example/portclaim?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_a_url_that_is_right_is_taken(url: str, tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text(as_ini({"database": {"connection": url}}))
    assert config.load(["--config-file", str(file)], "test").database.connection == url


def test_a_line_that_cannot_be_parsed_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text("[keystone_authtoken]\npassword LEFT\n")
    with pytest.raises(InvalidConfiguration, match=r"portclaim\.conf, line 2") as caught:
        config.load(["--config-file", str(file)], "test")
    checked = CliRunner().invoke(main, ["config", "check", str(file)])
    assert "line 2" in checked.stderr
    assert HALVES.findall(str(caught.value) + checked.output) == []


def test_a_password_of_keystone_with_a_dollar_is_not_repeated(tmp_path: Path) -> None:
    with stand_in() as identity:
        section = identity.options() | {"password": "LEFT$RIGHT"}
    file = tmp_path / "portclaim.conf"
    database = {"connection": "postgresql+psycopg2://me@127.0.0.1/db"}
    file.write_text(
        as_ini({"api": {"auth": "keystone"}, "keystone_authtoken": section, "database": database})
    )
    conf = config.load(["--config-file", str(file)], "test")
    with pytest.raises(InvalidConfiguration, match=r"password has a \$") as caught:
        Api(conf)
    checked = CliRunner().invoke(main, ["config", "check", str(file), "--output", "json"])
    assert checked.exit_code == 1
    assert [row["refused"] for row in json.loads(checked.stdout)] == [config_faults.DOLLAR]
    assert HALVES.findall(str(caught.value) + checked.output) == []


def test_a_secret_from_a_file_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in (("DATABASE__CONNECTION", DATABASE), ("DEFAULT__TRANSPORT_URL", BUS)):
        file = tmp_path / name
        file.write_text(url.format("$host$$") + "\n")
        monkeypatch.setenv(f"OS_{name}_FILE", str(file))
    conf = config.load(no_file(tmp_path), "test")
    assert conf.database.connection == DATABASE.format("$host$$")
    assert bus_url(conf).hosts[0].password == "LEFT$host$$RIGHT"


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, {}, "cannot be read"),
        ("", {}, "has 0 lines"),
        (f"{DATABASE}\nMIDDLE\n", {}, "has 2 lines"),
        (DATABASE, {"OS_DATABASE__CONNECTION": DATABASE}, "are both set"),
    ],
)
def test_a_file_without_one_secret_is_refused(
    content: str | None, more: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    for name, value in {"OS_DATABASE__CONNECTION_FILE": str(file), **more}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        config.load(no_file(tmp_path), "test")
    assert HALVES.findall(str(caught.value)) == []


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--bus", "rabbit://me:LEFT@127.0.0.1/vhost"),
        ("import", "nova", "--database", "mysql://me:LEFT@127.0.0.1/nova_cell1"),
        ("import", "nova", "--database", "postgresql:///nova_cell1?user=me&password=LEFT"),
    ],
)
def test_a_password_as_an_argument_is_refused(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 2
    assert "_FILE to a file that has it" in " ".join(done.stderr.split())
    assert HALVES.findall(done.output) == []


def test_the_address_of_the_page_is_shown_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:1/#token=LEFT", "http://me:LEFT@127.0.0.1:1", "ftp://me:LEFT@host#RIGHT"):
        monkeypatch.setenv("PORTCLAIM_URL", url)
        monkeypatch.setenv("PORTCLAIM_TOKEN", "MIDDLE")
        for words in ("doctor", "host list"):
            said = CliRunner().invoke(main, words.split())
            assert said.exit_code != 0
            assert HALVES.findall(said.output) == [], said.output


def test_a_url_of_the_management_interface_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://me:LEFT/RIGHT@127.0.0.1:1", "http://me:LEFT#RIGHT@127.0.0.1:1", "LEFT"):
        monkeypatch.setenv("PORTCLAIM_BROKER_URL", url)
        done = CliRunner().invoke(main, ["broker", "list"])
        assert done.exit_code == 1
        assert "not the URL of RabbitMQ's management API" in done.stderr
        assert HALVES.findall(done.output) == []
