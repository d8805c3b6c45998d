"""Do one step: check its devices, call the driver, and record how the step ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError, HypervisorDriver, InstanceNotFound
from portclaim.services.compute_agent.guests import GuestWatch
from portclaim.services.compute_agent.ledger import Ending, Ledger, Superseded
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.step_queue import Job
from portclaim.services.compute_agent.used_once import UsedOnce

LOG = logging.getLogger(__name__)

GONE_AFTER = 45.0  # seconds: while a hypervisor redefines an instance, it does not list it


class StepRunner:
    """Does steps. Each takes effect once, and never after a later step of its claim.

    ``providing(device)``: in this block, a VF that is made by demand exists.
    """

    def __init__(
        self,
        driver: HypervisorDriver,
        scanner: Scanner,
        ledger: Ledger,
        guests: GuestWatch,
        used_once: UsedOnce | None = None,
    ) -> None:
        self._driver = driver
        self._scanner = scanner
        self._ledger = ledger
        self._guests = guests
        self._used_once = used_once
        self.providing: Callable[[StepDevice], AbstractContextManager[None]] = lambda _device: nullcontext()
        self._gone_since: dict[UUID, float] = {}

    def run(self, job: Job) -> Ending | None:
        """Do the step unless it was done before; answer how it ended.

        None: there is no answer to send. The step is stale, or its instance has still not come, or a device
        that the instance has lost could not be attached again yet.
        """
        step = job.step
        was_prepared = self._ledger.is_prepared(step)
        try:
            ending = self._ledger.begin(step, job.again or (was_prepared and self._is_unwatched(step)))
        except Superseded as superseded:
            LOG.info("step dropped: %s", superseded)
            return None
        if ending is None:
            had_devices = job.was_attached or self._ledger.was_attached(step)
            ending = self._reattach(step) if had_devices and step.action == "attach" else self._do(step)
            if ending is None:
                return None
            self._ledger.finish(step, ending)
            if ending.outcome != "prepared" or step.action == "unplug":
                self._guests.forget(step.claim_id)
            if job.again and was_prepared and ending.outcome == "prepared":
                return None
            level = logging.ERROR if ending.outcome == "failed" else logging.INFO
            LOG.log(level, "claim %s: step %s, %s, %s", step.claim_id, step.step, step.action, ending)
        return ending

    def _is_unwatched(self, step: Step) -> bool:
        """Would nobody notice that the instance comes? So it is after a restart of the agent."""
        return step.action != "unplug" and not self._guests.expects(step)

    def _do(self, step: Step) -> Ending:
        try:
            if step.action in {"prepare", "attach"}:
                return self._prepare_or_attach(step)
            self._adopt(step)
            if step.action == "unplug":
                self._each(step, self._driver.unplug)
                return Ending("prepared")
            self._each(step, self._driver.detach)
        except DriverError as error:
            return Ending("failed", str(error))
        except Exception as error:
            LOG.exception("claim %s: step %s, %s", step.claim_id, step.step, step.action)
            return Ending("failed", f"an error in the agent, see its log: {error!r}")
        return Ending("done")

    def _prepare_or_attach(self, step: Step) -> Ending:
        """Prepare all devices or none, and attach them if the step says so and the instance is here.

        On a failure, detach all devices of the step before it is reported.
        """
        try:
            self._prepare_all(step)
            self._guests.expect(step)
            if step.action == "attach":
                self._attach_all(step)
            elif not all(self._driver.has(step, device) for device in step.devices):
                return Ending("prepared")
        except InstanceNotFound:
            return Ending("prepared")
        except BaseException:
            self._undo(step)
            raise
        return Ending("done")

    def _reattach(self, step: Step) -> Ending | None:
        """Attach again what an instance has lost.

        On a failure the instance keeps its other devices, and the next repair tries again. But if the
        instance has been gone from this host for ``GONE_AFTER`` seconds, the step fails.
        """
        try:
            self._adopt(step)
            self._prepare_all(step)
            self._attach_all(step)
        except InstanceNotFound as error:
            since = self._gone_since.setdefault(step.claim_id, time.monotonic())
            if time.monotonic() - since < GONE_AFTER:
                LOG.warning("claim %s: %s", step.claim_id, error)
                return None
            self._undo(step)
            ending = Ending("failed", str(error))
        except DriverError as error:
            LOG.error("claim %s: attaching again failed: %s", step.claim_id, error)  # noqa: TRY400 - says it all
            return None
        else:
            ending = Ending("done")
        self._gone_since.pop(step.claim_id, None)
        return ending

    def _adopt(self, step: Step) -> None:
        """Record what the instance has of an allocated claim that was taken over from Nova."""
        for device in step.devices:
            self._driver.adopt(step, device)

    def _prepare_all(self, step: Step) -> None:
        for device in step.devices:
            with self.providing(device):
                self._check(device)
                with self._preparing(step, device):
                    self._driver.prepare(step, device)

    def _preparing(self, step: Step, device: StepDevice) -> AbstractContextManager[None]:
        if self._used_once is None:
            return nullcontext()
        return self._used_once.preparing(step.claim_id, PciAddress.parse(device.address))

    def _attach_all(self, step: Step) -> None:
        for device in step.devices:
            self._driver.attach(step, device)

    def _undo(self, step: Step) -> None:
        for device in reversed(step.devices):
            try:
                self._driver.detach(step, device)
            except Exception:
                LOG.exception(
                    "%s could not be detached from instance %s after a failed attach",
                    device.address,
                    step.instance_id,
                )

    def _each(self, step: Step, do: Callable[[Step, StepDevice], None]) -> None:
        """Do it with every device that allows it, also when one of them does not."""
        reasons = []
        for device in step.devices:
            try:
                do(step, device)
            except DriverError as error:
                reasons.append(str(error))
        if reasons:
            raise DriverError("; ".join(reasons))

    def _check(self, device: StepDevice) -> None:
        """Is the device what the inventory said it was, and can it be set up so? Raises DriverError."""
        if device.network_settings is not None and not self._driver.sets_network:
            raise DriverError(
                f"{device.address}: the claim asks for network settings, and the agent of this host does not "
                "set any: see [handover] network_settings"
            )
        found = self._scanner.look(PciAddress.parse(device.address))
        if found is None:
            raise DriverError(f"{device.address} is not on this host")
        wanted = device.dev_type, device.vendor_id, device.product_id
        seen = found.dev_type, found.vendor_id, found.product_id
        if seen != wanted:
            raise DriverError(
                f"{device.address} is now {' '.join(seen)}, but was claimed as {' '.join(wanted)}"
            )
