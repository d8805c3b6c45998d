"""A site whose secrets are known to the test, and all that its programs say to anybody."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from portclaim.cli.broker import URL
from portclaim.common.trust.keys import PrivateKey, write
from tests.support import rabbitmq
from tests.support.guarded_postgresql import GuardedPostgreSQL
from tests.support.keystone import StandIn
from tests.support.metrics import LISTEN, address
from tests.support.one_host import ALIASES
from tests.support.otlp import Collector
from tests.support.served import PROGRAM
from tests.support.services import ServiceProcess, Services, as_ini

LOUD = "portclaim amqp oslo.messaging oslo_messaging keystonemiddleware keystoneauth urllib3 sqlalchemy kombu"
OWNER = "portclaim_owner"
NOWHERE = "postgresql+psycopg2://nobody@127.0.0.1:1/none"


class Secrets:
    """Secrets by name."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def new(self, name: str) -> str:
        """A password that stands nowhere else."""
        return self.add(name, f"Pw{token_hex(12)}")

    def add(self, name: str, text: str) -> str:
        assert len(text) >= 8, f"{name} is too short to be looked for"
        self._texts[name] = text
        return text

    def within(self, text: str) -> set[str]:
        """The names of those that a text has."""
        return {name for name, secret in self._texts.items() if secret in text}


