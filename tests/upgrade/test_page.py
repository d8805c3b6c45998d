"""docs/how-to/upgrade.md, played: its commands upgrade a fleet of the last release while claims are made.

Services of both versions are killed in the middle.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from portclaim.cli.embedded import install_programs
from portclaim.common.rpc.operator_messages import HostFilter
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.invariants import violations
from tests.support.rabbitmq import free_ports
from tests.support.readme import ROOT
from tests.support.services import Options, ServiceProcess, Services, as_ini
from tests.upgrade.releases import UPGRADE, releases, run_in
from tests.upgrade.test_upgrade import ALIASES, Load, Site

PAGE = (ROOT / "docs/how-to/upgrade.md").read_text()
HOSTS = ("node-1", "node-2")
PROGRAMS = Path(sys.executable).parent
RESTART = "sudo systemctl restart portclaim-"


def blocks(language: str) -> list[str]:
    """The code blocks of the page in this language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def levels() -> dict[str, dict[str, object]]:
    """The options that the page gives the new services while old agents run."""
    [block] = blocks("ini")
    read = ConfigParser()
    read.read_string(block)
    return {section: dict(read[section]) for section in read.sections()}


class Fleet:
    """Two conductors, two schedulers and two agents of the last release, and clients on both hosts."""

    def __init__(self, site: Site, database_url: str, rabbit_url: str, directory: Path) -> None:
        self.site = site
        self._directory = directory
        self._programs = install_programs(directory / "postgresql", None)
        self._configuration = directory / "portclaim.conf"
        self._configuration.write_text(
            as_ini({"DEFAULT": {"transport_url": rabbit_url}, "database": {"connection": database_url}})
        )
        self._database_url = database_url
        self._environment = {
            **os.environ,
            "OS_DEFAULT__TRANSPORT_URL": rabbit_url,
            "OS_DATABASE__CONNECTION": database_url,
        }
        self.workers = {
            kind: [site.start(site.old, kind) for _ in range(2)] for kind in ("conductor", "scheduler")
        }
        self._agents = {host: site.start_agent(site.old, host) for host in HOSTS}
        wait_until(lambda: len(site.scheduler.hosts(HostFilter()).hosts) == len(HOSTS), "the hosts report")
        self.loads = [Load(site, host) for host in HOSTS]

    def run(self, line: str) -> str:
        """Run one line of the page. Answers what it prints."""
        if line.startswith(RESTART):
            self._restart(line.removeprefix(RESTART))
            return ""
        words = shlex.split(line.replace("/etc/portclaim/portclaim.conf", str(self._configuration)))
        if words[0] == "pg_dump":
            words = [
                str(self._programs / words[0]),
                *words[1:-1],
                self._database_url.replace("+psycopg2", ""),
            ]
        else:
            assert words[0] == "portclaim", line
            words[0] = str(PROGRAMS / "portclaim")
        ran = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self._directory,
            env=self._environment,
            check=False,
        )
        assert ran.returncode == 0, (line, ran.stdout, ran.stderr)
        return ran.stdout

    def _restart(self, service: str) -> None:
        match service:
            case "conductor" | "scheduler":
                self._replace(service, levels())
            case "compute-agent":
                for host, old in self._agents.items():
                    old.stop()
                    self._agents[host] = self.site.start_agent(self.site.new, host)
                    self.go_on()
                for kind in self.workers:  # without the option, as the page says
                    self._replace(kind, {})
            case "api":  # the last release had none
                [port] = free_ports(1)
                self.site.new("api", {"api": {"port": port}})

    def _replace(self, kind: str, options: Options) -> None:
        """One process after the other. With both versions running, one of each is killed and replaced."""
        first, second = self.workers[kind]
        is_upgrade = first in self.site.old.processes
        first.stop()
        first = self._start(kind, options)
        self.go_on()
        if is_upgrade:
            first.kill()
            self.go_on()  # with the old one only
            first = self._start(kind, options)
            second.kill()
            self.go_on()  # with the new one only
        else:
            second.stop()
        self.workers[kind] = [first, self._start(kind, options)]
        self.go_on()

    def _start(self, kind: str, options: Options) -> ServiceProcess:
        return self.site.new(kind, {"pci": {"alias": ALIASES}, **options})

    def go_on(self) -> None:
        """Claims are made, attached and released on all hosts."""
        for load in self.loads:
            load.go_on(2)


@pytest.fixture
def fleet(tmp_path: Path, rabbit_url: str, empty_database_url: str) -> Iterator[Fleet]:
    tree = releases()[-1].unpack(tmp_path)
    run_in(tree, UPGRADE, empty_database_url)
    with ExitStack() as stack:
        for name in ("client", "old-services", "new-services"):
            (tmp_path / name).mkdir()
        engine = sa.create_engine(empty_database_url)
        stack.callback(engine.dispose)
        old = Services(tmp_path / "old-services", rabbit_url, empty_database_url, tree)
        new = Services(tmp_path / "new-services", rabbit_url, empty_database_url)
        stack.callback(old.end)
        stack.callback(new.end)
        bus = stack.enter_context(closing(Bus(rabbit_url, tmp_path / "client", timeout=5.0, attempts=12)))
        site = Site(old, new, bus, engine, tmp_path)
        yield Fleet(site, empty_database_url, rabbit_url, tmp_path)


def test_the_commands_of_the_page_upgrade_a_fleet_under_load(fleet: Fleet) -> None:
    held = [fleet.site.claim("pf:1", host, "allocated") for host in HOSTS]
    for load in fleet.loads:
        load.start()
    fleet.go_on()
    printed = {
        line: fleet.run(line) for block in blocks("sh") for line in block.splitlines() if "HOST" not in line
    }
    assert {line.removeprefix(RESTART) for line in printed if line.startswith(RESTART)} == {
        *("conductor", "scheduler", "compute-agent", "api")
    }
    assert all(host in printed["portclaim host list"] for host in HOSTS)
    fleet.go_on()
    for load in fleet.loads:
        load.end()
    assert [fleet.site.scheduler.show(claim_id).status for claim_id in held] == ["allocated"] * len(HOSTS)
    with fleet.site.engine.connect() as connection:
        assert violations(connection) == []
