"""An agent that is killed in the middle of its work."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from portclaim.common import config
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import libvirt, real_host
from portclaim.services.compute_agent.drivers.base import InstanceNotFound, load_driver
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.network_record import NetworkRecord
from portclaim.services.compute_agent.vf_link import VfLinks
from tests.hardware.guests import PATIENCE

# From a process without threads, each of which may hold a lock that the new process would wait for.
_CLEAN = multiprocessing.get_context("forkserver")
_CLEAN.set_forkserver_preload([__name__])


def dies_at(
    nth: int, driver: str, state_path: Path, step: Step, options: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    """Have a process attach and detach, killed before its nth write to sysfs, to rtnetlink or to the record
    of network settings, or order to libvirt.

    Was there one? ``options`` are of the section [handover].
    """
    arguments = nth, driver, state_path, step, dict(options)
    process = _CLEAN.Process(target=_attach_and_detach, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def _attach_and_detach(nth: int, name: str, state_path: Path, step: Step, options: Mapping[str, Any]) -> None:
    count = 0

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*arguments)

        return call

    points: list[tuple[Any, str]] = [(Kernel, "_write"), (VfLinks, "write")]
    points += [(NetworkRecord, "note"), (NetworkRecord, "forget")]
    if libvirt.libvirt is not None:
        points += [(libvirt.libvirt.virDomain, f"{order}DeviceFlags") for order in ("attach", "detach")]
    for owner, attribute in points:
        setattr(owner, attribute, dying(getattr(owner, attribute)))
    conf = config.load([], "test")
    conf.register_opts(libvirt.OPTIONS, libvirt.GROUP)
    for option in ("timeout", "detach_timeout"):
        conf.set_override(option, PATIENCE, "libvirt")
    conf.register_opts(real_host.OPTIONS, real_host.GROUP)
    for option, value in options.items():
        conf.set_override(option, value, "handover")
    driver = load_driver(name, conf, state_path)
    driver.start()
    for device in step.devices:
        driver.prepare(step, device)
    with suppress(InstanceNotFound):
        for device in step.devices:
            driver.attach(step, device)
    for device in step.devices:
        driver.detach(step, device)
    driver.stop()
