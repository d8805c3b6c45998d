"""What a claim holds is compared with what the kernel shows.

The device is handed over again, or the claim's trouble is shown.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once

MakeStep = Callable[..., Step]
PATIENCE = 60.0
PF, VF, VF2, OTHER_PF = (
    PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:02:00.0")
)


class Host:
    """A simulated host, its kernel, and the agents' drivers on it, one after another."""

    def __init__(self, tree: SimulatedTree, conf: cfg.ConfigOpts, state_path: Path) -> None:
        self.tree = tree
        self.kernel = SimulatedKernel(tree)
        self.told: Queue[None] = Queue()
        self.driver: VfioDriver
        self._conf, self._state_path = conf, state_path

    def start(self) -> VfioDriver:
        """Start an agent's driver: the first, or one after a restart or a reboot."""
        self.driver = VfioDriver(self._conf, self._state_path)
        self.driver.start()
        self.driver.follow(lambda: self.told.put(None))
        return self.driver

    def hand_over(self, step: Step) -> None:
        for device in step.devices:
            self.driver.prepare(step, device)

    def make_vfs_again(self, count: int = 4) -> None:
        self.tree.set_num_vfs(PF, 0)
        self.tree.set_num_vfs(PF, count)

    def place(self, address: PciAddress) -> Path:
        return (self.tree.root / "bus/pci/devices" / str(address)).resolve()

    def swap_cards(self) -> None:
        """A reboot, after the cards of the two ports were plugged in the other way round."""
        for pf in (PF, OTHER_PF):
            self.tree.bind(pf, None)
            self.tree.bind(pf, self.tree.own_driver(pf))
        names = [next((self.place(pf) / "net").iterdir()) / "address" for pf in (PF, OTHER_PF)]
        for one, other in ([self.place(pf) / "vpd" for pf in (PF, OTHER_PF)], names):
            texts = one.read_bytes(), other.read_bytes()
            one.write_bytes(texts[1])
            other.write_bytes(texts[0])
        for pf in (PF, OTHER_PF):
            self.tree.set_num_vfs(pf, 4)


