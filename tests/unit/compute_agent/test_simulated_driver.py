"""The simulated hypervisor has real effects, each once, even if it is killed in between."""

import itertools
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError, load_driver
from portclaim.services.compute_agent.drivers.simulated import FAULTS, GROUP, OPTIONS, RECORD, SimulatedDriver
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree

MakeStep = Callable[..., Step]
Restart = Callable[[], SimulatedDriver]
PF = "0000:01:00.0"
VF = "0000:01:10.0"


def effects(state_path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(state_path / RECORD)) as record:
        return record.execute("SELECT action, address FROM effects ORDER BY id").fetchall()


def devices(scanner: Scanner) -> set[str]:
    return {str(device.address) for device in scanner.scan().devices}


def driver_of(scanner: Scanner, address: str) -> str | None:
    device = scanner.look(PciAddress.parse(address))
    return None if device is None else device.driver


def detach_of(step: Step) -> Step:
    return step.model_copy(update={"step": step.step + 1, "action": "detach"})


def attach(driver: SimulatedDriver, step: Step) -> None:
    driver.prepare(step, step.devices[0])
    driver.attach(step, step.devices[0])


def detach(driver: SimulatedDriver, step: Step) -> None:
    driver.detach(step, step.devices[0])


def test_a_vf_is_attached_and_detached(
    driver: SimulatedDriver, scanner: Scanner, make_step: MakeStep, state_path: Path
) -> None:
    step = make_step("attach", VF)
    attach(driver, step)
    assert driver_of(scanner, VF) == "vfio-pci"
    assert driver.attachments() == [Attachment(PciAddress.parse(VF), step.instance_id, step.claim_id)]

    driver.detach(detach_of(step), step.devices[0])
    assert driver_of(scanner, VF) == "iavf"
    assert driver.attachments() == []
    assert effects(state_path) == [("prepare", VF), ("attach", VF), ("detach", VF)]


def test_attaching_a_pf_removes_its_vfs_and_detaching_restores_them(
    driver: SimulatedDriver, scanner: Scanner, make_step: MakeStep
) -> None:
    before = devices(scanner)
    step = make_step("attach", PF)
    attach(driver, step)
    assert before - devices(scanner) == {"0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"}

    driver.detach(detach_of(step), step.devices[0])
    assert devices(scanner) == before
    assert driver_of(scanner, PF) == "i40e"


def test_a_restored_pf_has_as_many_vfs_as_before(
    driver: SimulatedDriver, host: SimulatedTree, make_step: MakeStep
) -> None:
    pf = PciAddress.parse(PF)
    host.set_num_vfs(pf, 0)
    host.set_num_vfs(pf, 3)
    step = make_step("attach", PF)
    attach(driver, step)
    assert host.num_vfs(pf) == 0
    driver.detach(detach_of(step), step.devices[0])
    assert host.num_vfs(pf) == 3


def test_repeating_a_call_has_no_further_effect(
    driver: SimulatedDriver, make_step: MakeStep, state_path: Path
) -> None:
    step = make_step("attach", PF)
    for _ in range(3):
        attach(driver, step)
    for _ in range(3):
        driver.detach(detach_of(step), step.devices[0])
    assert effects(state_path) == [("prepare", PF), ("attach", PF), ("detach", PF)]


@pytest.mark.parametrize(("first", "second"), [(VF, VF), (PF, PF), (VF, PF)])
def test_a_device_of_another_claim_is_not_attached(
    driver: SimulatedDriver, make_step: MakeStep, first: str, second: str
) -> None:
    step, later = make_step("attach", first), make_step("attach", second)
    attach(driver, step)
    with pytest.raises(DriverError, match=f"{first} is already in instance {step.instance_id}"):
        attach(driver, later)
    assert [held.claim_id for held in driver.attachments()] == [step.claim_id]


def test_a_vf_whose_pf_is_in_a_guest_is_not_attached(driver: SimulatedDriver, make_step: MakeStep) -> None:
    whole, slice_ = make_step("attach", PF), make_step("attach", VF)
    attach(driver, whole)
    with pytest.raises(DriverError, match=f"{PF} is already in instance"):
        attach(driver, slice_)


def test_a_device_of_another_claim_is_not_detached(driver: SimulatedDriver, make_step: MakeStep) -> None:
    step = make_step("attach", VF)
    attach(driver, step)
    driver.detach(make_step("detach", VF), step.devices[0])
    assert len(driver.attachments()) == 1


