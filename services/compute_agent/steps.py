"""Do one step: check its devices, have the driver move them, and know how it ended."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError, HypervisorDriver, InstanceNotFound
from portclaim.services.compute_agent.ledger import Ending, Ledger, Overtaken
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.step_queue import Job

LOG = logging.getLogger(__name__)

GONE_AFTER = 45.0  # seconds: a hypervisor that defines an instance anew has none for a moment


class StepRunner:
    """Does steps, each once in effect and never after a later one of its claim."""

    def __init__(self, driver: HypervisorDriver, scanner: Scanner, ledger: Ledger) -> None:
        self._driver = driver
        self._scanner = scanner
        self._ledger = ledger
        self._gone_since: dict[UUID, float] = {}

    def run(self, job: Job) -> Ending | None:
        """Do the step unless it was done; answer how it ended.

        None: there is nothing to tell, because the step was overtaken, or because what an instance
        has lost could not be given again yet.
        """
        step = job.step
        try:
            ending = self._ledger.begin(step, job.again)
        except Overtaken as overtaken:
            LOG.info("dropped: %s", overtaken)
            return None
        if ending is None:
            ending = self._heal(step) if job.again else self._do(step)
            if ending is None:
                return None
            self._ledger.finish(step, ending)
            level = logging.INFO if ending.outcome == "done" else logging.ERROR
            LOG.log(level, "claim %s: step %s, %s, %s", step.claim_id, step.step, step.action, ending)
        return ending

    def _do(self, step: Step) -> Ending:
        try:
            if step.action == "attach":
                self._attach(step)
            else:
                self._detach(step)
        except DriverError as error:
            return Ending("failed", str(error))
        except Exception as error:
            LOG.exception("claim %s: step %s, %s", step.claim_id, step.step, step.action)
            return Ending("failed", f"a fault of the agent, whose log says more: {error!r}")
        return Ending("done")

    def _attach(self, step: Step) -> None:
        """All devices or none: what was given is taken back before the failure is told."""
        try:
            self._give(step)
        except BaseException:
            self._undo(step)
            raise

    def _heal(self, step: Step) -> Ending | None:
        """Give an instance again what it has lost.

        What it still has it keeps, and another repair tries again, unless the instance itself is gone
        from this host, and was so ``GONE_AFTER`` seconds ago.
        """
        try:
            self._give(step)
        except InstanceNotFound as error:
            since = self._gone_since.setdefault(step.claim_id, time.monotonic())
            if time.monotonic() - since < GONE_AFTER:
                LOG.warning("claim %s: %s", step.claim_id, error)
                return None
            self._undo(step)
            ending = Ending("failed", str(error))
        except DriverError as error:
            LOG.error("claim %s: not given again: %s", step.claim_id, error)  # noqa: TRY400 - says it all
            return None
        else:
            ending = Ending("done")
        self._gone_since.pop(step.claim_id, None)
        return ending

    def _give(self, step: Step) -> None:
        for device in step.devices:
            self._check(device)
            self._driver.attach(step, device)

    def _undo(self, step: Step) -> None:
        for device in reversed(step.devices):
            try:
                self._driver.detach(step, device)
            except Exception:
                LOG.exception(
                    "%s stays in instance %s after a failed attach", device.address, step.instance_id
                )

    def _detach(self, step: Step) -> None:
        """All devices that can be, so that one that resists does not keep the others."""
        reasons = []
        for device in step.devices:
            try:
                self._driver.detach(step, device)
            except DriverError as error:
                reasons.append(str(error))
        if reasons:
            raise DriverError("; ".join(reasons))

    def _check(self, device: StepDevice) -> None:
        """Is the device what the inventory said it was? Raises DriverError."""
        found = self._scanner.look(PciAddress.parse(device.address))
        if found is None:
            raise DriverError(f"{device.address} is not on this host")
        wanted = device.dev_type, device.vendor_id, device.product_id
        seen = found.dev_type, found.vendor_id, found.product_id
        if seen != wanted:
            raise DriverError(f"{device.address} is a {' '.join(seen)} now, and not a {' '.join(wanted)}")
