"""Decide what an import makes of a Nova host. Rules only: nothing here reads or writes anything.

A device that Nova has claimed or allocated becomes a device of its instance's claim, unless something about
it is wrong. Then it is a difference: the device stays unavailable. Its port is drained, so that this lasts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import UUID, uuid5

from portclaim.cli.nova import faults
from portclaim.cli.nova.cell import NovaDevice, NovaInstance
from portclaim.cli.nova.functions import Functions, PlannedDevice, in_use
from portclaim.cli.nova.known import KnownHost
from portclaim.cli.nova.requests import Requests

CLAIMS = UUID("5f1c9b0e-6c35-5f0b-9f0e-3a4f6c1d7b52")
"""The namespace of the ids of imported claims."""

_QUIET = frozenset({"active", "stopped", "paused", "building"})
"""The states of instances that have their devices in libvirt's definition, or are about to have them."""


def claim_id(host: str, imported_at: datetime, instance_id: str | None) -> UUID:
    """The id of an instance's claim on a host.

    It is the same in every run, so that none is made twice; and another one if the host is removed and taken
    over again.
    """
    return uuid5(CLAIMS, f"{host}/{imported_at.astimezone(UTC).isoformat()}/{instance_id}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a host that an operator should know.

    A ``difference`` keeps its device from being imported. A note keeps nothing from it.
    """

    host: str
    address: str | None
    instance_id: str | None
    reason: str
    difference: bool = True


@dataclass(frozen=True, slots=True)
class PlannedClaim:
    """A claim to make, or to give more devices: for each, the index of the request that it is for."""

    claim_id: UUID
    instance_id: str
    request: Mapping[str, Any]
    devices: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What to do with a host. ``withheld``: the ports to drain, with the reason."""

    host: str
    imported_at: datetime
    devices: Sequence[PlannedDevice]
    claims: Sequence[PlannedClaim]
    withheld: Mapping[str, str]
    findings: Sequence[Finding]
    claims_here: int
    """How many claims are here already."""
    is_imported: bool

    @property
    def is_done(self) -> bool:
        """Is there nothing to do?"""
        return self.is_imported and not (self.devices or self.claims or self.withheld)


def plan_host(
    host: str,
    found: Sequence[NovaDevice],
    instances: Mapping[str, NovaInstance],
    known: KnownHost,
    now: datetime,
) -> HostPlan:
    """What to do with a host of Nova's, given what Portclaim has of it. ``now``: when it is imported first.

    Once the agent of an imported host reports, Portclaim has the last word: then nothing more is done.
    """
    imported_at = known.imported_at or now
    planning = _Planning(host, imported_at, Functions(found), instances, known)
    planning.plan_claims()
    planning.find_freed()
    return HostPlan(
        host,
        imported_at,
        [] if known.is_over else planning.new_devices(),
        planning.claims,
        {} if known.is_over else planning.withheld(),
        planning.findings,
        planning.claims_here,
        known.is_imported,
    )


class _Planning:
    def __init__(
        self,
        host: str,
        imported_at: datetime,
        functions: Functions,
        instances: Mapping[str, NovaInstance],
        known: KnownHost,
    ) -> None:
        self.claims: list[PlannedClaim] = []
        self.claims_here = 0
        self.findings: list[Finding] = []
        self._host = host
        self._imported_at = imported_at
        self._functions = functions
        self._instances = instances
        self._known = known
        self._left_out: dict[str, tuple[str, str]] = {}  # for each difference: the port, and why
        for device, reason in functions.left_out:
            self._differ(device, f"{reason}: it is not imported")

    def plan_claims(self) -> None:
        by_instance: defaultdict[str | None, list[NovaDevice]] = defaultdict(list)
        for device in self._functions.devices.values():
            if in_use(device):
                by_instance[device.instance_id].append(device)
        for instance_id, devices in by_instance.items():
            self._plan_claim(instance_id, devices)

    def _plan_claim(self, instance_id: str | None, devices: Sequence[NovaDevice]) -> None:
        id_ = claim_id(self._host, self._imported_at, instance_id)
        status = self._known.claims.get(id_)
        self.claims_here += status is not None
        if status not in {None, "allocated"}:  # it was released or moved here since
            return
        instance = self._instances.get(instance_id or "")
        requests = Requests(instance.requests if instance is not None else ())
        new: dict[str, int] = {}
        is_imported = False
        for device in devices:
            row = self._known.devices.get(device.address)
            if row is not None and row.claim_id == id_:
                is_imported = True
                if self._known.has_agent and row.is_awaited:
                    self._say(device, "its host does not show it; its claim keeps it: see the agent's log")
                continue
            index = requests.index_of(device)
            partners = self._functions.held_partners(device)
            reasons = chain(
                faults.of_use(device, instance, partners, index), faults.of_host(device, self._known)
            )
            if (reason := next(reasons, None)) is not None:
                self._differ(device, reason)
            elif index is not None:
                new[device.address] = index
        if instance is not None and (new or is_imported) and not self._known.is_over:
            self._note(instance)
        if instance is not None and new:
            request = requests.as_claim_request(id_, instance.uuid)
            self.claims.append(PlannedClaim(id_, instance.uuid, request, new))

    def _differ(self, device: NovaDevice, reason: str) -> None:
        self._say(device, reason)
        self._left_out[device.address] = device.parent_address or device.address, reason

    def _say(self, device: NovaDevice, reason: str) -> None:
        self.findings.append(Finding(self._host, device.address, device.instance_id, reason))

    def _note(self, instance: NovaInstance) -> None:
        notes = []
        if instance.vm_state not in _QUIET:
            notes.append(f"the instance is {instance.vm_state}: make it active, or stop it, before you go on")
        if instance.task_state is not None:
            notes.append(f"Nova is changing the instance ({instance.task_state}): wait for the end")
        if instance.host != self._host:
            notes.append(f"the instance is on host {instance.host}: finish its move")
        self.findings += [Finding(self._host, None, instance.uuid, note, difference=False) for note in notes]

    def find_freed(self) -> None:
        """Find devices that were imported as in use, and that Nova has freed before the agent came."""
        if self._known.is_over:
            return
        in_nova = {
            device.address: claim_id(self._host, self._imported_at, device.instance_id)
            for device in (*self._functions.devices.values(), *(each for each, _ in self._functions.left_out))
            if in_use(device)
        }
        for address, row in self._known.devices.items():
            if self._known.is_imported and row.claim_id is not None and in_nova.get(address) != row.claim_id:
                reason = f"Nova has freed it since: end its claim, portclaim release --force {row.claim_id}"
                self.findings.append(Finding(self._host, address, None, reason))

    def new_devices(self) -> list[PlannedDevice]:
        """The rows to make. Of a host whose agent reports: only those of differences, and their PFs."""
        tags = {
            address: Requests(self._instances[claim.instance_id].requests).tags_of(
                self._functions.devices[address]
            )
            for claim in self.claims
            for address in claim.devices
        }
        wanted = {*self._left_out, *(port for port, _ in self._left_out.values())}
        return [
            self._with_reason(replace(row, tags=tags.get(address, {})))
            for address, row in self._functions.planned.items()
            if address not in self._known.devices and (not self._known.has_agent or address in wanted)
        ]

    def _with_reason(self, row: PlannedDevice) -> PlannedDevice:
        _, reason = self._left_out.get(row.address, (None, None))
        return row if reason is None else replace(row, unusable_reason=f"import from Nova: {reason}")

    def withheld(self) -> dict[str, str]:
        """The ports to drain: those of differences, unless they are drained already."""
        by_port: defaultdict[str, list[str]] = defaultdict(list)
        for address, (port, reason) in self._left_out.items():
            row = self._known.devices.get(port)
            if port in self._functions.planned if row is None else row.drained_reason is None:
                by_port[port].append(f"{address}: {reason}")
        return {port: f"import from Nova: {'; '.join(reasons)}" for port, reasons in by_port.items()}
