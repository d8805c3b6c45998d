"""Guests of libvirt. libvirt itself knows which devices a guest has, and for which claim."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError, InstanceNotFound
from portclaim.services.compute_agent.drivers.deadline import Deadline
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, hostdevs
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver
from portclaim.services.compute_agent.uevents import wait_until

try:
    import libvirt
except ImportError:  # an extra: only hosts with libvirt have it
    libvirt = None

LOG = logging.getLogger(__name__)

GROUP = cfg.OptGroup("libvirt", "Driver `libvirt`")
OPTIONS = [
    cfg.StrOpt("connection_uri", default="qemu:///system", help="The libvirtd of this host."),
    cfg.BoolOpt(
        "managed",
        default=True,
        help="Let libvirt detach a device from its driver too (managed='yes'), so that a guest that starts "
        "after a reboot gets its devices even if this agent does not run yet.",
    ),
    cfg.FloatOpt(
        "timeout",
        default=20.0,
        min=1.0,
        help="Seconds for one answer of libvirtd. While it does not answer, reports use its last answer.",
    ),
    cfg.FloatOpt(
        "detach_timeout", default=60.0, min=1.0, help="Seconds until a guest must have released a device."
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """The options of this driver, for oslo.config's generators."""
    return [(GROUP, OPTIONS)]


class LibvirtDriver(RealHostDriver):
    """Attaches and detaches ``<hostdev>``, in the running guest and in its configuration.

    A device is bound to vfio-pci before libvirt gets it, and restored after libvirt has released it, so that
    libvirt never waits in the kernel. The alias of the ``<hostdev>`` names the claim. A call to a libvirtd
    that hangs ends after ``timeout`` seconds: a repair corrects what libvirtd does later.
    """

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        super().__init__(conf, state_path)
        conf.register_opts(OPTIONS, GROUP)
        if libvirt is None:
            raise InvalidConfiguration(
                "[compute_agent] driver libvirt needs libvirt-python: install portclaim[libvirt], or the "
                "distribution's python3-libvirt where Portclaim uses the distribution's Python"
            )
        self._options = conf.libvirt
        self._libvirtd = Deadline("libvirt", self._options.timeout)
        self._lock = threading.Lock()
        self._open: Any = None

    def start(self) -> None:
        """Connect, and finish what a killed agent has left unfinished.

        Raises DriverError without libvirtd.
        """
        libvirt.registerErrorHandler(_say_nothing, None)  # libvirt would also print each error that it raises
        self._libvirtd.ask(self._connection)
        super().start()

    def stop(self) -> None:
        """Close the connection."""
        super().stop()
        self._libvirtd.ask(self._close)

    def attachments(self) -> Sequence[Attachment]:
        """The devices of all domains of this host, running or not. Raises :class:`DriverError`.

        For a running domain, a claim's device counts only if the domain has it now, not only in its
        configuration.
        """
        return self._libvirtd.ask_one_at_a_time(self._attachments)

    def _attachments(self) -> Sequence[Attachment]:
        found: set[Attachment] = set()
        with _as_driver_error():
            for domain in self._connection().listAllDomains():
                try:
                    found |= _attachments_of(domain)
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # ended since it was listed
                        raise
        return sorted(found, key=lambda held: held.address)

    def attach(self, step: Step, device: StepDevice) -> None:
        """Hand the device over, then attach it to the domain with the instance's UUID."""
        hostdev = Hostdev(PciAddress.parse(device.address), step.claim_id)
        domain = self._libvirtd.ask(lambda: self._domain(step.instance_id))
        if domain is None:
            raise InstanceNotFound(f"instance {step.instance_id} is not on this host")
        self._check_holders(step, device)
        self.handover.hand_over(step, hostdev.address)
        self._libvirtd.ask(lambda: self._plug(domain, hostdev))

    def detach(self, step: Step, device: StepDevice) -> None:
        """Detach the claim's device from the domain, then restore it."""
        hostdev = Hostdev(PciAddress.parse(device.address), step.claim_id)
        domain = self._libvirtd.ask(lambda: self._domain(step.instance_id))
        if domain is not None:
            self._unplug(domain, hostdev)
        row = self.handover.find(hostdev.address)
        if row is not None and row.claim_id in {None, step.claim_id}:
            self.handover.take_back(hostdev.address)

    def _plug(self, domain: Any, hostdev: Hostdev) -> None:
        xml = hostdev.to_xml(managed=self._options.managed)
        with _as_driver_error():
            if domain.isActive() and hostdev not in _live(domain):
                domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            if domain.isPersistent() and hostdev not in _configured(domain):
                domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _unplug(self, domain: Any, hostdev: Hostdev) -> None:
        self._libvirtd.ask(lambda: self._begin_unplugging(domain, hostdev))

        def is_out() -> bool:
            with _as_driver_error():
                return hostdev not in _live(domain)

        if not wait_until(lambda: self._libvirtd.ask(is_out), self._options.detach_timeout):
            raise DriverError(
                f"instance {domain.UUIDString()} does not release {hostdev.address}: "
                "check whether it is paused, and whether its system supports unplugging"
            )

    def _begin_unplugging(self, domain: Any, hostdev: Hostdev) -> None:
        xml = hostdev.to_xml(managed=self._options.managed)
        with _as_driver_error():
            if domain.isPersistent() and hostdev in _configured(domain):
                domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
            if hostdev not in _live(domain):
                return
            try:
                domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError as error:
                # The guest was asked before and has not released the device yet: _unplug() waits for that.
                LOG.info("%s: %s", hostdev.address, error)

    def _check_holders(self, step: Step, device: StepDevice) -> None:
        """Raise :class:`DriverError` if another domain has the device, its PF or one of its VFs."""
        address = PciAddress.parse(device.address)
        kin = {str(address), device.parent_address, *map(str, self.handover.vfs(address))}
        for held in self.attachments():
            is_this = (held.address, held.claim_id, held.instance_id) == (
                address,
                step.claim_id,
                step.instance_id,
            )
            if str(held.address) in kin and not is_this:
                raise DriverError(f"{held.address} is already in instance {held.instance_id}")

    def _domain(self, instance_id: UUID) -> Any:
        """The domain of this UUID; None if there is none."""
        try:
            return self._connection().lookupByUUIDString(str(instance_id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise DriverError(f"libvirt: {error}") from error

    def _connection(self) -> Any:
        """The connection, opened again if libvirtd was restarted."""
        with self._lock, _as_driver_error():
            if self._open is None or not self._open.isAlive():
                self._open = libvirt.open(self._options.connection_uri)
            return self._open

    def _close(self) -> None:
        with self._lock, _as_driver_error():
            self._open.close()


def _say_nothing(_context: object, _error: object) -> None:
    pass


@contextmanager
def _as_driver_error() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise DriverError(f"libvirt: {error}") from error


def _attachments_of(domain: Any) -> set[Attachment]:
    instance_id, live, is_active = UUID(domain.UUIDString()), _live(domain), domain.isActive()
    return {
        Attachment(hostdev.address, instance_id, hostdev.claim_id)
        for hostdev in live | _configured(domain)
        if hostdev.claim_id is None or not is_active or hostdev in live
    }


def _live(domain: Any) -> set[Hostdev]:
    """What the domain has now, if it runs."""
    return set(hostdevs(domain.XMLDesc())) if domain.isActive() else set()


def _configured(domain: Any) -> set[Hostdev]:
    """What the domain will have when it is started next, if it is persistent."""
    if not domain.isPersistent():
        return set()
    return set(hostdevs(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
