"""What a hypervisor driver has to do, and how one is found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast
from uuid import UUID

from oslo_config import cfg
from stevedore import DriverManager
from stevedore.exception import NoMatches

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.messages import Step, StepDevice

NAMESPACE = "portclaim.hypervisor"


class DriverError(Exception):
    """A device could not be given or taken back. The message is the reason that operators read."""


class InstanceNotFound(DriverError):
    """The instance is not on this host."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device that a guest has. ``claim_id`` is None where not Portclaim gave it."""

    address: PciAddress
    instance_id: UUID
    claim_id: UUID | None


class HypervisorDriver(ABC):
    """Gives devices of this host to guests and takes them back.

    The agent calls :meth:`attach` and :meth:`detach` from several threads, but never for two
    devices of one PF's tree at a time, nor twice for one claim. A driver must know after any crash
    what it did, from the hypervisor itself or from a record of its own: the same call again has no
    further effect.
    """

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        """Check the configuration, touch nothing. Raises :class:`InvalidConfiguration`.

        ``state_path`` is the agent's own directory, which is there when :meth:`start` is called.
        """
        self.conf = conf
        self.state_path = state_path

    @abstractmethod
    def start(self) -> None:
        """Make ready; finish what a predecessor that was killed had begun."""

    @abstractmethod
    def stop(self) -> None:
        """Let go of what :meth:`start` opened. No other call comes after this one."""

    @abstractmethod
    def attachments(self) -> Sequence[Attachment]:
        """What guests have now, whoever gave it to them."""

    def lent(self) -> Sequence[Attachment]:
        """What left the host for a claim, whether or not the guest has it (yet, or any more)."""
        return [held for held in self.attachments() if held.claim_id is not None]

    def troubles(self) -> Mapping[PciAddress, str]:
        """Devices that are not usable now, and why, beyond what a scan can see."""
        return {}

    @abstractmethod
    def attach(self, step: Step, device: StepDevice) -> None:
        """Give the device to the step's instance, on behalf of the step's claim.

        Taking a PF away from the host takes its VFs with it. Raises :class:`DriverError`; then the
        caller detaches all devices of the step, also this one.
        """

    @abstractmethod
    def detach(self, step: Step, device: StepDevice) -> None:
        """Take the device back, if it is the step's claim that holds it; otherwise do nothing.

        Returns once the host has it again, a PF with as many VFs as before, or once that is the
        driver's own trouble: one of :meth:`troubles`, and tried again. Raises :class:`DriverError`
        where the guest still has it; then it is to be called again.
        """


def load_driver(name: str, conf: cfg.ConfigOpts, state_path: Path) -> HypervisorDriver:
    """The driver of this name. Raises :class:`InvalidConfiguration`, also on behalf of the driver."""
    try:
        found: DriverManager[HypervisorDriver] = DriverManager(
            NAMESPACE, name, on_missing_entrypoints_callback=None
        )
    except NoMatches as error:
        known = ", ".join(sorted(entry_points(group=NAMESPACE).names))
        raise InvalidConfiguration(
            f"[compute_agent] driver {name!r} is not installed; there are: {known}"
        ) from error
    return cast(type[HypervisorDriver], found.driver)(conf, state_path)
