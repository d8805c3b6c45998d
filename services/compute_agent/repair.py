"""Repair: compare the conductor's live claims of this host with what its guests have, and correct the
difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import cast
from uuid import UUID

from portclaim.common.errors import UnknownHost
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Holding, Holdings, Step, StepAction, StepDevice
from portclaim.common.rpc.fields import DevType
from portclaim.common.rpc.recovery_messages import UnknownClaim
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError, HypervisorDriver
from portclaim.services.compute_agent.ledger import Ledger
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.step_queue import Job

LOG = logging.getLogger(__name__)

_STEP: Mapping[tuple[str, str], StepAction] = {
    ("claimed", "auto"): "attach",
    ("claimed", "on-call"): "prepare",
    ("prepared", "auto"): "attach",
    ("prepared", "on-call"): "prepare",
    ("allocated", "auto"): "attach",
    ("allocated", "on-call"): "attach",
    ("releasing", "auto"): "detach",
    ("releasing", "on-call"): "detach",
}
"""The step that a claim's status and its attach mode call for."""


class Repair:
    """Attaches again what guests have lost, and detaches what ended claims have left in guests.

    It detaches devices only of claims that the conductor knows to have ended. Three kinds of devices are held
    back, that is reported as unusable: those that Portclaim did not attach; those of an ended claim until
    they are detached; and those of a claim that the conductor does not know, for example after an old backup
    of the database was restored.
    """

    def __init__(
        self, driver: HypervisorDriver, scanner: Scanner, ledger: Ledger, put: Callable[[Job], None]
    ) -> None:
        self._driver = driver
        self._scanner = scanner
        self._ledger = ledger
        self._put = put
        self._unconfirmed = frozenset(held.claim_id for held in driver.attachments())
        self._ended: frozenset[UUID] = frozenset()
        self._held_back: Mapping[PciAddress, str] = {}

    def run(self, ask: Callable[[Collection[UUID]], Holdings]) -> None:
        """Ask the conductor about the claims found on this host, and correct the difference.

        It asks after it has read what guests have. Steps that arrive meanwhile have higher numbers and win.
        """
        attached = self._driver.attachments()
        outside = {*attached, *self._driver.handed_over()}
        found = {held.claim_id for held in outside if held.claim_id is not None}
        try:
            answer = ask(found)
        except UnknownHost:
            self._unconfirmed = frozenset(found)
            raise
        here = {(str(held.address), held.claim_id, held.instance_id) for held in attached}
        for holding in answer.holdings:
            self._continue(holding, here)
        self._ended = frozenset(answer.ended)
        for claim_id in answer.ended:
            self._detach_leftovers(claim_id, [held for held in outside if held.claim_id == claim_id])
        unknown = found - {holding.claim_id for holding in answer.holdings} - set(answer.ended)
        for claim_id in unknown - self._unconfirmed:
            LOG.error(
                "the conductor does not know claim %s: its devices stay where they are and are not offered",
                claim_id,
            )
        self._unconfirmed = frozenset(unknown)

    def held_back(self) -> Mapping[PciAddress, str]:
        """Devices that guests have without a live claim, and in which guest each is.

        If the hypervisor does not answer, its last answer is used.
        """
        without_claim = self._unconfirmed | self._ended | self._ledger.not_attached() | {None}
        try:
            outside = {*self._driver.attachments(), *self._driver.handed_over()}
        except DriverError as error:
            LOG.warning(
                "the hypervisor does not say which guest has which device; its last answer is used: %s", error
            )
            return self._held_back
        self._held_back = {
            held.address: f"in instance {held.instance_id}, {_on_whose_behalf(held.claim_id)}"
            for held in outside
            if held.claim_id in without_claim
        }
        return self._held_back

    def unknown_claims(self) -> list[UnknownClaim]:
        """The claims that this host has devices for, and that the conductor did not know when it was asked.

        Raises :class:`DriverError` if the hypervisor does not answer.
        """
        found: dict[UUID, list[Attachment]] = {}
        for held in {*self._driver.attachments(), *self._driver.handed_over()}:
            if held.claim_id is not None and held.claim_id in self._unconfirmed:
                found.setdefault(held.claim_id, []).append(held)
        return [
            UnknownClaim(
                claim_id=claim_id,
                instance_id=held[0].instance_id,
                step=self._ledger.latest(claim_id),
                addresses=sorted({str(each.address) for each in held}),
            )
            for claim_id, held in sorted(found.items())
        ]

    def _continue(self, holding: Holding, here: AbstractSet[tuple[str, UUID | None, UUID]]) -> None:
        """Do what a claim's status calls for, if its instance does not have the claim's devices.

        The same attaches again what the instance has lost, and records what it had before it was taken over.
        """
        action = _STEP.get((holding.claim_status, holding.attach))
        if holding.awaited == "unplug":
            action = "unplug"
        if action is None:  # the conductor is newer, and so is what this status means
            return
        devices = {device.address for device in holding.devices}
        missing = devices - {address for address, claim_id, _ in here if claim_id == holding.claim_id}
        lost = {address for address in missing if (address, None, holding.instance_id) not in here}
        was_attached = holding.claim_status == "allocated" and action != "unplug"
        if was_attached and not missing:
            return
        if was_attached and lost:
            LOG.warning(
                "instance %s has lost %s of claim %s: attaching again",
                holding.instance_id,
                ", ".join(sorted(lost)),
                holding.claim_id,
            )
        step = Step(
            claim_id=holding.claim_id,
            step=holding.step,
            action=action,
            instance_id=holding.instance_id,
            devices=holding.devices,
        ).traced(holding.traceparent)
        again = was_attached or holding.claim_status == "prepared"
        self._put(Job(step, again=again, was_attached=was_attached))

    def _detach_leftovers(self, claim_id: UUID, leftovers: Sequence[Attachment]) -> None:
        addresses = sorted({held.address for held in leftovers})
        devices = [device for address in addresses if (device := self._look(address)) is not None]
        LOG.warning(
            "claim %s has ended: detaching %s", claim_id, ", ".join(device.address for device in devices)
        )
        if devices:
            step = Step(
                claim_id=claim_id,
                step=self._ledger.latest(claim_id) + 1,
                action="detach",
                instance_id=leftovers[0].instance_id,
                devices=devices,
            )
            self._put(Job(step))

    def _look(self, address: PciAddress) -> StepDevice | None:
        device = self._scanner.look(address)
        if device is None:
            return None
        return StepDevice(
            address=str(address),
            dev_type=cast(DevType, device.dev_type.value),
            vendor_id=device.vendor_id,
            product_id=device.product_id,
            parent_address=None if device.parent is None else str(device.parent),
        )


def _on_whose_behalf(claim_id: UUID | None) -> str:
    if claim_id is None:
        return "not attached by Portclaim"
    return f"left there by claim {claim_id}, which is not known to hold it"
