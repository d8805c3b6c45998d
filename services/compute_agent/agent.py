"""The compute agent of one host: its endpoint, and how it starts and stops."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.metrics.catalogue import TAKES_STEPS
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import InvalidDeviceSpec
from portclaim.common.pci.host import HostView
from portclaim.common.periodic import Periodic
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.endpoint import Entrance, finish, server
from portclaim.common.rpc.host_exchange import own_exchange
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.cached_scanner import CachedScanner
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.drivers.base import load_driver
from portclaim.services.compute_agent.endpoint import ComputeAgentEndpoint
from portclaim.services.compute_agent.guests import GuestWatch
from portclaim.services.compute_agent.identity import Identity
from portclaim.services.compute_agent.inventory import Inventory, take_inventory, with_network_settings
from portclaim.services.compute_agent.last_reports import LastReports
from portclaim.services.compute_agent.ledger import Ledger
from portclaim.services.compute_agent.numa import read_numa_cells
from portclaim.services.compute_agent.observed import measured, observed
from portclaim.services.compute_agent.obstacles import obstacles
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.reporter import Reporter
from portclaim.services.compute_agent.scanner import ScanError, Scanner
from portclaim.services.compute_agent.state_room import no_room
from portclaim.services.compute_agent.step_queue import Job, StepQueue
from portclaim.services.compute_agent.steps import StepRunner
from portclaim.services.compute_agent.sysfs import KERNELS_OWN, PCI_DEVICES, SysfsTree
from portclaim.services.compute_agent.trust import HostTrust
from portclaim.services.compute_agent.uevents import Uevents, Watcher
from portclaim.services.compute_agent.used_once import UsedOnce
from portclaim.services.compute_agent.vdpa import vdpa_problems
from portclaim.services.compute_agent.vfs_by_demand import VfsByDemand

if TYPE_CHECKING:
    import oslo_messaging

LOG = logging.getLogger(__name__)

LEDGER = "steps.sqlite"


class ComputeAgent:
    """Reports the devices of one host, attaches and detaches them, and repairs what was interrupted.

    Its state is in ``<state_path>/<host>``. It takes steps only while the conductor accepts it as the agent
    of this host. So only one of two agents with the same host name works.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Check the configuration, start nothing. Raises :class:`InvalidConfiguration`."""
        self._conf = conf
        self._identity = Identity(Path(conf.state_path), conf.host)
        self._identity.check()
        self._driver = load_driver(conf.compute_agent.driver, conf, self._identity.path)
        self._tree = SysfsTree(conf.compute_agent.sysfs_root)
        self._scanner = Scanner(self._tree)
        self._cached_scanner = CachedScanner(self._scanner)
        self._specs = self._read_device_spec(conf)
        self._vfs_by_demand = VfsByDemand(self._scanner, self._driver.ports, conf.pci.device_spec)
        self._driver.make_lost_vfs(self._vfs_by_demand.make_again)
        self._out_of_reach: set[PciAddress] = set()
        self._last_reports = LastReports()
        self._lifecycle = threading.Lock()
        self._running = ExitStack()
        self._listening = threading.Lock()
        self._server: oslo_messaging.RPCServer | None = None
        self._ready = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Return when the conductor has accepted this host's inventory and the agent takes steps.

        While no conductor answers, this waits. :meth:`stop` ends the wait.
        """
        conf = self._conf
        with self._lifecycle, ExitStack() as opened:
            if self._stopping:
                return
            agent_id = self._identity.take()
            opened.callback(self._identity.give_back)
            self._driver.start()
            opened.callback(self._driver.stop)
            ledger = Ledger(self._identity.path / LEDGER)
            opened.callback(ledger.close)
            self._bus = transport(conf, makes_exchange=False)
            self._trust = HostTrust(conf, self._identity.path, self._wake)
            opened.callback(self._bus.cleanup)
            self._queue = StepQueue(lambda job: self._work(runner, job), conf.rpc.threads)
            guests = GuestWatch(self._queue.put)
            self._used_once = UsedOnce(self._identity.path, conf.host, self._driver.handed_over)
            opened.callback(self._used_once.close)
            runner = StepRunner(self._driver, self._scanner, ledger, guests, self._used_once)
            runner.providing = self._vfs_by_demand.providing
            self._repair = Repair(self._driver, self._scanner, ledger, self._queue.put)
            self._reporter = Reporter(
                ConductorLink(
                    ConductorClient(self._bus, conf, signer=self._trust, exchange=own_exchange(conf)),
                    conf.host,
                    agent_id,
                    self._trust,
                ),
                self._repair,
                self._take_inventory,
                self._own,
                conf.compute_agent.report_interval,
            )
            self._driver.follow(self._reporter.repair)
            opened.callback(self._reporter.end)
            opened.callback(self._queue.stop)
            opened.callback(self._own, False)
            self._reporter.start()
            # A thread of its own: such a write may take long, and reports must not wait for it.
            idle = Periodic("removal of idle VFs", self._remove_idle_vfs, conf.compute_agent.report_interval)
            opened.callback(idle.end)
            idle.start()
            self._driver.watch(guests.changed)
            self._watch(opened)
            self._running = opened.pop_all()
        self._ready.wait()

    def reload(self, conf: cfg.ConfigOpts) -> None:
        """Take device_spec, and report the host by it. What is probably a mistake is logged.

        A held device that no entry takes any more stays with its claim and is not offered again.
        """
        self._specs = self._read_device_spec(conf)
        self._driver.take_device_spec(conf.pci.device_spec)
        self._vfs_by_demand.take_device_spec(conf.pci.device_spec)
        if self._ready.is_set():
            self._warn(conf)
            self._reporter.wake()

    def _warn(self, conf: cfg.ConfigOpts) -> None:
        """Log what ``portclaim config check`` would say of the entries on this host."""
        # Seldom needed, and a megabyte.
        from portclaim.common.pci.config_check import PciOptions, check_options  # noqa: PLC0415

        scan = self._scanner.scan()
        options = PciOptions(conf.pci.device_spec, report_in_placement=conf.pci.report_in_placement)
        for finding in check_options(options, scan.devices, obstacles(self._tree, scan)):
            if finding.verdict != "ok":
                LOG.warning("%s: %s", finding.entry, "; ".join((finding.verdict, *finding.warnings)))

    def stop(self) -> None:
        """Take no more steps, finish those in hand, answer them, and return."""
        self._stopping = True
        self._ready.set()
        with self._lifecycle:
            self._running.close()

    def _read_device_spec(self, conf: cfg.ConfigOpts) -> DeviceSpecs:
        """Parse device_spec. A simulated host may not be built yet: then it has no PFs to look up."""
        is_there = (self._tree.root / PCI_DEVICES).is_dir()
        try:
            host = HostView.of(self._scanner.scan().devices) if is_there else HostView()
            return DeviceSpecs.parse(
                conf.pci.device_spec, host, report_in_placement=conf.pci.report_in_placement
            )
        except InvalidDeviceSpec as error:
            raise InvalidConfiguration(f"[pci] device_spec: {error}") from error
        except ScanError as error:
            raise InvalidConfiguration(f"[compute_agent] sysfs_root: {error}") from error

    def _take_inventory(self) -> Inventory:
        scan = self._cached_scanner.scan()
        problems = self._driver.problems()
        held_back = {
            **no_room(self._identity.path, [device.address for device in scan.devices]),
            **vdpa_problems(self._tree),
            **self._used_once.problems(scan.devices, self._specs),
            **self._repair.held_back(),
            **problems,
            **self._driver.stopped(scan),
        }
        cells = read_numa_cells(self._tree)
        completed = self._vfs_by_demand.completed(scan, held_back)
        inventory = take_inventory(
            completed.scan, self._specs, cells, completed.held_back, self._out_of_reach
        )
        if self._driver.sets_network:
            inventory = with_network_settings(inventory)
        return self._last_reports.complete(inventory, problems)

    def _watch(self, opened: ExitStack) -> None:
        """Report changes of a real host as they happen. Other trees send no events."""
        if self._tree.root != KERNELS_OWN:
            return
        try:
            watcher = Watcher(Uevents(), self._see)
        except (OSError, ImportError) as error:
            LOG.warning("changes of this host are reported only every report_interval: %s", error)
            return
        watcher.start()
        opened.callback(watcher.end)
        self._cached_scanner.is_watched = watcher.is_alive
        self._see(None)  # what changed before the watcher started

    def _see(self, changed: frozenset[PciAddress] | None) -> None:
        self._cached_scanner.invalidate(changed)
        self._driver.devices_changed(changed)
        self._reporter.wake()

    def _remove_idle_vfs(self) -> bool:
        changed = self._vfs_by_demand.remove_idle(self._conf.compute_agent.idle_vfs_removed_after)
        if changed:
            self._cached_scanner.invalidate(changed)
            self._reporter.wake()
        return False

    def _wake(self) -> None:
        self._reporter.wake()

    def _renew(self, address: PciAddress) -> bool:
        renewed = self._used_once.renew(address)
        self._reporter.wake()
        return renewed

    def _work(self, runner: StepRunner, job: Job) -> None:
        with observed(job.step, self._conf.host):
            ending = measured(job.step, lambda: runner.run(job))
            # Do not wait for the kernel's event: the inventory sent before the answer shows the change.
            self._cached_scanner.invalidate(PciAddress.parse(device.address) for device in job.step.devices)
            if ending is not None:
                self._reporter.answer(job.step, ending, is_awaited=not job.again)

    def _own(self, is_ours: bool) -> None:
        """Take steps, or stop taking them."""
        with self._listening:
            if not is_ours and self._server is not None:
                finish(self._server)
                self._server = None
                TAKES_STEPS.set(0)
            elif is_ours and self._server is None and not self._stopping:
                endpoint = ComputeAgentEndpoint(
                    self._queue, self._reporter.report, self._renew, self._repair.unknown_claims
                )
                topic = ComputeAgentClient.topic
                entrance = Entrance(gate=self._trust.gate(topic), is_shared=False)
                self._server = server(self._bus, topic, self._conf.host, endpoint, entrance)
                self._server.start(override_pool_size=self._conf.rpc.threads)
                TAKES_STEPS.set(1)
                self._ready.set()
