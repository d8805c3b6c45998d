"""A wrong ``[keystone_authtoken]`` is told before the first request is answered, and shows no password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from oslo_config import cfg

from portclaim.cli.main import main
from portclaim.common.errors import InvalidConfiguration
from portclaim.services.api import options
from portclaim.services.api.keystone import KeystoneTokens
from tests.support.services import as_ini

SECRET = "not-for-the-screen"
SECTION = {
    "auth_type": "password",
    "auth_url": "https://keystone.example.org/v3",
    "www_authenticate_uri": "https://keystone.example.org/v3",
    "username": "portclaim",
    "password": SECRET,
    "user_domain_name": "Default",
    "project_name": "service",
    "project_domain_name": "Default",
}
API = {"auth": "keystone"}


def write(directory: Path, section: dict[str, str] | None, api: dict[str, str]) -> Path:
    file = directory / "portclaim.conf"
    file.write_text(as_ini({"api": api} | ({} if section is None else {"keystone_authtoken": section})))
    return file


def checked(file: Path) -> tuple[int, list[dict[str, object]]]:
    """The exit status, and the findings. No output shows the password."""
    for output in ("table", "json"):
        done = CliRunner().invoke(main, ["config", "check", "--no-host", "--output", output, str(file)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert SECRET not in done.output
    return done.exit_code, json.loads(done.stdout)


def started(file: Path) -> None:
    """What the API does with the file when it starts."""
    conf = cfg.ConfigOpts()
    conf.register_opts(options.OPTIONS, options.GROUP)
    conf(["--config-file", str(file)], project="portclaim", use_env=False)
    KeystoneTokens(conf)


def test_a_valid_section_is_accepted(tmp_path: Path) -> None:
    file = write(tmp_path, SECTION, API)
    status, [found] = checked(file)
    assert (status, found["entry"], found["verdict"]) == (0, "[keystone_authtoken]", "ok")
    started(file)


def test_ids_need_no_domains(tmp_path: Path) -> None:
    kept = {name: SECTION[name] for name in ("auth_type", "auth_url", "password")}
    file = write(tmp_path, kept | {"user_id": "a1", "project_id": "b2"}, API)
    assert checked(file)[0] == 0
    started(file)


@pytest.mark.parametrize(
    ("changed", "entry", "reason"),
    [
        ({"auth_type": None}, "auth_type", "is not set"),
        ({"auth_type": "passwort"}, "auth_type", "'passwort'"),
        ({"auth_url": None}, "auth_url", "is not set"),
        ({"auth_url": "keystone.example.org"}, "auth_url", "is not a URL"),
        ({"auth_url": "https://keystone.example.org:5000x/v3"}, "auth_url", "is not a URL"),
        ({"username": None}, "username", "nor is user_id"),
        ({"password": None}, "password", "is not set"),
        ({"project_name": None}, "project_name", "is not set"),
        ({"user_domain_name": None}, "user_domain_name", "whose username"),
        ({"project_domain_name": None}, "project_domain_name", "whose project_name"),
    ],
)
def test_what_is_wrong_is_told_by_the_check_and_at_the_start(
    tmp_path: Path, changed: dict[str, str | None], entry: str, reason: str
) -> None:
    section = {name: value for name, value in (SECTION | changed).items() if value is not None}
    file = write(tmp_path, section, API)
    status, [found] = checked(file)
    assert (status, found["entry"]) == (1, f"[keystone_authtoken] {entry}")
    assert reason in str(found["refused"])
    with pytest.raises(InvalidConfiguration, match=rf"\[keystone_authtoken\] {entry} .*{reason}") as refused:
        started(file)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "api", "reason"),
    [
        (None, API, "auth_type"),
        (SECTION | {"http_connect_timeout": "soon"}, API, "http_connect_timeout"),
        (SECTION, API | {"keystone_roles": "admin:king"}, "king"),
        (SECTION, {"auth": "kerberos"}, "kerberos"),
    ],
)
def test_what_else_is_wrong(
    tmp_path: Path, section: dict[str, str] | None, api: dict[str, str], reason: str
) -> None:
    status, [found] = checked(write(tmp_path, section, api))
    assert status == 1
    assert reason in f"{found['entry']} {found['refused']}"


def test_a_section_that_is_not_read_is_not_judged(tmp_path: Path) -> None:
    """As that of every nova.conf, whose [api] has other options."""
    status, [found] = checked(write(tmp_path, {"auth_type": "none"}, {"auth_strategy": "keystone"}))
    assert (status, found["verdict"]) == (0, "ok")
    assert "[api] auth = keystone" in str(found["notes"])
