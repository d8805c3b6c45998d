"""Two enrolled hosts and services with users of their own at the broker; one host is an attacker's."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common import config
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.host_exchange import exchange_of_host
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.trust.keys import PrivateKey, write
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet
from tests.support.one_host import ALIASES, OneHost
from tests.support.raw_agent import RawAgent, key_of, signer_of
from tests.support.services import ServiceProcess, Services, as_ini

HONEST, EVIL = "node-1", "node-2"


class SecuredSite:
    """Two enrolled hosts, and services with users of their own. The agent of one host has stopped.

    ``host_rate``, ``cut_off_after``: the options of the conductor.
    """

    def __init__(
        self, services: Services, directory: Path, host_rate: int = 1_000_000, cut_off_after: int = 1000
    ) -> None:
        self.services = services
        self._operator = directory / "operator.conf"
        self._operator.write_text(
            as_ini(
                {
                    "DEFAULT": {"transport_url": services.transport_url},
                    "database": {"connection": services.database_url},
                }
            )
        )
        key = directory / "services.pem"
        write(key, PrivateKey.make())
        trust = {
            "services_key_file": key,
            "host_rate": host_rate,
            "cut_off_after": cut_off_after,
            "operators_on_scheduler_topic": False,
        }
        self.conductor = services(
            "conductor",
            {"DEFAULT": self.granted("conductor"), "conductor": {"resend_after": 1.0}, "trust": trust},
        )
        self.scheduler = services(
            "scheduler",
            {"DEFAULT": self.granted("scheduler"), "pci": {"alias": ALIASES}, "trust": trust},
        )
        file = directory / "client.conf"
        file.write_text(as_ini({"DEFAULT": self.granted("claimer")}))
        conf = config.load(["--config-file", str(file)], "test")
        self.bus = transport(conf, makes_exchange=False)
        agent = ComputeAgentClient(self.bus, conf, server=HONEST)
        scheduler = SchedulerClient(self.bus, conf)
        self.hosts = {}
        for name in (HONEST, EVIL):
            state = directory / f"state-{name}"
            state.mkdir()
            self.hosts[name] = OneHost(services, scheduler, agent, state, guests="any", name=name)
        self.url_of_evil = str(self.granted(EVIL)["transport_url"])
        self.agent = self._start_agent(HONEST, str(self.granted(HONEST)["transport_url"]))
        self._start_agent(EVIL, self.url_of_evil).stop()

    def portclaim(self, *words: str) -> str:
        done = CliRunner().invoke(main, ["--config-file", str(self._operator), *words])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    def granted(self, name: str) -> dict[str, object]:
        return {"transport_url": self.portclaim("broker", "grant", name)}

    def _start_agent(self, name: str, url: str) -> ServiceProcess:
        host = self.hosts[name]
        token = host.state / "token"
        token.write_text(self.portclaim("host", "enroll", name))
        wanted = host.options()
        wanted["DEFAULT"]["transport_url"] = url
        wanted["compute_agent"]["enrolment_token_file"] = token
        return self.services("compute_agent", wanted)

    def evil_agent(self) -> RawAgent:
        """Somebody who has all that the agent of the other host had."""
        return RawAgent(self.url_of_evil, signer_of(EVIL, self.key_of_evil()), exchange_of_host(EVIL))

    def key_of_evil(self) -> PrivateKey:
        return key_of(self.hosts[EVIL].state / EVIL)

    def claims_go_on(self) -> None:
        honest = self.hosts[HONEST]
        request = ClaimRequest(
            claim_id=uuid4(),
            instance_id=uuid4(),
            hosts=[HONEST],
            extra_specs={"pci_passthrough:alias": "vf:1"},
        )
        claim = honest.scheduler.claim(request).claim_id
        honest.wait_for(claim, "allocated")
        honest.scheduler.release(claim)
        honest.wait_for(claim, "released")

    def cut_off(self) -> set[str]:
        """The users at the broker whose messages it drops."""
        found = json.loads(self.portclaim("broker", "list", "--output", "json"))
        return {each["user"] for each in found if each["cut_off"]}

    def has_refused(self, reason: str) -> None:
        wait_until(lambda: f"({reason})" in self.conductor.log, f"a message is refused: {reason}")

    def end(self) -> None:
        self.bus.cleanup()
        for name in ("conductor", "scheduler", "claimer", HONEST, EVIL):
            self.portclaim("broker", "revoke", name)


def report_of(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "agent_id": str(uuid4()), "digest": uuid4().hex, "devices": [], **more}


def facts_of(fleet: Fleet, host: str) -> list[Any]:
    """All that a host has, but not when it was seen."""
    return fleet.sql(
        "SELECT n.agent_id, n.inventory_digest, n.disabled_reason, d.address, d.status, d.claim_id, d.offered"
        "  FROM compute_nodes n JOIN pci_devices d ON d.compute_node_id = n.id"
        " WHERE n.host = :host ORDER BY d.address",
        host=host,
    )
