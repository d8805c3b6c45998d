"""The services' key is replaced as docs/how-to/secure-a-fleet.md says, while hosts work and others rest."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common import config
from portclaim.common.errors import NotAuthorized
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.transport import transport
from portclaim.common.trust import keys
from portclaim.common.trust.keys import PrivateKey, write
from portclaim.common.trust.signature import SERVICES, KeySigner
from tests.support.concurrency import wait_until
from tests.support.one_host import ALIASES, VFS, OneHost, one_host
from tests.support.readme import ROOT
from tests.support.served import PROGRAM
from tests.support.services import ServiceProcess, Services, as_ini

BUSY, IDLE = "node-1", "node-2"
PAGE = ROOT / "docs/how-to/secure-a-fleet.md"
TITLE = "## Rotate the services' key"
STEPS = 3


class Site:
    """Two enrolled hosts. One gets claims all the time, the other one none before the end."""

    def __init__(self, busy: OneHost, services: Services, directory: Path) -> None:
        self._services = services
        self._directory = directory
        self.file = directory / "services.pem"
        self._operator = directory / "operator.conf"
        self._operator.write_text(as_ini({"database": {"connection": services.database_url}}))
        self.hosts = {BUSY: busy, IDLE: busy.beside(IDLE)}
        self.agents = {name: self._start_agent(host) for name, host in self.hosts.items()}
        self.running = {name: self._latest(name) for name in ("conductor", "scheduler")}
        client = config.load(["--config-file", str(directory / "client.conf")], "test")
        self._bus, self._conf = transport(client), client

    def play(self, step: int) -> None:
        """Run the commands of a step on the machine that has the keys."""
        section = PAGE.read_text().split(TITLE)[1].split("\n## ")[0]
        blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        assert len(blocks) == STEPS
        script = (
            blocks[step].replace("sudo -u portclaim ", "").replace("/etc/portclaim", str(self._directory))
        )
        script = re.sub(r"^portclaim ", f"{PROGRAM} ", script, flags=re.MULTILINE)
        subprocess.run(["sh", "-euc", script], check=True, timeout=60)

    def restart(self, service: str) -> None:
        """A new one takes over before the old one ends, as when several run."""
        old = self.running[service]
        self.running[service] = self._start(service)
        old.stop()

    def works(self, name: str = BUSY) -> None:
        """A claim on this host is attached, and released."""
        host = self.hosts[name]
        claim = host.claim("vf:1", hosts=[name]).claim_id
        host.wait_for(claim, "allocated")
        host.scheduler.release(claim)
        host.wait_for(claim, "released")

    def knows(self, name: str, *wanted: PrivateKey) -> None:
        """The agent has learned exactly these keys."""
        ids = ", ".join(key.id for key in wanted)
        log = self.agents[name]
        wait_until(lambda: f"the services' keys are {ids}\n" in log.log, f"{name} knows {ids}")

    def accepts(self, name: str, key: PrivateKey) -> bool:
        """Whether the agent does what somebody asks who has this key."""
        signer = KeySigner(SERVICES, key)
        try:
            ComputeAgentClient(self._bus, self._conf, name, signer).renew(VFS[0])
        except NotAuthorized as error:
            return bool(error.kwargs["reason"] != "unknown-key")
        return True

    def close(self) -> None:
        self._bus.cleanup()

    def _start(self, service: str) -> ServiceProcess:
        trust = {"services_key_file": self.file, "require": "all"}
        more = {"pci": {"alias": ALIASES}} if service == "scheduler" else {"conductor": {"resend_after": 1.0}}
        return self._services(service, {"trust": trust, **more})

    def _start_agent(self, host: OneHost) -> ServiceProcess:
        token = self._directory / f"token-{host.name}"
        done = CliRunner().invoke(main, ["--config-file", str(self._operator), "host", "enroll", host.name])
        assert done.exit_code == 0, done.output
        token.write_text(done.output.strip())
        wanted = host.options()
        wanted["compute_agent"] |= {"enrolment_token_file": token, "services_keys_interval": 1.0}
        return self._services("compute_agent", wanted)

    def _latest(self, service: str) -> ServiceProcess:
        return [each for each in self._services.processes if each.name.startswith(service)][-1]


@pytest.fixture
def site(service_process: Services, tmp_path: Path) -> Iterator[Site]:
    file = tmp_path / "services.pem"
    write(file, PrivateKey.make())
    with one_host(service_process, tmp_path, more={"trust": {"services_key_file": file}}) as busy:
        site = Site(busy, service_process, tmp_path)
        yield site
        site.close()


def test_hosts_that_work_and_hosts_that_rest_take_over_the_new_key(site: Site) -> None:
    [old] = keys.read(site.file)
    site.works()

    site.play(0)
    new = keys.read(site.file)[1]
    site.restart("scheduler")
    site.restart("conductor")
    for name in (BUSY, IDLE):
        site.knows(name, old, new)
        assert site.accepts(name, old)
        assert site.accepts(name, new)
    site.works()  # signed with the old key

    site.play(1)
    assert [key.id for key in keys.read(site.file)] == [new.id, old.id]
    site.restart("scheduler")
    site.works()  # the scheduler signs with the new key, and the conductor with the old one
    site.restart("conductor")
    site.works()
    for name in (BUSY, IDLE):
        assert site.accepts(name, old)

    site.play(2)
    forgotten = site.running["scheduler"]  # nobody has restarted it
    site.restart("conductor")
    for name in (BUSY, IDLE):
        site.knows(name, new)
        assert site.accepts(name, new)
        assert not site.accepts(name, old)
    assert forgotten.running
    site.works()  # that one signs with the new key too
    site.restart("scheduler")
    site.works()
    site.works(IDLE)  # its first claim
    assert [key.id for key in keys.read(site.file)] == [new.id]


def test_a_service_with_the_old_key_alone_moves_nothing(site: Site) -> None:
    """Its steps are refused, and the conductors send them again with the new key."""
    [old] = keys.read(site.file)
    copy = site.file.read_bytes()
    for step in range(STEPS):
        site.play(step)
        site.restart("conductor")
        site.knows(BUSY, *keys.read(site.file))
    [new] = keys.read(site.file)
    assert new.id != old.id
    rotated = site.file.read_bytes()
    site.file.write_bytes(copy)
    site.restart("scheduler")  # from a backup
    site.file.write_bytes(rotated)
    site.works()
    assert f"no key {old.id} of the services is known here" in site.agents[BUSY].log
    assert not site.accepts(BUSY, old)
