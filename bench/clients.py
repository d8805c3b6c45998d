"""What a client does: a cycle of claim, release and the agent's answer, or an echo, again and again."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import oslo_messaging
import sqlalchemy as sa

from bench.crew import Do
from bench.fleet import wanted
from portclaim.common import config
from portclaim.common.db.transaction import connect
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.rpc.versions import FIRST
from portclaim.services.conductor import lifecycle
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.packing import PACK, Packing
from tests.support.straight_fleet import AGENT


def in_process(database_url: str, alias: str, threads: int) -> Do:
    """Cycles through the engine and the conductor's life cycle, called directly."""
    engine = connect(database_url, threads)
    claims = claim_engine(engine)
    requirements = wanted(alias)

    def cycle() -> None:
        made = claims.claim(request(alias), requirements)
        lifecycle.step_done(engine, detached(claims.release(made.claim_id)), guest_within=0)

    return cycle


def over_bus(config_file: str, alias: str) -> Do:
    """Cycles through scheduler and conductor, called over the bus: three calls each."""
    conf = config.load(["--config-file", config_file], "bench")
    bus = transport(conf)
    scheduler, conductor = SchedulerClient(bus, conf), ConductorClient(bus, conf)

    def cycle() -> None:
        made = scheduler.claim(request(alias))
        conductor.step_done(detached(scheduler.release(made.claim_id)))

    return cycle


def echo(config_file: str, alias: str) -> Do:
    """Calls that carry what a claim's call carries, to a server that sends it back."""
    call = _echo(config_file, alias)
    return lambda: call("echo")


def echo_of_same_messages(config_file: str, alias: str) -> Do:
    """As many calls as :func:`over_bus` makes, with as many casts behind them."""
    call = _echo(config_file, alias)

    def cycle() -> None:
        call("echo_and_cast")
        call("echo_and_cast")
        call("echo")

    return cycle


def _echo(config_file: str, alias: str) -> Callable[[str], object]:
    conf = config.load(["--config-file", config_file], "bench")
    client = oslo_messaging.get_rpc_client(
        transport(conf), oslo_messaging.Target(topic="echo", version=FIRST), timeout=conf.rpc.timeout
    )
    return lambda method: client.call({}, method, **request(alias).model_dump(mode="json"))


def claim_engine(engine: sa.Engine, packing: Packing = PACK) -> ClaimEngine:
    """An engine for which a host is alive however long ago the fleet was built."""
    return ClaimEngine(engine, packing, resend_after=5.0, patience=30.0, agent_down_after=1e9)


def request(alias: str) -> ClaimRequest:
    """What an API layer asks for a new instance."""
    return ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": alias})


def detached(claim: Claim) -> StepResult:
    """What the agent says when it has done the last step of a claim that was released."""
    return StepResult(
        host=claim.host,
        agent_id=AGENT,
        claim_id=claim.claim_id,
        step=claim.step,
        outcome="done",
        reason=None,
    )
