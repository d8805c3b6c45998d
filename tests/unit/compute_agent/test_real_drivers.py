"""The drivers of real hosts refuse bad options before they touch a device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.services.compute_agent.drivers import libvirt
from portclaim.services.compute_agent.drivers.base import load_driver
from portclaim.services.compute_agent.drivers.libvirt import LibvirtDriver
from portclaim.services.compute_agent.drivers.real_host import GROUP, OPTIONS
from portclaim.services.compute_agent.drivers.vfio import VfioDriver


def test_vfio_is_found_by_its_name(conf: cfg.ConfigOpts, state_path: Path) -> None:
    assert isinstance(load_driver("vfio", conf, state_path), VfioDriver)
    assert list(state_path.iterdir()) == []


@pytest.fixture
def relative_hook(conf: cfg.ConfigOpts) -> Iterator[None]:
    conf.register_opts(OPTIONS, GROUP)
    conf.set_override("hook", "port-is-back", "handover")
    yield
    conf.clear_override(
        "hook", "handover"
    )  # oslo.config stores the override in the group, which all tests share


@pytest.mark.usefixtures("relative_hook")
def test_a_hook_needs_an_absolute_path(conf: cfg.ConfigOpts, state_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="hook must be an absolute path, not 'port-is-back'"):
        VfioDriver(conf, state_path)


def test_the_libvirt_driver_without_libvirt_python_says_where_to_get_it(
    conf: cfg.ConfigOpts, state_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt, "libvirt", None)
    with pytest.raises(InvalidConfiguration, match=r"needs libvirt-python: install portclaim\[libvirt\]"):
        LibvirtDriver(conf, state_path)
