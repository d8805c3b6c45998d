"""The interface of hypervisor drivers, and how a driver is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
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
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.port_control import PortControl
from portclaim.services.compute_agent.scanner import Scan

NAMESPACE = "portclaim.hypervisor"


class DriverError(Exception):
    """A device could not be attached or detached. Operators read the message as the reason."""


class InstanceNotFound(DriverError):
    """The instance is not on this host."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device that a guest has. ``claim_id`` is None if Portclaim did not attach it."""

    address: PciAddress
    instance_id: UUID
    claim_id: UUID | None


class HypervisorDriver(ABC):
    """Attaches devices of this host to guests and detaches them.

    The agent calls :meth:`attach` and :meth:`detach` from several threads, but never at the same time for two
    devices of one PF's tree or twice for one claim. After a crash a driver must know what it did, from the
    hypervisor or from a record of its own. The same call again has no further effect.
    """

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        """Check the configuration, change nothing. Raises :class:`InvalidConfiguration`.

        ``state_path`` is the agent's own directory. It exists when :meth:`start` is called.
        """
        self.conf = conf
        self.state_path = state_path

    @abstractmethod
    def start(self) -> None:
        """Get ready, and finish what a killed agent has left unfinished."""

    @abstractmethod
    def stop(self) -> None:
        """Close what :meth:`start` opened. This is the last call."""

    @abstractmethod
    def attachments(self) -> Sequence[Attachment]:
        """The devices that guests have now, including those that Portclaim did not attach."""

    def handed_over(self) -> Sequence[Attachment]:
        """The devices that were handed over for a claim, whether or not the guest has them now."""
        return [held for held in self.attachments() if held.claim_id is not None]

    def problems(self) -> Mapping[PciAddress, str]:
        """Devices that are not usable now, with the reason, beyond what a scan shows."""
        return {}

    @property
    def sets_network(self) -> bool:
        """Does it set the network settings of a step's devices? Then :meth:`prepare` sets them."""
        return False

    @property
    def ports(self) -> PortControl | None:
        """How to give ports VFs by demand. None: this driver cannot, and only VFs that exist are offered."""
        return None

    def make_lost_vfs(self, make: Callable[[PciAddress | None, PciAddress], None]) -> None:  # noqa: B027 - not all
        """Call ``make(port, vf)``, under the lock of the port, before a claim's VF is handed over again."""

    def stopped(self, _scan: Scan) -> Mapping[PciAddress, str]:
        """Devices of a scan that something else on the host stops, with the reason. It may take seconds."""
        return {}

    def take_device_spec(self, device_spec: Sequence[str]) -> None:  # noqa: B027 - most do not read it
        """Use these values of ``[pci] device_spec``, which are valid, from now on."""

    def watch(self, changed: Callable[[UUID | None], None]) -> None:  # noqa: B027 - some know no guests
        """Call ``changed`` with an instance's id when the instance comes to this host or gets a device.

        None: instances may have come unnoticed. A driver that knows no guests never calls it. The agent calls
        this once, after :meth:`start`; :meth:`stop` ends it.
        """

    def follow(self, tell: Callable[[], None]) -> None:  # noqa: B027 - some lose no devices
        """Call ``tell`` when a claim has lost a device, and when a later try has succeeded with a device.

        The agent then repairs and reports. It calls this once, after :meth:`start`.
        """

    def devices_changed(self, addresses: Collection[PciAddress] | None) -> None:  # noqa: B027 - not of all hosts
        """The kernel has told that these devices have come, gone or changed; None: perhaps all.

        Return soon.
        """

    def adopt(self, step: Step, device: StepDevice) -> None:  # noqa: B027 - some have nothing to record
        """Record that a device belongs to the step's claim, if the instance has it and not from Portclaim.

        Nova attached it, before it was taken over. The device itself is not touched.
        """

    @abstractmethod
    def prepare(self, step: Step, device: StepDevice) -> None:
        """Take the device from the host for the step's claim, so that the step's instance can have it.

        A PF loses its VFs. The instance need not be on this host. Raises :class:`DriverError`: then the
        caller detaches all devices of the step, this one included.
        """

    @abstractmethod
    def has(self, step: Step, device: StepDevice) -> bool:
        """Does the step's instance have the prepared device, whoever attached it?

        A driver that knows no guests answers False.
        """

    @abstractmethod
    def attach(self, step: Step, device: StepDevice) -> None:
        """Attach a prepared device to the step's instance, unless the instance has it already.

        Raises :class:`InstanceNotFound`: the device stays prepared. Raises another :class:`DriverError`: then
        the caller detaches all devices of the step.
        """

    @abstractmethod
    def unplug(self, step: Step, device: StepDevice) -> None:
        """Take the device from the step's instance, and keep it prepared.

        Does nothing if the instance does not have it. Raises :class:`DriverError` if the guest still has it:
        then the caller calls again.
        """

    @abstractmethod
    def detach(self, step: Step, device: StepDevice) -> None:
        """Detach the device if the step's claim holds it; otherwise do nothing.

        Returns when the host has the device again, a PF with as many VFs as before; or when restoring it has
        failed: then it is one of :meth:`problems`, and the driver tries again. Raises :class:`DriverError` if
        the guest still has the device: then the caller calls again.
        """


def load_driver(name: str, conf: cfg.ConfigOpts, state_path: Path) -> HypervisorDriver:
    """Load a driver by name. Raises :class:`InvalidConfiguration` if it is missing or raises that itself."""
    try:
        found: DriverManager[HypervisorDriver] = DriverManager(
            NAMESPACE, name, on_missing_entrypoints_callback=None
        )
    except NoMatches as error:
        known = ", ".join(sorted(entry_points(group=NAMESPACE).names))
        raise InvalidConfiguration(
            f"[compute_agent] driver {name!r} is not installed: choose one of {known}"
        ) from error
    return cast(type[HypervisorDriver], found.driver)(conf, state_path)
