"""Show what an import does, or would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from portclaim.cli import render
from portclaim.cli.nova.plan import Finding, HostPlan
from portclaim.cli.table import Table


def as_rows(plans: Sequence[HostPlan], *, is_dry_run: bool) -> dict[str, Any]:
    """The plans as JSON values. In a dry run, claims have no ids yet."""
    findings = [finding for plan in plans for finding in plan.findings]
    return {
        "hosts": [
            {
                "host": plan.host,
                "new_devices": [
                    {"address": row.address, "dev_type": row.dev_type, "unusable_reason": row.unusable_reason}
                    for row in plan.devices
                ],
                "new_claims": [
                    {
                        "claim_id": None if is_dry_run else str(claim.claim_id),
                        "instance_id": claim.instance_id,
                        "devices": list(claim.devices),
                    }
                    for claim in plan.claims
                ],
                "claims_here": plan.claims_here,
                "drained_ports": dict(plan.withheld),
            }
            for plan in plans
        ],
        "differences": [_as_row(finding) for finding in findings if finding.difference],
        "notes": [_as_row(finding) for finding in findings if not finding.difference],
    }


def _as_row(finding: Finding) -> dict[str, str | None]:
    return {
        "host": finding.host,
        "address": finding.address,
        "instance_id": finding.instance_id,
        "reason": finding.reason,
    }


def tables(plans: Sequence[HostPlan]) -> None:
    """Print a table of hosts, and one of differences and notes."""
    hosts = Table("host", "new devices", "new claims", "devices of these", "claims here", "drained ports")
    for plan in plans:
        of_claims = sum(len(claim.devices) for claim in plan.claims)
        numbers = len(plan.devices), len(plan.claims), of_claims, plan.claims_here, len(plan.withheld)
        hosts.add_row(plan.host, *map(str, numbers))
    render.console().print(hosts)
    findings = [finding for plan in plans for finding in plan.findings]
    if findings:
        table = Table("host", "device", "instance", "kind", "what")
        for finding in sorted(findings, key=lambda finding: not finding.difference):
            kind = Text("difference", style="bold red") if finding.difference else Text("note")
            about = finding.host, finding.address or "", finding.instance_id or ""
            table.add_row(*about, kind, finding.reason)
        render.console().print(table)


def summary(plans: Sequence[HostPlan], *, is_dry_run: bool) -> str:
    """One sentence."""
    hosts = sum(not plan.is_imported for plan in plans)
    devices = sum(len(plan.devices) for plan in plans)
    claims = sum(len(plan.claims) for plan in plans)
    differences = sum(finding.difference for plan in plans for finding in plan.findings)
    if all(plan.is_done for plan in plans):
        what = "nothing to do"
    else:
        verb = "would be made" if is_dry_run else "made"
        what = f"{_number(hosts, 'host')}, {_number(devices, 'device')}, {_number(claims, 'claim')} {verb}"
    return f"{what}; {_number(differences, 'difference')}"


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
