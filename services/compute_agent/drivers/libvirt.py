"""Guests of libvirt. libvirt itself knows which devices a guest has, and for which claim."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.arrivals import Arrivals
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError
from portclaim.services.compute_agent.drivers.deadline import Deadline
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, find_hostdev, hostdevs
from portclaim.services.compute_agent.drivers.libvirt_events import Departures, DomainEvents, start_event_loop
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver
from portclaim.services.compute_agent.handover_record import HandedOver

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
        register(conf, OPTIONS, GROUP)
        if libvirt is None:
            raise InvalidConfiguration(
                "[compute_agent] driver libvirt needs libvirt-python: install portclaim[libvirt], or the "
                "distribution's python3-libvirt where Portclaim uses the distribution's Python"
            )
        self._options = conf.libvirt
        self._libvirtd = Deadline("libvirt", self._options.timeout)
        self._lock = threading.Lock()
        self._open: Any = None
        self._events: DomainEvents | None = None
        self._arrivals = Arrivals()
        self._departures = Departures()

    def start(self) -> None:
        """Connect, and finish what a killed agent has left unfinished.

        Raises DriverError without libvirtd.
        """
        start_event_loop(libvirt)  # so that a connection notices that libvirtd was restarted
        libvirt.registerErrorHandler(_say_nothing, None)  # libvirt would also print each error that it raises
        self._libvirtd.ask(self._connection)
        super().start()

    def watch(self, changed: Callable[[UUID | None], None]) -> None:
        """Hear of domains by libvirt's events: one is defined or started, or gets a device."""
        self._events = DomainEvents(libvirt, self._options.connection_uri, changed, self._departures.tell)
        self._events.start()

    def stop(self) -> None:
        """Close the connections."""
        super().stop()
        if self._events is not None:
            self._events.end()
        self._libvirtd.ask(self._close)

    def attachments(self) -> Sequence[Attachment]:
        """The devices of all domains of this host, running or not. Raises :class:`DriverError`.

        For a running domain, a claim's device counts only if the domain has it now, not only in its
        configuration. It counts only while it is on vfio-pci and the same device as when it was handed over.
        """
        return self._libvirtd.ask_one_at_a_time(self._attachments)

    def _attachments(self) -> Sequence[Attachment]:
        prepared = {row.address: row for row in self.handover.handed_over()}
        found: set[Attachment] = set()
        with _as_driver_error():
            for domain in self._connection().listAllDomains():
                try:
                    found |= _attachments_of(domain, prepared)
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # ended since it was listed
                        raise
        return sorted(self._without_lost(found, prepared.values()), key=lambda held: held.address)

    def prepare(self, step: Step, device: StepDevice) -> None:
        """Hand the device over, so that the instance's domain can have it."""
        self._check_holders(step, device)
        self.handover.hand_over(step, PciAddress.parse(device.address))

    def has(self, step: Step, device: StepDevice) -> bool:
        """Does the domain have the device now, or when it is started next?"""
        address = PciAddress.parse(device.address)
        return any(
            (held.address, held.claim_id, held.instance_id) == (address, step.claim_id, step.instance_id)
            for held in self.attachments()
        )

    def attach(self, step: Step, device: StepDevice) -> None:
        """Attach the device to the domain with the instance's UUID, unless the domain has it."""
        hostdev = Hostdev(PciAddress.parse(device.address), step.claim_id)
        domain = self._libvirtd.ask(lambda: self._domain(step.instance_id))
        is_here = domain is not None
        is_arriving = is_here and self._libvirtd.ask(lambda: _is_arriving(domain))
        self._arrivals.check(step.instance_id, is_here=is_here, is_arriving=is_arriving)
        self._libvirtd.ask(lambda: self._plug(domain, hostdev))

    def unplug(self, step: Step, device: StepDevice) -> None:
        """Detach the claim's device from the domain, if it is here."""
        domain = self._libvirtd.ask(lambda: self._domain(step.instance_id))
        if domain is not None:
            hostdev = Hostdev(PciAddress.parse(device.address), step.claim_id)
            with self.handover.in_hand(hostdev.address):
                self._unplug(domain, hostdev, is_prepared=True)
            self.handover.changed([hostdev.address])  # libvirt returns a managed device to its driver

    def detach(self, step: Step, device: StepDevice) -> None:
        """Detach the claim's device from the domain, then restore it.

        The other devices of the step in its IOMMU group leave the domain first: while the domain has one of
        them, it has the group open, and no device of the group can return to its driver.
        """
        address = PciAddress.parse(device.address)
        rows = {row.address: row for row in self.handover.handed_over()}
        domain = self._libvirtd.ask(lambda: self._domain(step.instance_id))
        together = self.handover.together(step, address)
        with self.handover.in_hand(*together):
            for each in together if domain is not None else ():
                row = rows.get(each)
                is_prepared = row is not None and row.claim_id == step.claim_id
                self._unplug(domain, Hostdev(each, step.claim_id), is_prepared=is_prepared)
            if address in rows and rows[address].claim_id in {None, step.claim_id}:
                self.handover.take_back(address)

    def _plug(self, domain: Any, hostdev: Hostdev) -> None:
        """Attach to the configuration first: a domain that starts meanwhile then has the device at boot.

        The caller may define the same device at the same time. Then libvirt refuses the second one, and the
        domain has the device.
        """
        managed = self._options.managed and self.restorer.is_managed(hostdev.address)
        xml = hostdev.to_xml(managed=managed)
        places: Sequence[tuple[int, Callable[[Any], Collection[Hostdev]], Callable[[], bool]]] = (
            (libvirt.VIR_DOMAIN_AFFECT_CONFIG, _configured, domain.isPersistent),
            (libvirt.VIR_DOMAIN_AFFECT_LIVE, _live, domain.isActive),
        )
        with _as_driver_error():
            for flags, read, applies in places:
                if not applies() or find_hostdev(read(domain), hostdev):
                    continue
                try:
                    domain.attachDeviceFlags(xml, flags)
                except libvirt.libvirtError:
                    if applies() and not find_hostdev(read(domain), hostdev):
                        raise

    def _unplug(self, domain: Any, hostdev: Hostdev, *, is_prepared: bool) -> None:
        self._libvirtd.ask(lambda: self._begin_unplugging(domain, hostdev, is_prepared))

        def is_out() -> bool:
            with _as_driver_error():
                return not find_hostdev(_live(domain), hostdev, is_prepared)

        if not self._departures.wait_until(lambda: self._libvirtd.ask(is_out), self._options.detach_timeout):
            raise DriverError(
                f"instance {domain.UUIDString()} does not release {hostdev.address}: "
                "check whether it is paused, and whether its system supports unplugging"
            )

    def _begin_unplugging(self, domain: Any, hostdev: Hostdev, is_prepared: bool) -> None:
        with _as_driver_error():
            if configured := find_hostdev(_configured(domain), hostdev, is_prepared):
                domain.detachDeviceFlags(configured, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
            if not (live := find_hostdev(_live(domain), hostdev, is_prepared)):
                return
            try:
                domain.detachDeviceFlags(live, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError as error:
                # An earlier call has asked the guest already, and only the guest's answer counts.
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


def _attachments_of(domain: Any, prepared: Mapping[PciAddress, HandedOver]) -> set[Attachment]:
    """The domain's devices. A device prepared for this instance belongs to its claim, whatever its alias."""
    instance_id, live, is_active = UUID(domain.UUIDString()), _live(domain), domain.isActive()
    found = set()
    for hostdev in live | _configured(domain):
        claim_id = hostdev.claim_id
        row = prepared.get(hostdev.address)
        if claim_id is None and row is not None and row.instance_id == instance_id:
            claim_id = row.claim_id
        if claim_id is None or not is_active or hostdev in live:
            found.add(Attachment(hostdev.address, instance_id, claim_id))
    return found


def _is_arriving(domain: Any) -> bool:
    """Is it the target of a live migration that goes on? It takes no device before it runs here."""
    arriving = {libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP}
    with _as_driver_error():
        state, reason = domain.state()
    return state == libvirt.VIR_DOMAIN_PAUSED and reason in arriving


def _live(domain: Any) -> set[Hostdev]:
    """What the domain has now, if it runs."""
    return set(hostdevs(domain.XMLDesc())) if domain.isActive() else set()


def _configured(domain: Any) -> set[Hostdev]:
    """What the domain will have when it is started next, if it is persistent."""
    if not domain.isPersistent():
        return set()
    return set(hostdevs(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