class SecretSite:
    """All services with two APIs, one for tokens of Keystone, as loud as they can be.

    ``in_files``: passwords are in files that the environment names, and not in the configuration.
    """

    def __init__(
        self,
        directory: Path,
        rabbit_url: str,
        database: GuardedPostgreSQL,
        identity: StandIn,
        collector: Collector,
        *,
        in_files: bool,
    ) -> None:
        self.secrets = Secrets()
        self.said: dict[str, str] = {}
        self.database, self.identity, self.collector = database, identity, collector
        self._directory, self._in_files = directory, in_files
        self._rabbit_url = rabbit_url
        self.configurations: list[Path] = []
        self.services = Services(directory, "rabbit://nobody@127.0.0.1:1/none", NOWHERE)
        # Users of the broker belong to all of its virtual hosts, and other tests have some meanwhile.
        self._suffix = token_hex(4)
        self._users = [f"administrator-{self._suffix}"]
        self.host = f"node-{self._suffix}"
        self._broker_url = self._make_administrator()
        url = database.create(OWNER, self.secrets.new("password of the database"))
        self.operator = {"database": url, "bus": rabbit_url}
        self.portclaim("db", "upgrade")
        self.operator["bus"] = self.bus_of("operator", "operator")
        self.key = directory / "services.pem"
        write(self.key, PrivateKey.make())
        self._add_key("services' key", self.key)
        self._start()
        self._add_key("host's key", directory / "state" / self.host / "key.pem")

    def _start(self) -> None:
        trust = {"services_key_file": self.key, "require": "all", "operators_on_scheduler_topic": False}
        self.conductor = self.start("conductor", trust=trust)
        self.scheduler = self.start("scheduler", trust=trust, pci={"alias": ALIASES})
        api, keystone_api = rabbitmq.free_ports(2)
        self.url, self.keystone_url = (f"http://127.0.0.1:{port}" for port in (api, keystone_api))
        self.api = self.start("api", api={"port": api})
        section = self.identity.options()
        self.secrets.add("password of Keystone", section["password"])
        self.keystone_api = self.start(
            "api",
            "keystone",
            api={"port": keystone_api, "auth": "keystone"},
            keystone_authtoken=section,
        )
        token = self._directory / "enrolment_token"
        token.write_text(self.secrets.add("enrolment token", self.portclaim("host", "enroll", self.host)))
        token.chmod(0o600)
        self.agent = self.start(
            "compute_agent",
            DEFAULT={"host": self.host, "state_path": self._directory / "state"},
            pci={"device_spec": '{"vendor_id": "8086"}'},
            compute_agent={
                "sysfs_root": self._directory / "sys",
                "report_interval": 0.5,
                "enrolment_token_file": token,
            },
            simulated={"ports": 1, "vfs_per_port": 4},
        )
        name = ["token", "create", "--name", "ops", "--role", "operator"]
        self.token = self.secrets.add("token of the API", self.portclaim(*name))

    def start(
        self,
        service: str,
        name: str = "",
        *,
        database: str | None = None,
        bus: str | None = None,
        until: str | None = None,
        **sections: Mapping[str, object],
    ) -> ServiceProcess:
        """Start a service with a user of its own at the broker. ``database``, ``bus``: other URLs."""
        secret = {
            ("DEFAULT", "transport_url"): bus or self.bus_of(service, name or service),
            ("database", "connection"): database or self.operator["database"],
        }
        given = {name: dict(section) for name, section in sections.items()}
        if service == "compute_agent":
            del secret["database", "connection"]
        if "keystone_authtoken" in given:
            password = str(given["keystone_authtoken"].pop("password"))
            secret["keystone_authtoken", "password"] = password
        loud = ",".join(f"{name}=DEBUG" for name in LOUD.split())
        given["DEFAULT"] = {"debug": True, "default_log_levels": loud, **given.get("DEFAULT", {})}
        given["tracing"] = {"endpoint": self.collector.url, "sample": 1.0}
        given["metrics"] = LISTEN
        with pytest.MonkeyPatch.context() as patch:
            for (section, option), text in secret.items():
                if self._in_files:
                    patch.setenv(f"OS_{section}__{option}_FILE".upper(), str(self._file(text)))
                else:
                    given.setdefault(section, {})[option] = text
            process = self.services(service, given, until=until)
        self.configurations.append(self._directory / f"{process.name}.conf")
        return process

    def bus_of(self, role: str, name: str) -> str:
        """A new user of the broker for a service, an operator or the host; its URL."""
        words = [self.host] if role == "compute_agent" else [f"{name}-{self._suffix}", "--role", role]
        url = self.portclaim("broker", "grant", *words)
        parts = urlsplit(url)
        self._users.append(unquote(parts.username or ""))
        self.secrets.add(f"password of {name} at the broker", unquote(parts.password or ""))
        return url

    def wrong(self, which: str, name: str) -> str:
        """A URL of the operator with another password: ``bus`` or ``database``."""
        url = self.operator[which]
        return url.replace(str(urlsplit(url).password), self.secrets.new(name), 1)

    def portclaim(self, *words: str) -> str:
        """What a command that prints a secret has printed."""
        done = self._run(self.operator, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def says(self, *words: str, status: int | None = 0, **urls: str) -> None:
        """Keep what any other command says. ``urls``: others for ``database`` and ``bus``, and more of them.

        ``status``: its exit status; None: any.
        """
        done = self._run(self.operator | urls, *words)
        name = f"portclaim {' '.join(words)} {' '.join(urls)}".rstrip()
        self.said[name] = done.stdout + done.stderr
        assert status is None or done.returncode == status, self.said[name]

    def ask(self, name: str, response: httpx.Response, status: int) -> None:
        """Keep an answer over HTTP."""
        self.said[f"answer: {name}"] = f"{response.headers}{response.text}"
        assert response.status_code == status, response.text

    def collect(self) -> None:
        """Keep the arguments of all processes, the metrics, the spans, the database, and its log."""
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.said[f"arguments of {process.parent.name}"] = process.read_bytes().decode(
                    errors="replace"
                )
            except OSError:  # it has ended
                continue
        for each in (self.conductor, self.scheduler, self.api, self.keystone_api, self.agent):
            self.said[f"metrics of {each.name}"] = httpx.get(address(each), timeout=30).text
        self.said["database"] = self.database.contents(OWNER)
        self.said["log of the database"] = (self.database.directory / "log").read_text()

    def logs(self) -> None:
        """Keep the logs, and the spans that were sent until the services had stopped."""
        for each in self.services.processes:
            self.said[f"log of {each.name}"] = each.log
        self.said["spans"] = "\n".join(map(str, self.collector.spans))

    def environments(self) -> Iterator[tuple[str, str]]:
        """The environment of each process of the services."""
        for each in self.services.processes:
            for pid in {each.process.pid, *each.workers} if each.running else ():
                yield each.name, Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")

    def leaks(self) -> list[tuple[str, str]]:
        """Where a secret is told, and which."""
        for number, token in enumerate(self.identity.tokens):
            self.secrets.add(f"token {number} of Keystone", token)
        return [(place, name) for place, text in self.said.items() for name in self.secrets.within(text)]

    def end(self) -> None:
        for user in self._users:
            rabbitmq.shared_broker().manage("DELETE", f"users/{user}")

    def _run(self, urls: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        options = {"DEFAULT.transport_url": urls["bus"], "database.connection": urls["database"]}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        sections: dict[str, dict[str, object]] = {"DEFAULT": {}, "database": {}}
        for option, text in options.items():
            section, _, name = option.partition(".")
            if self._in_files:
                environment[f"OS_{section}__{name}_FILE".upper()] = str(self._file(text))
            else:
                sections[section][name] = text
        broker = urls.get("broker", self._broker_url)
        environment |= {f"{URL}_FILE": str(self._file(broker))} if self._in_files else {URL: broker}
        if token := urls.get("token"):
            environment["PORTCLAIM_URL"] = self.url
            name = "PORTCLAIM_TOKEN"
            environment |= {f"{name}_FILE": str(self._file(token))} if self._in_files else {name: token}
        if nova := urls.get("nova"):
            name = "PORTCLAIM_NOVA_DATABASE"
            environment |= {f"{name}_FILE": str(self._file(nova))} if self._in_files else {name: nova}
        file = self._directory / f"operator-{token_hex(4)}.conf"
        file.touch(mode=0o600)
        file.write_text(as_ini(sections))
        self.configurations.append(file)
        command = [str(PROGRAM), "--config-file", str(file), *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=100
        )

    def _make_administrator(self) -> str:
        password = self.secrets.new("password of the broker's administrator")
        broker = rabbitmq.shared_broker()
        self.management_port = broker.management
        [user] = self._users
        broker.manage("PUT", f"users/{user}", {"password": password, "tags": "administrator"})
        host = self._rabbit_url.rpartition("/")[2]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        broker.manage("PUT", f"permissions/{host}/{user}", everything)
        return f"http://{user}:{password}@127.0.0.1:{broker.management}"

    def _file(self, text: str) -> Path:
        file = self._directory / f"secret-{token_hex(8)}"
        file.touch(mode=0o600)
        file.write_text(text + "\n")
        return file

    def _add_key(self, name: str, file: Path) -> None:
        [line] = re.findall(r"^[\w+/=]{40,}$", file.read_text(), re.MULTILINE)
        self.secrets.add(name, line)


@contextmanager
def ended(site: SecretSite) -> Iterator[SecretSite]:
    """The site until the end of the block."""
    try:
        yield site
    finally:
        site.services.end()
        site.end()
