"""Network settings from an API layer's claim to the card, and back. The fleet is outside the emulator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.errors import ClaimRefused
from tests.hardware.conftest import PORT, VF, driver_of, run, vfs_of
from tests.hardware.test_fleet import Fleet, agent, fleet, host
from tests.hardware.test_fleet import conf as conf_without
from tests.hardware.test_vf_settings import ASKED, PF_NETDEV, shown
from tests.support.services import as_ini

__all__ = ["agent", "conf_without", "fleet", "host"]  # fixtures


@pytest.fixture
def conf(
    conf_without: cfg.ConfigOpts, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[cfg.ConfigOpts]:
    file = tmp_path / "network.conf"
    file.write_text(as_ini({"handover": {"network_settings": getattr(request, "param", True)}}))
    run("ip", "link", "set", PF_NETDEV, "up")
    first = str(tmp_path / "portclaim.conf")
    yield config.load(["--config-file", first, "--config-file", str(file)], "test")
    run("ip", "link", "set", PF_NETDEV, "down")  # with all of its routes, also advertised ones


def settings_of(fleet: Fleet, **settings: Any) -> str:
    """What the card shows of the VF of a claim that asks for these settings, until it is released."""
    claim = fleet.wait_for(
        fleet.claim("nic-vf", network_settings=[settings] if settings else []), "allocated"
    )
    number = vfs_of(PORT).index(claim.devices[0].address)
    while_lent = shown(number)
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    return while_lent


@pytest.mark.usefixtures("agent")
def test_a_claims_settings_reach_the_card_and_nothing_of_them_the_next_tenant(fleet: Fleet) -> None:
    assert settings_of(fleet, **ASKED).startswith("link/ether 52:54:00:00:00:01")
    for number in range(len(vfs_of(PORT))):
        assert "52:54:00:00:00:01" not in shown(number)
    next_one = settings_of(fleet)
    assert "vlan" not in next_one
    assert "spoof checking on" in next_one
    assert "trust off" in next_one
    assert driver_of(VF) == "igbvf"


@pytest.mark.usefixtures("agent")
def test_what_the_card_cannot_do_fails_the_claim_with_the_reason(fleet: Fleet) -> None:
    before = shown()
    failed = fleet.wait_for(
        fleet.claim("nic-vf", network_settings=[{"link_state": "disable", "trust": True}]), "failed"
    )
    assert "link_state disable: Operation not supported" in str(failed.reason)
    assert "trust" not in str(failed.reason)
    assert (shown(), driver_of(VF)) == (before, "igbvf")
    assert set(fleet.status(PORT).values()) == {"available"}


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("conf", [False], indirect=True)
def test_where_it_is_switched_off_such_a_claim_is_refused(fleet: Fleet) -> None:
    with pytest.raises(ClaimRefused, match="network_settings"):
        fleet.claim("nic-vf", network_settings=[{"mac": ASKED["mac"]}])
    assert json.dumps(fleet.status(PORT)).count("available") == 1 + len(vfs_of(PORT))