@pytest.fixture
def lab(
    host: SimulatedTree, conf: cfg.ConfigOpts, state_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    lab = Host(host, conf, state_path)
    module = "portclaim.services.compute_agent.drivers.real_host"
    monkeypatch.setattr(f"{module}.Kernel", lambda *_args: lab.kernel)
    monkeypatch.setattr(f"{module}.wait_until", at_once)
    lab.start()
    yield lab
    lab.driver.stop()


def lent(lab: Host) -> list[PciAddress]:
    return [held.address for held in lab.driver.attachments()]


class TestMadeAnew:
    """``modprobe -r`` and ``modprobe`` of the PF's driver, or 0 and a number written to ``sriov_numvfs``."""

    def test_a_vf_is_not_with_its_claim_when_the_host_has_it(self, lab: Host, make_step: MakeStep) -> None:
        step = make_step("attach", str(VF))
        lab.hand_over(step)
        assert lent(lab) == [VF]
        lab.make_vfs_again()
        assert lent(lab) == []
        assert [(held.address, held.claim_id) for held in lab.driver.handed_over()] == [(VF, step.claim_id)]
        assert lab.driver.problems()[VF] == (
            f"{VF} was taken from its claim: it is on iavf (claim {step.claim_id})"
        )

    def test_an_event_of_the_kernel_has_it_handed_over_again_and_told_twice(
        self, lab: Host, make_step: MakeStep
    ) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        lab.make_vfs_again()
        lab.kernel.calls.clear()
        lab.driver.devices_changed({VF})
        lab.told.get(timeout=PATIENCE)  # it is lost
        lab.told.get(timeout=PATIENCE)  # it is back
        assert (lent(lab), lab.driver.problems()) == ([VF], {})
        assert lab.kernel.calls == [f"bind_to_vfio {VF}", f"reset {VF}"]

    @pytest.mark.parametrize("named", [{PF}, None])
    def test_an_event_of_its_pf_or_lost_events_do_too(
        self, lab: Host, make_step: MakeStep, named: set[PciAddress] | None
    ) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        lab.make_vfs_again()
        lab.driver.devices_changed(named)
        for _ in range(2):
            lab.told.get(timeout=PATIENCE)
        assert lent(lab) == [VF]

    def test_an_event_of_another_device_asks_for_nothing(self, lab: Host, make_step: MakeStep) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        lab.driver.devices_changed({VF})
        lab.make_vfs_again()
        lab.driver.devices_changed({OTHER_PF})
        assert lab.told.empty()

    def test_one_that_a_bridge_has_taken_stays_there_and_says_so(
        self, lab: Host, make_step: MakeStep
    ) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        lab.make_vfs_again()
        net = lab.place(VF) / "net/eth9"
        net.mkdir(parents=True)
        (net / "upper_br0").symlink_to("/nowhere/br0")
        row = lab.driver.handover.find(VF)
        assert row is not None
        assert not lab.driver.handover._hand_over_again(row)
        assert lab.kernel.driver(VF) == "iavf"
        assert "was taken from its claim: it is on iavf" in lab.driver.problems()[VF]

    def test_what_libvirt_does_while_it_releases_a_device_is_no_loss(
        self, lab: Host, make_step: MakeStep
    ) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        with lab.driver.handover.in_hand(VF):
            lab.make_vfs_again()
            lab.driver.devices_changed({VF})
            assert (lab.told.empty(), lab.driver.problems()) == (True, {})
        lab.driver.devices_changed({VF})
        for _ in range(2):
            lab.told.get(timeout=PATIENCE)
        assert lent(lab) == [VF]

    def test_another_iommu_group_is_another_device(self, lab: Host, make_step: MakeStep) -> None:
        """A rule of udev has bound it to vfio-pci, but a guest would open the old group."""
        lab.hand_over(make_step("attach", str(VF)))
        row = lab.driver.handover.find(VF)
        assert row is not None
        lab.make_vfs_again()
        lab.tree.bind(VF, "vfio-pci")
        (lab.place(VF) / "iommu_group").unlink()
        (lab.place(VF) / "iommu_group").symlink_to("/sys/kernel/iommu_groups/7")
        successor = restarted(lab)
        assert (lent(lab), successor.handover.find(VF).iommu_group) == ([VF], 7)  # type: ignore[union-attr]
        assert row.iommu_group != 7


class TestGone:
    def test_a_vf_that_the_kernel_has_removed_says_why(self, lab: Host, make_step: MakeStep) -> None:
        step = make_step("attach", str(VF))
        lab.hand_over(step)
        lab.tree.set_num_vfs(PF, 0)
        lab.driver.devices_changed({VF})
        lab.told.get(timeout=PATIENCE)
        assert lab.driver.problems() == {
            VF: f"{VF} is gone from this host: its PF {PF} has 0 VFs now (claim {step.claim_id})"
        }

    def test_it_is_handed_over_as_soon_as_it_is_there_again(self, lab: Host, make_step: MakeStep) -> None:
        lab.hand_over(make_step("attach", str(VF)))
        lab.tree.set_num_vfs(PF, 0)
        lab.driver.devices_changed({VF})
        lab.told.get(timeout=PATIENCE)
        lab.tree.set_num_vfs(PF, 4)
        lab.driver.devices_changed({VF})
        while lent(lab) != [VF]:
            lab.told.get(timeout=PATIENCE)
        assert lab.driver.problems() == {}

    def test_a_device_of_no_claim_is_restored_as_soon_as_it_is_there_again(
        self, lab: Host, make_step: MakeStep
    ) -> None:
        """``echo 1 > remove`` of a lent PF, its claim is released, and the bus is scanned again."""
        path = lab.place(PF).relative_to(lab.tree.root).parent
        step = make_step("attach", str(PF))
        lab.hand_over(step)
        lab.tree.unplug(PF)
        lab.driver.detach(step, step.devices[0])
        assert f"{PF} is gone from this host" in lab.driver.problems()[PF]
        lab.tree.add_port(path, PF, 4)
        lab.driver.devices_changed({PF})
        lab.told.get(timeout=PATIENCE)
        assert (lab.tree.num_vfs(PF), lab.driver.handover.handed_over()) == (4, [])
        assert lab.driver.problems() == {}


class TestReboot:
    def test_the_vfs_come_after_the_agent(self, lab: Host, make_step: MakeStep) -> None:
        """A claimed VF is bound to vfio-pci when it comes, also while no conductor answers."""
        lab.hand_over(make_step("attach", str(VF)))
        lab.tree.set_num_vfs(PF, 0)
        successor = restarted(lab)
        assert VF in successor.problems()
        lab.tree.set_num_vfs(PF, 4)
        successor.devices_changed({VF})
        while lent(lab) != [VF]:
            lab.told.get(timeout=PATIENCE)
        assert lab.kernel.driver(VF2) == "iavf"

    def test_another_card_at_the_address_is_not_handed_over(self, lab: Host, make_step: MakeStep) -> None:
        step = make_step("attach", str(VF))
        lab.hand_over(step)
        serial = Scanner(SysfsTree(lab.tree.root)).look(PF).serial  # type: ignore[union-attr]
        lab.swap_cards()
        successor = restarted(lab)
        assert (lab.kernel.driver(VF), lent(lab)) == ("iavf", [])
        assert f"{VF} is on another card than when it was handed over: {PF} has" in successor.problems()[VF]
        assert f"and had serial number {serial}" in successor.problems()[VF]
        with pytest.raises(DriverError, match="is on another card"):
            successor.prepare(step, step.devices[0])
        successor.detach(step, step.devices[0])
        assert (successor.handover.handed_over(), lab.kernel.driver(VF)) == ([], "iavf")

    def test_the_card_at_its_new_address_is_not_given_away(self, lab: Host, make_step: MakeStep) -> None:
        step = make_step("attach", str(VF))
        lab.hand_over(step)
        lab.swap_cards()
        problems = restarted(lab).problems()
        moved = {str(address) for address in problems} - {str(VF)}
        assert moved == {str(OTHER_PF), "0000:02:10.0", "0000:02:10.2", "0000:02:10.4", "0000:02:10.6"}
        assert problems[OTHER_PF] == (
            f"its card was at {PF} when {VF} was handed over to claim {step.claim_id}, which has not ended: "
            "release that claim first"
        )
        lab.driver.detach(step, step.devices[0])
        assert lab.driver.problems() == {}

    def test_a_record_of_release_0_2_0_does_not_know_the_card(
        self, lab: Host, make_step: MakeStep, state_path: Path
    ) -> None:
        step = make_step("attach", str(VF))
        lab.hand_over(step)
        lab.driver.stop()
        with sqlite3.connect(state_path / "handover.sqlite") as sql:
            for column in ("iommu_group", "serial", "mac"):
                sql.execute(f"ALTER TABLE handed_over DROP COLUMN {column}")
        lab.start()
        assert (lent(lab), lab.driver.problems()) == ([VF], {})


def restarted(lab: Host) -> VfioDriver:
    """The driver of the next agent."""
    lab.driver.stop()
    return lab.start()