class TestKilledHalfWay:
    """The record is written but the tree is not, as after SIGKILL between the two."""

    def test_an_interrupted_attach_is_finished_at_the_next_start(
        self,
        monkeypatch: pytest.MonkeyPatch,
        restart: Restart,
        scanner: Scanner,
        make_step: MakeStep,
    ) -> None:
        driver = restart()
        step = make_step("attach", PF)
        with monkeypatch.context() as killed:
            killed.setattr(SimulatedTree, "bind", _die)
            with pytest.raises(KeyboardInterrupt):
                attach(driver, step)
        assert VF in devices(scanner)

        driver = restart()
        assert driver_of(scanner, PF) == "vfio-pci"
        assert VF not in devices(scanner)
        assert effects(driver.state_path) == [("prepare", PF)]

    @pytest.mark.parametrize("at", ["bind", "set_num_vfs"])
    def test_an_interrupted_detach_is_finished_at_the_next_start(
        self,
        at: str,
        monkeypatch: pytest.MonkeyPatch,
        restart: Restart,
        scanner: Scanner,
        make_step: MakeStep,
    ) -> None:
        driver, before = restart(), devices(scanner)
        step = make_step("attach", PF)
        attach(driver, step)
        with monkeypatch.context() as killed:
            killed.setattr(SimulatedTree, at, _die)
            with pytest.raises(KeyboardInterrupt):
                driver.detach(detach_of(step), step.devices[0])
        assert VF not in devices(scanner)

        driver = restart()
        assert devices(scanner) == before
        assert effects(driver.state_path) == [("prepare", PF), ("attach", PF), ("detach", PF)]

    @pytest.mark.parametrize("doing", ["_link", "_write", "unplug"])
    def test_the_next_start_finishes_a_step_killed_at_any_moment(
        self,
        doing: str,
        monkeypatch: pytest.MonkeyPatch,
        restart: Restart,
        scanner: Scanner,
        make_step: MakeStep,
    ) -> None:
        driver, before = restart(), scanner.scan()
        for survived in range(30):
            step = make_step("attach", PF)
            for move in (attach, detach):
                with monkeypatch.context() as killed, suppress(KeyboardInterrupt):
                    killed.setattr(SimulatedTree, doing, _die_after(survived, getattr(SimulatedTree, doing)))
                    move(driver, step)
                driver = restart()
                assert (VF in devices(scanner)) is (move is detach)
            assert scanner.scan() == before

    def test_the_number_of_vfs_survives_an_attach_before_they_were_restored(
        self,
        driver: SimulatedDriver,
        monkeypatch: pytest.MonkeyPatch,
        scanner: Scanner,
        make_step: MakeStep,
    ) -> None:
        before = devices(scanner)
        first, second = make_step("attach", PF), make_step("attach", PF)
        attach(driver, first)
        with monkeypatch.context() as killed:
            killed.setattr(SimulatedTree, "set_num_vfs", _die)
            with pytest.raises(KeyboardInterrupt):
                driver.detach(detach_of(first), first.devices[0])
        attach(driver, second)
        driver.detach(detach_of(second), second.devices[0])
        assert devices(scanner) == before


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def _die_after(survived: int, do: Callable[..., object]) -> Callable[..., object]:
    left = itertools.count(survived, -1)
    return lambda *args, **kwargs: do(*args, **kwargs) if next(left) > 0 else _die()


class TestFaults:
    def test_a_matching_fault_fails_the_call_and_changes_nothing(
        self, driver: SimulatedDriver, make_step: MakeStep, state_path: Path
    ) -> None:
        step = make_step("attach", VF)
        fault = {"action": "attach", "instance_id": str(step.instance_id), "error": "no such instance"}
        (state_path / FAULTS).write_text(json.dumps([fault]))
        with pytest.raises(DriverError, match="no such instance"):
            attach(driver, step)
        assert driver.attachments() == []

    @pytest.mark.parametrize(
        "fault", [{"action": "detach"}, {"address": PF}, {"instance_id": str(uuid4())}, {"delay": 0}]
    )
    def test_a_fault_that_does_not_match_has_no_effect(
        self, driver: SimulatedDriver, make_step: MakeStep, state_path: Path, fault: dict[str, object]
    ) -> None:
        error = {} if "delay" in fault else {"error": "broken"}
        (state_path / FAULTS).write_text(json.dumps([fault | error]))
        step = make_step("attach", VF)
        attach(driver, step)
        assert len(driver.attachments()) == 1

    def test_a_malformed_file_of_faults_is_an_error(
        self, driver: SimulatedDriver, make_step: MakeStep, state_path: Path
    ) -> None:
        (state_path / FAULTS).write_text('[{"actoin": "attach"}]')
        step = make_step("attach", VF)
        with pytest.raises(DriverError, match="is not a list of faults"):
            attach(driver, step)


class TestStart:
    def test_a_missing_host_is_built_as_configured(self, conf: cfg.ConfigOpts, tmp_path: Path) -> None:
        conf.set_override("sysfs_root", str(tmp_path / "new/sys"), "compute_agent")
        conf.register_opts(OPTIONS, GROUP)
        conf.set_override("ports", 3, "simulated")
        conf.set_override("vfs_per_port", 5, "simulated")
        SimulatedDriver(conf, tmp_path).start()
        host = SimulatedTree(tmp_path / "new/sys")
        assert host.name == "node-1"
        assert [host.num_vfs(PciAddress.parse(f"0000:0{bus}:00.0")) for bus in (1, 2, 3)] == [5, 5, 5]
        for option in (
            "ports",
            "vfs_per_port",
        ):  # oslo.config stores overrides in the group, which all share
            conf.clear_override(option, "simulated")

    def test_a_real_host_is_never_touched(
        self, conf: cfg.ConfigOpts, state_path: Path, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        conf.set_override("sysfs_root", "/sys", "compute_agent")
        driver = SimulatedDriver(conf, state_path)
        driver.start()
        with pytest.raises(DriverError, match="does not touch real devices"):
            attach(driver, step)
        assert driver.attachments() == []

    def test_a_vanished_device_does_not_prevent_the_start(
        self,
        driver: SimulatedDriver,
        restart: Restart,
        host: SimulatedTree,
        make_step: MakeStep,
    ) -> None:
        step = make_step("attach", VF)
        attach(driver, step)
        host.unplug(PciAddress.parse(VF))
        assert len(restart().attachments()) == 1


def test_a_driver_is_found_by_its_entry_point(conf: cfg.ConfigOpts, state_path: Path) -> None:
    assert isinstance(load_driver("simulated", conf, state_path), SimulatedDriver)


def test_an_unknown_driver_is_refused_and_the_known_ones_are_listed(
    conf: cfg.ConfigOpts, state_path: Path
) -> None:
    with pytest.raises(InvalidConfiguration, match=r"'xen' is not installed: choose one of .*simulated"):
        load_driver("xen", conf, state_path)
