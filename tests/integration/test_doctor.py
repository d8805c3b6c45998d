"""``portclaim doctor`` says what is wrong with real servers, and what to do."""

import json
import re
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common import config
from portclaim.common.db.tokens import Role
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc import versions
from portclaim.common.rpc.about import About
from portclaim.common.rpc.endpoint import Endpoint, exposed, server
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.transport import transport
from tests.support.fleet import ALIASES, Fleet
from tests.support.http_api import HttpApi, http_api
from tests.support.services import Services, as_ini

SYSTEM = {"scheduler": {"pci": {"alias": ALIASES}}, "conductor": {}}


class Doctor:
    """Calls the command with the configuration of a scheduler."""

    def __init__(self, directory: Path, transport_url: str, database_url: str) -> None:
        self.options: dict[str, dict[str, Any]] = {
            "DEFAULT": {"transport_url": transport_url},
            "database": {"connection": database_url},
            "pci": {"alias": ALIASES},
        }
        self._file = directory / "doctor.conf"

    def run(self, *arguments: str) -> tuple[int, str]:
        self._file.write_text(as_ini(self.options))
        result = CliRunner().invoke(main, ["--config-file", str(self._file), "doctor", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    def findings(self) -> tuple[int, list[dict[str, str]]]:
        """The exit status, and what is not ok."""
        status, told = self.run("--output", "json")
        return status, [each for each in json.loads(told) if each["verdict"] != "ok"]

    def finding(self, verdict: str, check: str, text: str) -> dict[str, str]:
        _, findings = self.findings()
        [found] = [each for each in findings if each["check"] == check and text in each["found"]]
        assert found["verdict"] == verdict
        assert found["advice"]
        return found


@pytest.fixture
def doctor(tmp_path: Path, rabbit_url: str, database_url: str) -> Doctor:
    return Doctor(tmp_path, rabbit_url, database_url)


@pytest.fixture
def agent(service_process: Services, fleet: Fleet, tmp_path: Path) -> str:
    """All services, and an agent of one simulated host. Its name."""
    for service, options in SYSTEM.items():
        service_process(service, options)
    options = {
        "DEFAULT": {"host": "node-1"},
        "pci": {"device_spec": '{"vendor_id": "8086"}'},
        "compute_agent": {"sysfs_root": tmp_path / "sys", "report_interval": 1},
        "simulated": {"ports": 1, "vfs_per_port": 4},
    }
    service_process("compute_agent", options)
    return "node-1"


# The test's server is one that loses everything with the machine, and its only user is a superuser.
OF_THE_TEST = {"settings", "roles"}


@pytest.mark.usefixtures("agent")
class TestSystemThatRuns:
    def test_nothing_is_wrong_but_what_the_tests_server_is(self, doctor: Doctor) -> None:
        _, findings = doctor.findings()
        assert [each for each in findings if each["check"] not in OF_THE_TEST] == []

    def test_every_check_says_what_it_saw(self, doctor: Doctor) -> None:
        _, told = doctor.run("--output", "yaml")
        checks = {each["check"] for each in yaml.safe_load(told)}
        assert checks >= {
            *("version", "configuration", "aliases", "bus", "scheduler", "conductor", "database"),
            *("schema", "connections", "agents", "clocks", "steps", "events", "queues", "data"),
        }
        _, told = doctor.run()
        assert "what to do" in told
        assert "data" not in {
            each["check"] for each in json.loads(doctor.run("--no-rules", "--output", "json")[1])
        }

    def test_fsync_off_is_trouble(self, doctor: Doctor, fleet: Fleet) -> None:
        if fleet.sql("SHOW fsync") == [("off",)]:
            assert "ALTER SYSTEM SET fsync" in doctor.finding("trouble", "settings", "fsync is off")["advice"]
            assert doctor.findings()[0] == 2


class Agents:
    """What answers on the bus in place of agents. Their hosts have reported."""

    def __init__(self, fleet: Fleet, transport_url: str, directory: Path) -> None:
        self._fleet = fleet
        file = directory / "agents.conf"
        file.write_text(as_ini({"DEFAULT": {"transport_url": transport_url}}))
        self._bus = transport(config.load(["--config-file", str(file)], "test"))
        self._servers: list[Any] = []

    def answer(self, host: str, release: str = version("portclaim"), clock: float = 0) -> None:
        """An agent of this release, whose clock is so many seconds ahead."""

        class Agent(Endpoint):
            @exposed(Nothing)
            def about(self, _nothing: Nothing) -> About:
                return About(release=release, clock=time.time() + clock)

        self._start(host, server(self._bus, "compute_agent", host, Agent()))

    def answer_as_before_0_3(self, host: str) -> None:
        """An agent of a release that spoke the first version, which had no ``about``."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(versions.SPOKEN, "compute_agent", versions.FIRST)
            self._start(host, server(self._bus, "compute_agent", host, Endpoint()))

    def stop(self) -> None:
        for each in self._servers:
            each.stop()
            each.wait()
        self._bus.cleanup()

    def _start(self, host: str, started: Any) -> None:
        self._fleet.host(host)
        started.start()
        self._servers.append(started)


@pytest.fixture
def agents(fleet: Fleet, rabbit_url: str, tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(fleet, rabbit_url, tmp_path)
    yield agents
    agents.stop()


class TestTrouble:
    def test_no_broker(self, doctor: Doctor) -> None:
        doctor.options["DEFAULT"]["transport_url"] = "rabbit://guest:guest@127.0.0.1:1/"
        assert "RabbitMQ" in doctor.finding("trouble", "bus", "no broker answers")["advice"]
        assert doctor.findings()[0] == 2

    def test_no_database(self, doctor: Doctor) -> None:
        doctor.options["database"]["connection"] = "postgresql+psycopg2://nobody@127.0.0.1:1/none"
        doctor.finding("trouble", "database", "Connection refused")

    def test_an_invalid_configuration(self, doctor: Doctor) -> None:
        doctor.options["rpc"] = {"timeout": "soon"}
        assert doctor.findings()[0] == 2

    def test_an_empty_database(self, doctor: Doctor, empty_database_url: str) -> None:
        doctor.options["database"]["connection"] = empty_database_url
        assert doctor.finding("trouble", "schema", "no schema")["advice"] == "portclaim db upgrade"

    def test_no_services(self, doctor: Doctor) -> None:
        for service in SYSTEM:
            assert service in doctor.finding("trouble", service, "none takes calls")["advice"]

    def test_silent_hosts(self, doctor: Doctor, fleet: Fleet) -> None:
        for host in ("h1", "h2"):
            fleet.host(host)
        fleet.falls_silent("h1")
        doctor.finding("warning", "agents", "1 of 2 hosts are silent: h1")
        fleet.falls_silent("h2")
        doctor.finding("trouble", "agents", "2 of 2 hosts are silent: h1, h2")

    def test_steps_that_stand_still(self, doctor: Doctor, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        claim = fleet.claim("nic-vf:1")
        fleet.sql("UPDATE outbox SET send_after = 'infinity'")
        found = doctor.finding("trouble", "steps", "no longer sent")
        assert str(claim.claim_id) in found["found"]
        assert "portclaim outbox retry" in found["advice"]
        fleet.sql("UPDATE outbox SET send_after = now() - interval '2 min'")
        doctor.finding("trouble", "steps", "should have been sent")
        fleet.sql(
            "UPDATE outbox SET created_at = now() - interval '2 min', send_after = now() + interval '9 s'"
        )
        doctor.finding("warning", "steps", "were not answered")

    def test_a_mute_agent(self, doctor: Doctor, fleet: Fleet) -> None:
        fleet.host("h1")
        doctor.finding("warning", "agents", "report, but do not answer: h1")

    def test_an_agent_whose_clock_is_off(self, doctor: Doctor, agents: Agents) -> None:
        agents.answer("h1", clock=+90)
        agents.answer("h2", clock=-40)
        agents.answer("h3", clock=0)
        found = doctor.finding("warning", "clocks", "clocks that are off: h1 (+")
        off = re.findall(r"(h\d) \(([+-]\d+\.\d) s\)", found["found"])
        assert [host for host, _ in off] == ["h1", "h2"]
        assert [float(seconds) for _, seconds in off] == [
            pytest.approx(90, abs=30),
            pytest.approx(-40, abs=30),
        ]
        assert "chrony" in found["advice"]

    def test_agents_of_other_releases(self, doctor: Doctor, agents: Agents) -> None:
        agents.answer("h1", release="0.2.9")
        agents.answer("h2", release=version("portclaim"))
        agents.answer_as_before_0_3("h3")
        found = doctor.finding("warning", "agents", "agents of another release than")
        assert found["found"].endswith(": h1 (0.2.9), h3 (0.2.0 or older)")
        assert found["advice"] == "finish the upgrade of the hosts"

    def test_events_that_are_not_published(self, doctor: Doctor, fleet: Fleet) -> None:
        fleet.host("h1")
        fleet.sql("UPDATE device_events SET at = now() - interval '2 min'")
        doctor.finding("warning", "events", "to be published")

    def test_a_queue_that_nobody_serves(self, doctor: Doctor, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        fleet.claim("nic-pf:1")
        fleet.claim("nic-pf:1", wait=60)
        fleet.sql("UPDATE waiting_claims SET deadline = now() - interval '2 min'")
        doctor.finding("trouble", "queues", "past their deadline")


def test_data_that_break_a_rule(doctor: Doctor, fleet: Fleet) -> None:
    fleet.host("h1", ports=1, vfs=4)
    fleet.sql("UPDATE pci_devices SET vfs = 7 WHERE parent_id IS NULL")
    found = doctor.finding("trouble", "data", "a PF's number of VFs is wrong")
    assert "drain" in found["advice"]
    fleet.sql("UPDATE pci_devices SET vfs = 4 WHERE parent_id IS NULL")


class TestOverHttp:
    """Only the API and a token are there, as beside ``portclaim serve`` in another terminal."""

    @pytest.fixture
    def api(self, fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
        fleet.host("h1", ports=1, vfs=4)
        with http_api(fleet, database_url) as api:
            yield api

    def run(self, url: str, token: str, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
        """The exit status, and the findings by what was checked."""
        environment = {"PORTCLAIM_URL": url, "PORTCLAIM_TOKEN": token}
        done = CliRunner().invoke(main, ["doctor", "--output", "json", *words], env=environment)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, {each["check"]: each for each in json.loads(done.stdout)}

    @pytest.mark.parametrize("role", ["operator", "reader"])
    def test_it_says_what_is_ok_and_what_it_could_not_check(self, api: HttpApi, role: Role) -> None:
        status, found = self.run(api.url, api.token(role))
        assert status == 0
        assert found.pop("the rest")["advice"]
        checks = ("version", "api", "scheduler", "database", "token", "agents", "steps", "queues")
        assert {check: each["verdict"] for check, each in found.items()} == dict.fromkeys(checks, "ok")
        assert self.run(api.url, api.token(role), "--quiet") == (0, {})

    def test_a_token_that_sees_its_project_only(self, api: HttpApi) -> None:
        for token in (api.token("claimer", "web"), api.token("reader", "web")):
            status, found = self.run(api.url, token)
            assert status == 0
            assert found["fleet"]["verdict"] == "not checked"
            assert "agents" not in found

    @pytest.mark.parametrize("token", ["portclaim_nobody-has-this", ""])
    def test_a_bad_token(self, api: HttpApi, token: str) -> None:
        status, found = self.run(api.url, token)
        assert status == 2
        assert "PORTCLAIM_TOKEN" in found["token" if token else "api"]["advice"]

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://127.0.0.1:9610x"])
    def test_a_url_where_no_api_is(self, url: str) -> None:
        status, found = self.run(url, "portclaim_some-token")
        assert status == 2
        assert found["api"]["verdict"] == "trouble"
        assert "URL" in found["api"]["advice"]

    def test_another_server_at_the_url(self, api: HttpApi) -> None:
        status, found = self.run(f"{api.url}/elsewhere", api.token("operator"))
        assert status == 2
        assert "does not answer as the API" in found["api"]["found"]

    def test_a_scheduler_that_does_not_answer(
        self, api: HttpApi, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> None:
            raise ServiceUnavailable("scheduler does not answer")

        monkeypatch.setattr(fleet.scheduler, "ping", away)
        status, found = self.run(api.url, api.token("operator"))
        assert status == 2
        assert found["scheduler"]["found"] == "scheduler does not answer"
        assert found["database"]["verdict"] == "ok"

    def test_what_is_wrong_with_the_fleet(self, api: HttpApi, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.claim("nic-pf:1", wait=60)
        fleet.sql("UPDATE outbox SET send_after = 'infinity'")
        fleet.sql("UPDATE waiting_claims SET deadline = now() - interval '2 min'")
        fleet.falls_silent("h1")
        status, found = self.run(api.url, api.token("operator"))
        assert status == 2
        assert found["agents"]["found"] == "1 of 1 hosts are silent: h1"
        assert str(claim.claim_id) in found["steps"]["found"]
        assert "1 waiting claims are past" in found["queues"]["found"]
        fleet.sql(
            "UPDATE outbox SET created_at = now() - interval '2 min', send_after = now() + interval '9 s'"
        )
        assert self.run(api.url, api.token("operator"))[1]["steps"]["verdict"] == "warning"
