"""What to do next about a claim, a host or a port: sentences with the command that does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portclaim.common.rpc.claim_messages import Claim, Device
    from portclaim.common.rpc.history_messages import History
    from portclaim.common.rpc.operator_messages import AwaitedStep, HostSummary, WaitingClaim
    from portclaim.common.rpc.refusal_messages import Refusal

OVERDUE = 60.0  # seconds after which an unanswered step deserves a look

_OF_STATUS = {
    "claimed": "The agent of {host} prepares the devices: portclaim wait {claim} --for prepared",
    "prepared": "Start the instance on {host} with the devices of: portclaim show {claim} --xml. Then: "
    "portclaim wait {claim} --for allocated",
    "allocated": "Nothing: the instance has its devices. To give them back: portclaim release {claim}",
    "releasing": "The agent of {host} detaches the devices: portclaim wait {claim} --for ended",
    "released": "Nothing: the claim has ended, and its devices are free.",
    "failed": "Mend what the reason says, then claim again with a new id: portclaim claim --help. What "
    "{host} has now: portclaim describe host {host}",
    "expired": "Claim again with a new id: portclaim claim --help. Why a claim like it is not served now: "
    "portclaim explain --help",
}
_ON_CALL = (
    "The claim was made with --attach on-call: start the instance on {host}, then: portclaim attach {claim}"
)


def for_claim(claim: Claim, history: History, queued: WaitingClaim | None) -> list[str]:
    """At least one sentence, the most urgent first."""
    names = {"claim": claim.claim_id, "host": claim.host}
    if claim.status == "waiting":
        return [*_waiting(claim, queued)]
    late = [*_steps(history.steps)]
    if history.host_is_silent and claim.host and history.steps:
        return [*_silent(claim.host), *late, _lost_host(claim)]
    if late:
        return late
    if claim.status == "prepared" and claim.attach == "on-call":
        return [_ON_CALL.format(**names)]
    known = _OF_STATUS.get(claim.status, "This portclaim is older than the scheduler: upgrade it.")
    return [known.format(**names)]


_OF_REASON = {
    "quota": "The project has used up what it may have. Its quotas: portclaim quota list",
    "conflict": "Repeat the first request of this id, or claim with a new id: portclaim claim --help",
    "invalid": "Mend what the message says, then claim again. Which aliases there are: portclaim alias list",
    "queue": "Claims with the same requests wait: portclaim waiting. To wait behind them: portclaim claim "
    "--wait SECONDS",
}


def for_refusal(refusal: Refusal) -> list[str]:
    """At least one sentence."""
    if (known := _OF_REASON.get(refusal.reason)) is not None:
        return [known]
    alias = refusal.alias or "ALIAS"
    return [
        f"Whether the same would be served now: portclaim explain --alias {alias}",
        f"To wait until it can be served: portclaim claim --alias {alias} --wait SECONDS",
    ]


def for_host(host: HostSummary, history: History) -> list[str]:
    """At least one sentence, the most urgent first."""
    found = [*_silent(host.host)] if host.is_silent else []
    if host.is_silent:
        found.append(
            f"If {host.host} will not come back, switch it off and then: portclaim host remove {host.host} "
            "--reason WHY"
        )
    found += _steps(history.steps)
    if host.drained_reason is not None:
        found.append(
            f"It is drained and takes no new claims. To see what is still on it: portclaim claim list --host "
            f"{host.host}. To allow claims again: portclaim host undrain {host.host}"
        )
    found += [
        f"Port {address} is drained. To allow claims again: portclaim host undrain {host.host} "
        f"--port {address}"
        for address in host.drained_ports
    ]
    return found or [f"Nothing: it takes claims. Its devices: portclaim tree --host {host.host}"]


def for_port(devices: Sequence[Device], history: History) -> list[str]:
    """At least one sentence. ``devices``: the port and its VFs."""
    host = devices[0].host
    found = [*_silent(host)] if history.host_is_silent else []
    found += _steps(history.steps)
    reasons: dict[str, list[str]] = {}
    for device in devices:
        if device.effective_status in {"unavailable", "removed"} and device.reason is not None:
            reasons.setdefault(device.reason, []).append(device.address)
    for reason, addresses in reasons.items():
        if (advice := _unusable(host, reason, addresses)) is not None:
            found.append(advice)
    holders = dict.fromkeys(str(device.claim_id) for device in devices if device.claim_id is not None)
    if holders:
        found.append(f"Held by {len(holders)} claim(s): portclaim describe claim {next(iter(holders))}")
    return found or ["Nothing: all of its devices that are offered can be claimed."]


def _unusable(host: str, reason: str, addresses: Sequence[str]) -> str | None:
    """What to do about devices that cannot be claimed for this reason. None: a claim holds them."""
    first = addresses[0]
    others = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    if reason.startswith("its PF is ") or reason.endswith(("is held", "are held")):
        return None
    if reason.startswith("port drained: "):
        undrain = f"portclaim host undrain {host} --port {first}"
        return f"{first}{others}: {reason}. To allow claims again: {undrain}"
    if reason.startswith("host drained: "):
        return f"{first}{others}: {reason}. To allow claims again: portclaim host undrain {host}"
    if "portclaim host renew" in reason:
        return f"{first}{others}: {reason}"
    return (
        f"{first}{others} did not come back, or cannot be used: {reason}. On {host}, this says what stands "
        "in the way: portclaim host scan"
    )


def _silent(host: str) -> Iterator[str]:
    yield (
        f"The agent of {host} is silent. See whether {host} runs, and start its agent: systemctl restart "
        "portclaim-compute-agent"
    )


def _lost_host(claim: Claim) -> str:
    return (
        f"If {claim.host} will not come back, switch it off and then: portclaim release {claim.claim_id} "
        "--force --reason WHY"
    )


def _steps(steps: Sequence[AwaitedStep]) -> Iterator[str]:
    for step in steps:
        failure = f" Its last failure: {step.last_failure}." if step.last_failure else ""
        if step.parked:
            yield (
                f"Step {step.step} {step.action} of claim {step.claim_id} is no longer sent, after "
                f"{step.times_sent} times.{failure} Mend it on {step.host}, then: portclaim outbox retry "
                f"{step.claim_id}"
            )
        elif step.awaited_for > OVERDUE:
            yield (
                f"Step {step.step} {step.action} of claim {step.claim_id} has not been answered for "
                f"{step.awaited_for:.0f} s.{failure} It is sent again by itself. The log of the agent on "
                f"{step.host} says more: journalctl -u portclaim-compute-agent"
            )


def _waiting(claim: Claim, queued: WaitingClaim | None) -> Iterator[str]:
    if queued is not None:
        yield (
            f"It has position {queued.position} in its queue, and expires in {queued.expires_in:.0f} s. What "
            f"is missing: portclaim explain --alias {queued.alias or 'ALIAS'}"
        )
    yield f"To wait for it: portclaim wait {claim.claim_id} --for claimed"
    yield f"To take it out of its queue: portclaim release {claim.claim_id}"
