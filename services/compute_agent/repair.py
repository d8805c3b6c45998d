"""Compare what the conductor says this host should hold with what its guests have, and heal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import cast
from uuid import UUID

from common.pci.address import PciAddress
from common.rpc.messages import DevType, Holding, Step, StepDevice
from services.compute_agent.drivers.base import Attachment, HypervisorDriver
from services.compute_agent.ledger import Ledger
from services.compute_agent.scanner import Scanner
from services.compute_agent.step_queue import Job

LOG = logging.getLogger(__name__)


class Repair:
    """Gives back to guests what they lost and takes from them what is no claim's any more.

    What Portclaim did not attach is never detached, but held back from being offered; so is what
    it attached for a claim of which nothing is known yet.
    """

    def __init__(
        self, driver: HypervisorDriver, scanner: Scanner, ledger: Ledger, put: Callable[[Job], None]
    ) -> None:
        self._driver = driver
        self._scanner = scanner
        self._ledger = ledger
        self._put = put
        self._unconfirmed = frozenset(held.claim_id for held in driver.attachments())

    def run(self, ask: Callable[[], Sequence[Holding]]) -> None:
        """Ask the conductor for the live claims and put right what differs.

        Asked after a look at what guests have: a claim that is attached before the question and
        missing in the answer has ended. Steps that arrive meanwhile are newer, and win by number.
        """
        attached = self._driver.attachments()
        holdings = ask()
        live = {holding.claim_id for holding in holdings}
        for holding in holdings:
            self._mend(holding, {str(held.address) for held in attached if held.claim_id == holding.claim_id})
        for claim_id in {held.claim_id for held in attached if held.claim_id is not None} - live:
            self._clear(claim_id, [held for held in attached if held.claim_id == claim_id])
        self._unconfirmed -= live

    def held_back(self) -> Mapping[PciAddress, str]:
        """Devices that guests have without right, and in whose guest each is."""
        doubtful = self._unconfirmed | self._ledger.not_attached() | {None}
        return {
            held.address: f"in instance {held.instance_id}, {_on_whose_behalf(held.claim_id)}"
            for held in self._driver.attachments()
            if held.claim_id in doubtful
        }

    def _mend(self, holding: Holding, attached: set[str]) -> None:
        missing = {device.address for device in holding.devices} - attached
        if holding.status == "allocated" and not missing:
            return
        if holding.status == "allocated":
            LOG.warning(
                "instance %s has lost %s of claim %s: attaching again",
                holding.instance_id,
                ", ".join(sorted(missing)),
                holding.claim_id,
            )
        step = Step(
            claim_id=holding.claim_id,
            step=holding.step,
            action="detach" if holding.status == "releasing" else "attach",
            instance_id=holding.instance_id,
            devices=holding.devices,
        )
        self._put(Job(step, again=holding.status == "allocated"))

    def _clear(self, claim_id: UUID, leftovers: Sequence[Attachment]) -> None:
        devices = [device for held in leftovers if (device := self._look(held.address)) is not None]
        LOG.warning(
            "claim %s has ended: taking back %s", claim_id, ", ".join(device.address for device in devices)
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
        return "which Portclaim did not give it to"
    return f"where claim {claim_id}, which does not hold it now, has left it"
