"""A device is handed over only if it may leave the host, and it is restored as it was."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.host import HostView
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.restore import Hook, Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.used_once import UsedOnce
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once, settings_of, share_group

MakeStep = Callable[..., Step]
Build = Callable[..., Handover]
PF, VF, VF2, OTHER_PF = (
    PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:02:00.0")
)


@pytest.fixture
def kernel(host: SimulatedTree) -> SimulatedKernel:
    return SimulatedKernel(host)


@pytest.fixture
def build(host: SimulatedTree, scanner: Scanner, kernel: SimulatedKernel, state_path: Path) -> Build:
    """Makes the Handover of an agent that has just started, for the first time or after it was killed."""

    def build(device_spec: list[str] | None = None, hook: Hook | None = None) -> Handover:
        restorer = Restorer(kernel, scanner, device_spec or [], hook, 1.0, at_once)
        network = settings_of(host, scanner, restorer, enabled=False)
        handover = Handover(SysfsTree(host.root), scanner, kernel, restorer, network)
        handover.start(state_path)
        return handover

    return build


@pytest.fixture
def handover(build: Build) -> Handover:
    return build()


def held(handover: Handover) -> list[Attachment]:
    """The devices that claims have, as a driver tells."""
    return [
        Attachment(row.address, row.instance_id, row.claim_id)
        for row in handover.handed_over()
        if row.instance_id is not None
    ]


def place(host: SimulatedTree, address: PciAddress) -> Path:
    return (host.root / "bus/pci/devices" / str(address)).resolve()


def driver_of(scanner: Scanner, address: PciAddress) -> str | None:
    device = scanner.look(address)
    return None if device is None else device.driver


class TestHandOver:
    def test_a_vf_is_bound_to_vfio_and_reset(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        assert kernel.calls == [f"bind_to_vfio {VF}", f"reset {VF}"]

    def test_a_pf_loses_its_vfs_first_because_not_every_driver_removes_them(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        handover.hand_over(make_step("attach", str(PF)), PF)
        assert kernel.calls == [f"set_num_vfs 0 {PF}", f"bind_to_vfio {PF}", f"reset {PF}"]

    def test_a_repeated_step_does_not_touch_a_device_that_a_guest_has_open(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        step = make_step("attach", str(VF))
        handover.hand_over(step, VF)
        kernel.opened.add(VF)
        kernel.calls.clear()
        handover.hand_over(step, VF)
        assert kernel.calls == []

    def test_one_instance_can_get_all_devices_of_an_iommu_group(
        self, handover: Handover, host: SimulatedTree, scanner: Scanner, make_step: MakeStep
    ) -> None:
        share_group(host, VF, VF2)
        handover.hand_over(make_step("attach", str(VF), str(VF2)), VF)
        assert [driver_of(scanner, each) for each in (VF, VF2)] == ["vfio-pci", "vfio-pci"]


class TestDevicesThatTheOperatorBinds:
    """``managed: no``: the operator has bound the device to vfio-pci or a variant of it. It stays so."""

    @pytest.fixture
    def handover(self, build: Build) -> Handover:
        return build([json.dumps({"address": str(VF), "managed": "no"})])

    def test_it_is_refused_on_any_other_driver(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        with pytest.raises(
            DriverError, match=r"is on iavf, .* managed: no: bind it to vfio-pci or a variant"
        ):
            handover.hand_over(make_step("attach", str(VF)), VF)
        assert (kernel.calls, handover.handed_over()) == ([], [])
        handover.hand_over(make_step("attach", str(VF2)), VF2)  # of no such entry

    def test_it_stays_on_vfio_pci_when_it_is_taken_back(
        self, handover: Handover, host: SimulatedTree, scanner: Scanner, make_step: MakeStep
    ) -> None:
        host.bind(VF, "vfio-pci")
        handover.hand_over(make_step("attach", str(VF)), VF)
        handover.take_back(VF)
        assert (driver_of(scanner, VF), handover.handed_over()) == ("vfio-pci", [])

    def test_a_variant_of_vfio_pci_is_kept(
        self,
        handover: Handover,
        host: SimulatedTree,
        scanner: Scanner,
        kernel: SimulatedKernel,
        make_step: MakeStep,
    ) -> None:
        host.bind(VF, "mlx5_vfio_pci")
        (place(host, VF) / "vfio-dev" / "vfio3").mkdir(parents=True)
        handover.hand_over(make_step("attach", str(VF)), VF)
        handover.take_back(VF)
        assert driver_of(scanner, VF) == "mlx5_vfio_pci"
        assert kernel.calls == [f"reset {VF}"]


class TestRefusedHandOver:
    @pytest.fixture
    def refused(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> Callable[[PciAddress, str], None]:
        """Checks that a hand-over is refused, and that the agent did nothing and recorded nothing."""

        def refused(address: PciAddress, why: str) -> None:
            kernel.calls.clear()
            before = handover.handed_over()
            with pytest.raises(DriverError, match=why):
                handover.hand_over(make_step("attach", str(address)), address)
            assert kernel.calls == []
            assert handover.handed_over() == before

        return refused

    def test_a_device_of_another_claim_is_refused(
        self, handover: Handover, make_step: MakeStep, refused: Callable[[PciAddress, str], None]
    ) -> None:
        step = make_step("attach", str(VF))
        handover.hand_over(step, VF)
        refused(VF, f"{VF} is already in instance {step.instance_id}")

    def test_a_pf_is_refused_while_a_guest_has_one_of_its_vfs(
        self, handover: Handover, make_step: MakeStep, refused: Callable[[PciAddress, str], None]
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        refused(PF, f"{VF} is already in instance")

    def test_a_device_that_a_process_of_the_host_has_open_is_refused(
        self, kernel: SimulatedKernel, refused: Callable[[PciAddress, str], None]
    ) -> None:
        kernel.opened.add(VF)
        refused(VF, f"{VF} is open in a process")
        refused(PF, f"{VF} is open in a process")

    @pytest.mark.parametrize("whose", [PF, VF])
    def test_a_pf_is_refused_while_a_bridge_uses_it_or_one_of_its_vfs(
        self, host: SimulatedTree, refused: Callable[[PciAddress, str], None], whose: PciAddress
    ) -> None:
        net = place(host, whose) / "net/eth9"
        net.mkdir(parents=True)
        (net / "upper_br0").symlink_to("/nowhere/br0")
        refused(PF, f"{whose} is used by this host: br0 is built on eth9")

    def test_what_a_bridge_uses_is_not_offered_until_it_does_not(
        self,
        host: SimulatedTree,
        handover: Handover,
        make_step: MakeStep,
        refused: Callable[[PciAddress, str], None],
    ) -> None:
        """A network manager took the VF between two claims. Only the first claim after that fails."""
        net = place(host, VF) / "net/eth9"
        net.mkdir(parents=True)
        (net / "upper_br0").symlink_to("/nowhere/br0")
        refused(VF, "br0 is built on eth9")
        refused(PF, "br0 is built on eth9")
        why = f"{VF} is used by this host: br0 is built on eth9"
        assert handover.problems() == {VF: why, PF: why}
        (net / "upper_br0").unlink()
        assert handover.problems() == {}
        handover.hand_over(make_step("attach", str(VF)), VF)

    def test_a_pf_with_the_default_route_is_refused(
        self,
        host: SimulatedTree,
        refused: Callable[[PciAddress, str], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (place(host, PF) / "net/enp1s0f0/ifindex").write_text("7\n")
        monkeypatch.setattr(
            "portclaim.services.compute_agent.handover_check.default_route_interfaces", lambda: frozenset({7})
        )
        refused(PF, "enp1s0f0 has the default route")

    def test_a_device_that_shares_its_iommu_group_with_the_host_is_refused(
        self, host: SimulatedTree, refused: Callable[[PciAddress, str], None]
    ) -> None:
        share_group(host, VF, VF2)
        refused(VF, f"{VF} shares its IOMMU group with {VF2}, which this host uses with driver iavf")

    def test_a_device_that_shares_its_iommu_group_with_another_instance_is_refused(
        self,
        host: SimulatedTree,
        handover: Handover,
        make_step: MakeStep,
        refused: Callable[[PciAddress, str], None],
    ) -> None:
        handover.hand_over(make_step("attach", str(VF2)), VF2)
        share_group(host, VF, VF2)
        refused(VF, "which is in another instance")

    def test_a_device_without_an_iommu_group_is_refused(
        self, host: SimulatedTree, refused: Callable[[PciAddress, str], None]
    ) -> None:
        (place(host, VF) / "iommu_group").unlink()
        refused(VF, f"{VF} is in no IOMMU group")


class TestRestore:
    def test_a_restored_pf_has_its_driver_and_as_many_vfs_as_before(
        self, handover: Handover, host: SimulatedTree, scanner: Scanner, make_step: MakeStep
    ) -> None:
        host.set_num_vfs(PF, 0)
        host.set_num_vfs(PF, 3)
        before = scanner.scan()
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert scanner.scan() == before
        assert handover.handed_over() == []

    def test_a_restored_pf_has_as_many_vfs_as_device_spec_asks_for(
        self, build: Build, scanner: Scanner, make_step: MakeStep
    ) -> None:
        handover = build([json.dumps({"address": str(PF), "num_vfs": 2})])
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert len(scanner.vfs(PF)) == 2

    def test_a_restored_pf_has_no_more_vfs_than_it_can_have(
        self, build: Build, scanner: Scanner, make_step: MakeStep, caplog: pytest.LogCaptureFixture
    ) -> None:
        handover = build([json.dumps({"address": str(PF), "num_vfs": 64})])
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert (len(scanner.vfs(PF)), handover.problems()) == (4, {})
        assert f"{PF} can have 4 VFs, and 64 are wanted" in caplog.text

    def test_a_device_that_was_bound_to_vfio_before_stays_bound_to_it(
        self, handover: Handover, host: SimulatedTree, scanner: Scanner, make_step: MakeStep
    ) -> None:
        host.bind(VF, "vfio-pci")
        (place(host, VF) / "driver_override").write_text("vfio-pci\n")
        handover.hand_over(make_step("attach", str(VF)), VF)
        handover.take_back(VF)
        assert driver_of(scanner, VF) == "vfio-pci"

    def test_a_device_that_a_guest_has_open_is_not_restored(
        self, handover: Handover, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep
    ) -> None:
        step = make_step("attach", str(VF))
        handover.hand_over(step, VF)
        kernel.opened.add(VF)
        with pytest.raises(DriverError, match="still open in a guest"):
            handover.take_back(VF)
        assert [row.claim_id for row in handover.handed_over()] == [step.claim_id]
        assert driver_of(scanner, VF) == "vfio-pci"

    def test_missing_vfs_are_reported_as_a_problem_and_restored_by_the_next_attempt(
        self, build: Build, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep
    ) -> None:
        handover = build()
        handover.hand_over(make_step("attach", str(PF)), PF)
        kernel.keeps_no_vfs = True
        handover.take_back(PF)
        assert handover.problems() == {
            PF: f"not restored after its guest released it: {PF} shows 0 of its 4 VFs after 1 s"
        }
        kernel.keeps_no_vfs = False
        handover.take_back(PF)
        assert handover.problems() == {}
        assert len(scanner.vfs(PF)) == 4

    def test_handing_over_a_pf_drops_the_unfinished_restore_of_its_vfs(
        self, handover: Handover, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        kernel.broken.add("return_to_driver")
        handover.take_back(VF)
        kernel.broken.clear()
        handover.hand_over(make_step("attach", str(PF)), PF)
        assert [row.address for row in handover.handed_over()] == [PF]

    def test_a_vf_that_no_longer_exists_needs_no_restore(
        self, handover: Handover, host: SimulatedTree, make_step: MakeStep
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        host.set_num_vfs(PF, 0)
        handover.take_back(VF)
        assert (handover.handed_over(), handover.problems()) == ([], {})

    def test_a_device_that_was_not_handed_over_is_not_restored(
        self, handover: Handover, kernel: SimulatedKernel
    ) -> None:
        handover.take_back(VF)
        assert kernel.calls == []


class TestDriverOverride:
    """A device returns to the driver that it had, whatever ``driver_override`` says."""

    @pytest.mark.parametrize("address", [PF, VF])
    def test_what_a_tool_left_behind_is_told_and_cleared(  # noqa: PLR0917 - fixtures
        self,
        handover: Handover,
        host: SimulatedTree,
        kernel: SimulatedKernel,
        scanner: Scanner,
        make_step: MakeStep,
        caplog: pytest.LogCaptureFixture,
        address: PciAddress,
    ) -> None:
        before = scanner.scan()
        (place(host, address) / "driver_override").write_text("vfio-pci\n")
        for _ in range(2):
            handover.hand_over(make_step("attach", str(address)), address)
            handover.take_back(address)
        assert (scanner.scan(), kernel.override(address), handover.problems()) == (before, None, {})
        told = [
            record.message for record in caplog.records if "has driver_override vfio-pci" in record.message
        ]
        assert len(told) == 1

    def test_a_record_of_an_earlier_release_with_such_an_override_is_no_trap(
        self, build: Build, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep, state_path: Path
    ) -> None:
        handover = build()
        handover.hand_over(make_step("attach", str(VF)), VF)
        with sqlite3.connect(state_path / "handover.sqlite") as sql:
            sql.execute("UPDATE handed_over SET override = 'vfio-pci'")
        handover.take_back(VF)
        assert (driver_of(scanner, VF), kernel.override(VF), handover.problems()) == ("iavf", None, {})

    def test_an_override_that_names_the_driver_is_restored(
        self, handover: Handover, host: SimulatedTree, kernel: SimulatedKernel, make_step: MakeStep
    ) -> None:
        (place(host, VF) / "driver_override").write_text("iavf\n")
        handover.hand_over(make_step("attach", str(VF)), VF)
        handover.take_back(VF)
        assert kernel.override(VF) == "iavf"

    def test_a_driver_that_the_kernel_would_not_choose_is_asked_for_by_name(
        self, handover: Handover, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep
    ) -> None:
        kernel.prefers = "igbvf"
        handover.hand_over(make_step("attach", str(VF)), VF)
        handover.take_back(VF)
        assert (driver_of(scanner, VF), kernel.override(VF)) == ("iavf", None)

    def test_the_driver_of_libvirt_or_an_operator_is_not_kept_if_the_device_had_another(
        self, handover: Handover, host: SimulatedTree, scanner: Scanner, make_step: MakeStep
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        host.bind(VF, "igbvf")
        handover.take_back(VF)
        assert driver_of(scanner, VF) == "iavf"

    def test_a_driver_that_is_not_loaded_is_named_and_what_the_operator_chooses_instead_is_taken(
        self,
        handover: Handover,
        host: SimulatedTree,
        kernel: SimulatedKernel,
        scanner: Scanner,
        make_step: MakeStep,
    ) -> None:
        handover.hand_over(make_step("attach", str(VF)), VF)
        shutil.rmtree(host.root / "bus/pci/drivers/iavf")
        handover.take_back(VF)
        assert f"{VF} cannot return to its driver iavf: load that module" in handover.problems()[VF]
        (place(host, VF) / "driver_override").write_text("other\n")
        (host.root / "bus/pci/drivers/other").mkdir()
        handover.take_back(VF)
        assert (driver_of(scanner, VF), kernel.override(VF), handover.problems()) == ("other", "other", {})

    def test_what_another_hand_has_bound_meanwhile_is_not_unbound(
        self, host: SimulatedTree, kernel: SimulatedKernel, scanner: Scanner
    ) -> None:
        """Between the look and the write, libvirt has bound the device for a guest that starts."""
        write = kernel._write

        def late(address: PciAddress, path: str, text: str) -> None:
            if path.endswith("iavf/unbind"):
                host.bind(address, "vfio-pci")
            write(address, path, text)

        kernel._write = late  # type: ignore[method-assign]
        kernel.bind_to_vfio(VF)
        assert driver_of(scanner, VF) == "vfio-pci"


class TestRestart:
    @pytest.mark.parametrize("broken", ["set_num_vfs", "bind_to_vfio", "reset"])
    def test_an_interrupted_hand_over_is_finished_after_a_restart(
        self, build: Build, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep, broken: str
    ) -> None:
        step = make_step("attach", str(PF))
        kernel.broken.add(broken)
        with pytest.raises(DriverError, match="broken"):
            build().hand_over(step, PF)
        kernel.broken.clear()
        successor = build()
        assert driver_of(scanner, PF) == "vfio-pci"
        assert [row.claim_id for row in successor.handed_over()] == [step.claim_id]

    @pytest.mark.parametrize("broken", ["return_to_driver", "set_num_vfs"])
    def test_an_interrupted_restore_is_finished_after_a_restart(
        self, build: Build, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep, broken: str
    ) -> None:
        before = scanner.scan()
        predecessor = build()
        predecessor.hand_over(make_step("attach", str(PF)), PF)
        kernel.broken.add(broken)
        predecessor.take_back(PF)
        assert PF in predecessor.problems()
        kernel.broken.clear()
        assert build().handed_over() == []
        assert scanner.scan() == before

    def test_the_number_of_vfs_survives_a_claim_made_before_they_were_restored(
        self, build: Build, kernel: SimulatedKernel, scanner: Scanner, make_step: MakeStep
    ) -> None:
        handover = build()
        handover.hand_over(make_step("attach", str(PF)), PF)
        kernel.keeps_no_vfs = True
        handover.take_back(PF)
        kernel.keeps_no_vfs = False
        handover.hand_over(make_step("attach", str(PF), instance_id=uuid4()), PF)
        assert handover.problems() == {}
        handover.take_back(PF)
        assert len(scanner.vfs(PF)) == 4


class TestHook:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Callable[[str], Path]:
        def program(body: str) -> Path:
            file = tmp_path / "hook"
            file.write_text(f"#!/bin/sh\n{body}\n")
            file.chmod(0o755)
            return file

        return program

    def test_the_hook_learns_which_port_was_restored(
        self, build: Build, make_step: MakeStep, tmp_path: Path, program: Callable[[str], Path]
    ) -> None:
        told = tmp_path / "told"
        file = program(f'echo "$PORTCLAIM_ADDRESS $PORTCLAIM_NUM_VFS $PORTCLAIM_NETDEV" >> {told}')
        handover = build(hook=Hook(file, 30.0))
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert told.read_text() == f"{PF} 4 enp1s0f0\n"

    def test_the_hook_learns_the_representor_of_a_vf_in_switchdev_mode(
        self,
        build: Build,
        make_step: MakeStep,
        host: SimulatedTree,
        tmp_path: Path,
        program: Callable[[str], Path],
    ) -> None:
        for netdev, port in (("enp1s0f0", "p0"), ("eth7", "pf0vf1"), ("eth8", "c1pf0vf0")):
            interface = place(host, PF) / "net" / netdev
            interface.mkdir(exist_ok=True)
            (interface / "phys_port_name").write_text(f"{port}\n")
        told = tmp_path / "told"
        shown = "$PORTCLAIM_ADDRESS $PORTCLAIM_REPRESENTOR $PORTCLAIM_PHYS_PORT_NAME"
        handover = build(hook=Hook(program(f'echo "{shown}" >> {told}'), 30.0))
        for vf in (VF, VF2):
            handover.hand_over(make_step("attach", str(vf)), vf)
            handover.take_back(vf)
        assert told.read_text() == f"{VF} eth8 c1pf0vf0\n{VF2} eth7 pf0vf1\n"
        assert handover.problems() == {}

    @pytest.mark.parametrize(("one_time_use", "runs"), [("yes", [VF]), ("no", [])])
    def test_the_hook_can_renew_a_device_of_one_time_use(  # noqa: PLR0917 - fixtures
        self,
        build: Build,
        make_step: MakeStep,
        scanner: Scanner,
        tmp_path: Path,
        one_time_use: str,
        runs: list[PciAddress],
    ) -> None:
        """When it runs, no claim has the device any more. It does not run for other VFs."""
        ran: list[PciAddress] = []

        class Renewing(Hook):
            def run(
                self, address: PciAddress, _num_vfs: int, _netdev: str | None, _representor: object = None
            ) -> None:
                ran.append(address)
                assert used.renew(address)

        entry = json.dumps({"address": str(VF), "one_time_use": one_time_use})
        handover = build([entry], Renewing(tmp_path, 30.0))
        used = UsedOnce(tmp_path, "h1", lambda: held(handover))
        devices = scanner.scan().devices
        specs = DeviceSpecs.parse([entry], HostView.of(devices), report_in_placement=True)
        assert used.problems(devices, specs) == {}
        step = make_step("attach", str(VF))
        with used.preparing(step.claim_id, VF):
            handover.hand_over(step, VF)
        with pytest.raises(InvalidRequest):
            used.renew(VF)
        handover.take_back(VF)
        assert ran == runs
        assert used.problems(scanner.scan().devices, specs) == {}
        assert handover.problems() == {}
        used.close()

    @pytest.mark.parametrize(
        ("body", "timeout", "why"),
        [
            ("echo no switch >&2; exit 3", 30.0, "exited with 3: no switch"),
            ("exec sleep 60", 0.1, "took more"),
        ],
    )
    def test_a_hook_that_fails_makes_the_port_unusable(  # noqa: PLR0917 - fixtures
        self,
        build: Build,
        make_step: MakeStep,
        program: Callable[[str], Path],
        body: str,
        timeout: float,
        why: str,
    ) -> None:
        handover = build(hook=Hook(program(body), timeout))
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert why in handover.problems()[PF]

    def test_a_missing_hook_makes_the_port_unusable(
        self, build: Build, make_step: MakeStep, tmp_path: Path
    ) -> None:
        handover = build(hook=Hook(tmp_path / "missing", 1.0))
        handover.hand_over(make_step("attach", str(PF)), PF)
        handover.take_back(PF)
        assert "cannot be run" in handover.problems()[PF]
