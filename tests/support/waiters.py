"""Helpers for tests of callers that wait for a claim."""

from portclaim.common.events import broker
from portclaim.common.events.schema import claim_key
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import Claim
from tests.support.bus import Bus
from tests.support.fleet import Host
from tests.support.rabbitmq import shared_broker


def answer(bus: Bus, host: Host, claim: Claim, outcome: str) -> None:
    """The answer of an agent to the step of a claim."""
    bus.conductor.step_done(
        StepResult(
            host=host.name,
            agent_id=host.agent_id,
            claim_id=claim.claim_id,
            step=claim.step,
            outcome=outcome,  # type: ignore[arg-type]
        )
    )


def queues_of_waiters(virtual_host: str) -> int:
    """How many queues are bound to the events of one claim."""
    bindings = shared_broker().manage(
        "GET", f"exchanges/{virtual_host}/{broker.EXCHANGE.name}/bindings/source"
    )
    return sum(binding["routing_key"].startswith(claim_key("")) for binding in bindings)
