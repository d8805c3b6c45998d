"""What a client does: a cycle of claim, release and the agent's answer, or an echo, again and again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from uuid import UUID, uuid4

import oslo_messaging
import sqlalchemy as sa

from bench.crew import CYCLE, Do, Work
from bench.fleet import ALIASES, wanted
from portclaim.common import config
from portclaim.common.db.transaction import connect
from portclaim.common.errors import ClaimRefused, PortclaimError
from portclaim.common.pci.alias import Aliases
from portclaim.common.rpc.agent_messages import StepAnswer, StepResult, StepResults
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, ExplainRequest
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.operator_messages import ClaimFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.rpc.versions import FIRST
from portclaim.services.conductor import lifecycle
from portclaim.services.scheduler.batches import ClaimBatches
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.packing import PACK, Packing
from portclaim.services.scheduler.requirements import requirements_of
from tests.support.straight_fleet import AGENT

Held = TypeVar("Held")

_RELEASING = ClaimFilter(statuses=["releasing"], limit=1)


def in_process(database_url: str, alias: str, threads: int) -> Work:
    """Claims through the engine and the conductor's life cycle, called directly."""
    engine = connect(database_url, threads)
    claims = claim_engine(engine)
    requirements = wanted(alias)
    held: deque[UUID] = deque()

    def claim() -> None:
        held.append(claims.claim(request(alias), requirements).claim_id)

    def end() -> bool:
        return _ended(held, end_claim)

    def end_claim(claim_id: UUID) -> None:
        lifecycle.step_done(engine, detached(claims.release(claim_id)), guest_within=0)

    return Work({CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}, Counter())


def batches_in_process(database_url: str, alias: str, threads: int, number: int) -> Work:
    """So many claims at once, released at once; the agents answer for all of theirs. Called directly."""
    engine = connect(database_url, threads)
    batches = ClaimBatches(engine, claim_engine(engine), Aliases.parse(ALIASES))

    def cycle() -> None:
        made = batches.claim([request(alias) for _ in range(number)])
        released = batches.release([_claim(each).claim_id for each in made])
        for results in _answers(released):
            lifecycle.steps_done(engine, results, guest_within=0)

    return Work({CYCLE: cycle}, Counter())


def refused_in_process(database_url: str, alias: str, threads: int, **facts: Any) -> Do:
    """Claims that no host can serve, through the engine. ``facts``: other fields of the request."""
    claims = claim_engine(connect(database_url, threads))
    aliases = Aliases.parse(ALIASES)

    def refused() -> None:
        asked = request(alias).model_copy(update=facts)
        _refused(lambda: claims.claim(asked, requirements_of(asked, aliases)))

    return refused


def explained_in_process(database_url: str, alias: str) -> Do:
    """The question why such a claim is refused."""
    claims = claim_engine(connect(database_url, 1))
    asked = ExplainRequest(extra_specs={"pci_passthrough:alias": alias})
    requirements = wanted(alias)
    return lambda: claims.explain(asked, requirements)


def over_bus(config_file: str, alias: str) -> Work:
    """Claims through scheduler and conductor over the bus: a cycle is two calls, and a cast as an agent's."""
    scheduler, conductor = services(config_file)
    held: deque[UUID] = deque()

    def claim() -> None:
        held.append(scheduler.claim(request(alias)).claim_id)

    def end() -> bool:
        return _ended(held, lambda claim_id: conductor.cast_step_done(detached(scheduler.release(claim_id))))

    tasks: dict[str, Do] = {CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}
    return Work(tasks, Counter(), lambda: settled(scheduler))


def batches_over_bus(config_file: str, alias: str, number: int) -> Work:
    """So many claims in one call, released in one call; each host's agent answers for all of its own."""
    scheduler, conductor = services(config_file)
    held: deque[list[UUID]] = deque()

    def claim() -> None:
        made = scheduler.claim_many([request(alias) for _ in range(number)])
        held.append([_claim(each).claim_id for each in made])

    def end() -> bool:
        return _ended(held, end_batch)

    def end_batch(claim_ids: list[UUID]) -> None:
        for results in _answers(scheduler.release_many(claim_ids)):
            conductor.cast_steps_done(results)

    tasks: dict[str, Do] = {CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}
    return Work(tasks, Counter(), lambda: settled(scheduler))


def refused_over_bus(config_file: str, alias: str) -> Do:
    """Claims that no host can serve, called over the bus."""
    scheduler, _ = services(config_file)
    return lambda: _refused(lambda: scheduler.claim(request(alias)))


def services(config_file: str) -> tuple[SchedulerClient, ConductorClient]:
    """Clients of the services of this configuration."""
    conf = config.load(["--config-file", config_file], "bench")
    bus = transport(conf)
    return SchedulerClient(bus, conf), ConductorClient(bus, conf)


def settled(scheduler: SchedulerClient) -> None:
    """Return when the agents' answers are recorded."""
    while scheduler.claims(_RELEASING).claims:
        time.sleep(0.005)


def _answers(released: Iterable[Claim | PortclaimError]) -> Iterator[StepResults]:
    """What the agent of each host says when it has detached the devices of its claims."""
    by_host: dict[str, list[StepAnswer]] = {}
    for each in released:
        done = detached(_claim(each))
        by_host.setdefault(done.host, []).append(done)
    for host, answers in by_host.items():
        yield StepResults(host=host, agent_id=AGENT, answers=answers)


def _claim(result: Claim | PortclaimError) -> Claim:
    if isinstance(result, PortclaimError):
        raise result
    return result


def _refused(claim: Callable[[], object]) -> None:
    try:
        claim()
    except ClaimRefused:
        return
    raise AssertionError("a claim was served that should have been refused")


def _ended(held: deque[Held], end: Callable[[Held], object]) -> bool:
    """End the oldest of what is held. False: nothing is."""
    if not held:
        return False
    end(held.popleft())
    return True


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
