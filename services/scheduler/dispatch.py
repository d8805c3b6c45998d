"""Send the steps of claims to their agents, right after the commit that wrote the steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import Step, StepAction, StepDevice
from portclaim.common.rpc.claim_messages import Claim

LOG = logging.getLogger(__name__)

Send = Callable[[str, Sequence[Step]], None]
"""Sends steps to the agent of a host."""

_STEP: dict[tuple[str, str], StepAction] = {
    ("claimed", "auto"): "attach",
    ("claimed", "on-call"): "prepare",
    ("prepared", "auto"): "attach",
    ("releasing", "auto"): "detach",
    ("releasing", "on-call"): "detach",
}
"""The step that a claim's status and its attach mode call for."""

_STEP_FIELDS = set(StepDevice.model_fields)
_GIVES_BACK = {"unplug", "detach"}  # without network settings: an agent of any release can do these


def dispatch_step(claim: Claim, send: Send) -> None:
    """Send the step that the claim's status calls for. If that fails, a conductor's relay sends it later."""
    dispatch_steps([claim], send)


def dispatch_steps(claims: Iterable[Claim], send: Send) -> None:
    """The same for several claims. The steps for one host are sent together."""
    steps: dict[str, list[Step]] = {}
    for claim in claims:
        action = _STEP.get((claim.status, claim.attach))
        if action is not None and claim.host is not None:
            steps.setdefault(claim.host, []).append(_step(claim, action))
    for host, of_host in steps.items():
        try:
            send(host, of_host)
        except PortclaimError as error:
            LOG.warning(
                "steps for host %s were not sent and will be sent again, of claims %s: %s",
                host,
                ", ".join(str(step.claim_id) for step in of_host),
                error,
            )


def _step(claim: Claim, action: StepAction) -> Step:
    fields = _STEP_FIELDS - ({"network_settings"} if action in _GIVES_BACK else set())
    return Step(
        claim_id=claim.claim_id,
        step=claim.step,
        action=action,
        instance_id=claim.instance_id,
        devices=[StepDevice(**device.model_dump(include=fields)) for device in claim.devices],
    )
