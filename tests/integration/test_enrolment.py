"""Hosts are enrolled, sign what they send, replace their keys and are revoked, while the services run."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common.errors import NotAuthorized
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.trust.keys import PrivateKey, write
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.one_host import HOST, VFS, OneHost, one_host
from tests.support.services import ServiceProcess, Services, as_ini


class Site:
    """A fleet with a services' key, one host, and an operator's command line with the database."""

    def __init__(self, host: OneHost, services: Services, directory: Path) -> None:
        self.host = host
        self._services = services
        self._token_file = directory / "token"
        self._operator = directory / "operator.conf"
        self._operator.write_text(as_ini({"database": {"connection": services.database_url}}))

    @property
    def conductor(self) -> ServiceProcess:
        return next(each for each in self._services.processes if each.name.startswith("conductor"))

    def portclaim(self, *words: str) -> str:
        """What a command of the operator prints."""
        done = CliRunner().invoke(main, ["--config-file", str(self._operator), *words])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    def start_agent(self, **options: object) -> ServiceProcess:
        wanted = self.host.options()
        wanted["compute_agent"] |= {"enrolment_token_file": self._token_file} | options
        return self._services("compute_agent", wanted)

    def start_agent_that(self, says: str) -> ServiceProcess:
        """An agent that is not heard, and so never ready. Its log says this."""
        wanted = self.host.options()
        wanted["compute_agent"] |= {"enrolment_token_file": self._token_file}
        return self._services("compute_agent", wanted, until=says)

    def enroll(self) -> str:
        token = self.portclaim("host", "enroll", HOST)
        self._token_file.write_text(token)
        return token

    def keys(self) -> list[str]:
        """The states of the host's keys, the oldest first."""
        return [key["state"] for key in json.loads(self.portclaim("host", "keys", HOST, "--output", "json"))]

    def has_a_claim_attached(self) -> None:
        claim = self.host.claim("vf:1").claim_id
        self.host.wait_for(claim, "allocated")
        self.host.scheduler.release(claim)
        self.host.wait_for(claim, "released")


def has_loaded(service: ServiceProcess, library: str) -> bool:
    """Does one of the service's processes have compiled code of this library in its memory?"""
    assert service.workers
    return any(
        f"/{library}/" in Path(f"/proc/{pid}/maps").read_text()
        for pid in (service.process.pid, *service.workers)
    )


@pytest.fixture
def services_key(tmp_path: Path) -> Path:
    file = tmp_path / "services.pem"
    write(file, PrivateKey.make())
    return file


@pytest.fixture
def site(service_process: Services, tmp_path: Path, services_key: Path) -> Iterator[Site]:
    with one_host(service_process, tmp_path, more={"trust": {"services_key_file": services_key}}) as host:
        yield Site(host, service_process, tmp_path)


def test_a_host_works_before_it_is_enrolled_and_afterwards(site: Site) -> None:
    agent = site.start_agent()
    site.has_a_claim_attached()
    assert not has_loaded(agent, "cryptography")  # it is 8 MB on each host
    agent.stop()

    token = site.enroll()
    agent = site.start_agent()
    site.has_a_claim_attached()
    assert "is enrolled" in agent.log
    assert has_loaded(agent, "cryptography")
    assert site.keys() == ["valid"]
    directory = site.host.state / HOST
    assert stat.S_IMODE((directory / "key.pem").stat().st_mode) == 0o600
    assert token not in (directory / "trust.json").read_text() + agent.log + site.conductor.log
    agent.stop()

    agent = site.start_agent()  # the token is still there, and is not used again
    site.has_a_claim_attached()
    assert site.keys() == ["valid"]


def test_an_enrolled_host_takes_steps_of_the_services_only(site: Site, bus: Bus) -> None:
    site.enroll()
    agent = site.start_agent()
    claim = site.host.claim("vf:1")
    site.host.wait_for(claim.claim_id, "allocated")
    device = StepDevice(
        address=VFS[0], dev_type="type-VF", vendor_id="8086", product_id="154c", parent_address=None
    )
    forged = Step(
        claim_id=claim.claim_id, step=2, action="detach", instance_id=claim.instance_id, devices=[device]
    )
    assert isinstance(site.host.agent, ComputeAgentClient)  # it has no services' key
    site.host.agent.send(forged)
    wait_until(lambda: "unsigned" in agent.log, "the step is refused")
    with pytest.raises(NotAuthorized, match="services_key_file"):
        site.host.agent.renew(VFS[0])
    assert site.host.scheduler.show(claim.claim_id).status == "allocated"


def test_a_key_is_replaced_when_it_is_old(site: Site) -> None:
    site.enroll()
    site.start_agent().stop()
    trust = site.host.state / HOST / "trust.json"
    state = json.loads(trust.read_text())
    trust.write_text(json.dumps(state | {"made_at": state["made_at"] - 100 * 86_400}))
    agent = site.start_agent()
    wait_until(lambda: "has the new key" in agent.log, "the key is replaced")
    site.has_a_claim_attached()
    assert site.keys() == ["valid", "valid"]  # the old one for two minutes more
    assert json.loads(trust.read_text())["key_id"] != state["key_id"]


def test_a_revoked_host_is_not_heard_until_it_is_enrolled_again(site: Site) -> None:
    site.enroll()
    agent = site.start_agent()
    assert "1 key of node-1 revoked" in site.portclaim("host", "revoke", HOST)
    wait_until(lambda: "unknown-key" in site.conductor.log, "the conductor refuses the host")
    agent.stop()
    site.enroll()
    site.start_agent()
    site.has_a_claim_attached()
    assert site.keys() == ["revoked", "valid"]


def test_a_token_works_once_and_for_its_host_only(site: Site, database_url: str) -> None:
    site.enroll()
    site.start_agent().stop()
    for file in (site.host.state / HOST).glob("*.pem"):
        file.unlink()
    (site.host.state / HOST / "trust.json").unlink()
    agent = site.start_agent_that("was used before")
    agent.kill()
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE host_enrolments SET key_id = NULL, expires_at = now()"))
    engine.dispose()
    site.start_agent_that("has expired").kill()
