"""Send a claim's step to its agent, right after the commit that wrote the step."""

from __future__ import annotations

import logging
from collections.abc import Callable

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import Step, StepAction, StepDevice
from portclaim.common.rpc.claim_messages import Claim

LOG = logging.getLogger(__name__)

Send = Callable[[str, Step], None]

_STEP: dict[tuple[str, str], StepAction] = {
    ("claimed", "auto"): "attach",
    ("claimed", "on-call"): "prepare",
    ("prepared", "auto"): "attach",
    ("releasing", "auto"): "detach",
    ("releasing", "on-call"): "detach",
}
"""The step that a claim's status and its attach mode call for."""

_STEP_FIELDS = set(StepDevice.model_fields)


def dispatch_step(claim: Claim, send: Send) -> None:
    """Send the step that the claim's status calls for. If that fails, a conductor's relay sends it later."""
    action = _STEP.get((claim.status, claim.attach))
    if action is None or claim.host is None:
        return
    step = Step(
        claim_id=claim.claim_id,
        step=claim.step,
        action=action,
        instance_id=claim.instance_id,
        devices=[StepDevice(**device.model_dump(include=_STEP_FIELDS)) for device in claim.devices],
    )
    try:
        send(claim.host, step)
    except PortclaimError as error:
        LOG.warning(
            "step %s of claim %s was not sent and will be sent again: %s", claim.step, claim.claim_id, error
        )
