"""A device of ``one_time_use`` that was used waits until it is renewed, with its PF or its VFs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.host import HostView
from portclaim.services.compute_agent.drivers.base import Attachment
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.used_once import UsedOnce

PF, VF, VF2, CARD = (
    PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:03:00.0")
)
OTHER_VFS = [VF2, PciAddress.parse("0000:01:10.4"), PciAddress.parse("0000:01:10.6")]
CLAIM = uuid4()

Problems = Callable[..., dict[PciAddress, str]]


@pytest.fixture
def holders() -> list[Attachment]:
    return []


@pytest.fixture
def used(state_path: Path, holders: list[Attachment]) -> Iterator[UsedOnce]:
    used = UsedOnce(state_path, "h1", lambda: holders)
    yield used
    used.close()


@pytest.fixture
def problems(used: UsedOnce, scanner: Scanner) -> Problems:
    """What is wrong on the host, whose entries are these (default: the card and the first port)."""

    def problems(*entries: dict[str, object]) -> dict[PciAddress, str]:
        devices = scanner.scan().devices
        entries = entries or ({"address": str(CARD)}, {"address": str(PF)})
        texts = [json.dumps({"one_time_use": "yes", **entry}) for entry in entries]
        specs = DeviceSpecs.parse(texts, HostView.of(devices), report_in_placement=True)
        return dict(used.problems(devices, specs))

    return problems


def use(used: UsedOnce, address: PciAddress) -> None:
    with used.preparing(CLAIM, address):
        pass


def test_a_device_is_used_from_the_moment_at_which_it_is_prepared(used: UsedOnce, problems: Problems) -> None:
    assert problems() == {}
    use(used, CARD)
    use(used, CARD)
    assert problems() == {CARD: f"used once: portclaim host renew h1 --device {CARD}"}
    assert used.renew(CARD)
    assert problems() == {}
    assert not used.renew(CARD)


def test_the_vfs_of_a_used_pf_are_used(used: UsedOnce, problems: Problems) -> None:
    problems()
    use(used, PF)
    reason = f"used once (its PF {PF}): portclaim host renew h1 --device {PF}"
    assert problems() == {
        PF: f"used once: portclaim host renew h1 --device {PF}",
        **dict.fromkeys((VF, *OTHER_VFS), reason),
    }


def test_the_pf_of_a_used_vf_is_used_and_the_other_vfs_are_not(used: UsedOnce, problems: Problems) -> None:
    problems()
    use(used, VF)
    assert problems() == {
        PF: f"used once (its VF {VF}): portclaim host renew h1 --device {VF}",
        VF: f"used once: portclaim host renew h1 --device {VF}",
    }


def test_a_device_whose_preparation_fails_was_not_used(used: UsedOnce, problems: Problems) -> None:
    problems()
    with pytest.raises(OSError, match="broken"), used.preparing(CLAIM, CARD):
        raise OSError("broken")
    assert problems() == {}
    use(used, CARD)
    with pytest.raises(OSError, match="broken"), used.preparing(CLAIM, CARD):
        raise OSError("broken")
    assert list(problems()) == [CARD]


def test_other_devices_are_never_used(used: UsedOnce, problems: Problems) -> None:
    entry = {"address": str(CARD), "one_time_use": "no"}
    problems(entry)
    use(used, CARD)
    assert problems(entry) == problems() == {}


def test_an_entry_that_no_longer_says_so_frees_its_devices(used: UsedOnce, problems: Problems) -> None:
    problems()
    use(used, CARD)
    assert problems({"address": str(CARD), "one_time_use": "no"}) == {}
    assert list(problems()) == [CARD]


def test_a_device_is_not_renewed_while_a_claim_has_it(
    used: UsedOnce, problems: Problems, holders: list[Attachment]
) -> None:
    problems()
    use(used, CARD)
    holders.append(Attachment(CARD, uuid4(), CLAIM))
    with pytest.raises(InvalidRequest, match="release its claim first"):
        used.renew(CARD)
    holders.clear()
    assert used.renew(CARD)


def test_the_record_survives_the_agent(
    used: UsedOnce, problems: Problems, state_path: Path, scanner: Scanner
) -> None:
    problems()
    use(used, CARD)
    again = UsedOnce(state_path, "h1", list)
    devices = scanner.scan().devices
    spec = json.dumps({"address": str(CARD), "one_time_use": "yes"})
    specs = DeviceSpecs.parse([spec], report_in_placement=True)
    assert list(again.problems(devices, specs)) == [CARD]
    again.close()
