"""The device of a claim that its host has lost is shown with the reason, and published as an event."""

from tests.support.fleet import Fleet, Host, vf

WHY = f"{vf(0, 0)} is gone from this host: its PF 0000:81:00.0 has 0 VFs now"


def reason(fleet: Fleet, address: str) -> str | None:
    [(reason,)] = fleet.sql("SELECT reason FROM pf_vf_tree WHERE address = :address", address=address)
    return reason


def last_event(fleet: Fleet, address: str) -> tuple[str, str]:
    [event] = fleet.sql(
        "SELECT e.to_status, e.cause FROM device_events e JOIN pci_devices d ON d.id = e.device_id"
        " WHERE d.address = :address ORDER BY e.id DESC LIMIT 1",
        address=address,
    )
    return event[0], event[1]


def claimed_vf(fleet: Fleet) -> tuple[Host, str]:
    host = fleet.host("h1", vfs=1)
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    [device] = claim.devices
    assert reason(fleet, device.address) == f"held by instance {claim.instance_id}"
    return host, f"held by instance {claim.instance_id}"


def test_a_device_that_its_agent_misses_says_why(fleet: Fleet) -> None:
    host, held = claimed_vf(fleet)
    host.change(vf(0, 0), unusable_reason=WHY)
    host.report()
    assert fleet.status("h1")[vf(0, 0)] == "allocated"
    assert reason(fleet, vf(0, 0)) == f"{held}; {WHY}"
    assert last_event(fleet, vf(0, 0)) == ("unavailable", WHY)
    host.change(vf(0, 0), unusable_reason=None)
    host.report()
    assert reason(fleet, vf(0, 0)) == held
    assert last_event(fleet, vf(0, 0)) == ("available", "its host reports it as usable")


def test_a_device_that_its_agent_no_longer_reports_says_so(fleet: Fleet) -> None:
    host, held = claimed_vf(fleet)
    host.lose(vf(0, 0))
    host.report()
    assert fleet.status("h1")[vf(0, 0)] == "allocated"
    assert reason(fleet, vf(0, 0)) == f"{held}; its host does not report it now"
    assert last_event(fleet, vf(0, 0)) == ("unavailable", "its host does not report it now")


def test_it_is_not_given_away_when_its_claim_is_released(fleet: Fleet) -> None:
    host = fleet.host("h1", vfs=1)
    claim = fleet.attached(fleet.claim("nic-vf:1"))
    host.change(vf(0, 0), unusable_reason=WHY)
    host.report()
    fleet.release(claim)
    host.done(fleet.show(claim))
    assert fleet.show(claim).status == "released"
    assert (fleet.status("h1")[vf(0, 0)], reason(fleet, vf(0, 0))) == ("unavailable", WHY)
