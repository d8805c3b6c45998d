"""A libvirt guest gets a VF and a whole port, drives them, and gives them back."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from common.rpc.messages import Step
from services.compute_agent.drivers.base import DriverError, InstanceNotFound
from services.compute_agent.uevents import wait_until
from tests.hardware.conftest import OTHER_PORT, PORT, VF, driver_of, vfs_of

libvirt = pytest.importorskip("libvirt")
from services.compute_agent.drivers.libvirt import LibvirtDriver  # noqa: E402 - only where libvirt is

MakeStep = Callable[..., Step]
PATIENCE = 400.0
DOMAIN = """
<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 quiet</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<controller type='usb' model='none'/><memballoon model='none'/><controller type='pci' model='pcie-root'/>
<controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
<serial type='file'><source path='{log}'/></serial></devices></domain>
"""
INIT = """#!/busybox sh
/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys
echo GUEST is up
while sleep 1; do
    cat /sys/bus/pci/devices/*/device | grep -c -E '0x10ca|0x10c9' | sed 's/^/GUEST sees /'
done
"""


@pytest.fixture(scope="module")
def connection() -> Iterator[object]:
    subprocess.run(["lab-libvirtd"], check=True, stdout=subprocess.DEVNULL)
    connection = libvirt.open("qemu:///system")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def make_guest(
    connection: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., "Guest"]]:
    files = tmp_path_factory.mktemp("guest")
    initrd = make_initrd(files)
    guests = []

    def make(name: str, *, running: bool) -> Guest:
        uuid, log = uuid4(), files / f"{name}.log"
        kernel = next(Path("/boot").glob("vmlinuz-*"))
        xml = DOMAIN.format(name=name, uuid=uuid, kernel=kernel, initrd=initrd, log=log)
        domain = connection.defineXML(xml)
        domain.createWithFlags(0 if running else libvirt.VIR_DOMAIN_START_PAUSED)
        guests.append(domain)
        return Guest(uuid, domain, log)

    yield make
    for domain in guests:
        if domain.isActive():
            domain.destroy()
        domain.undefine()


class Guest:
    """A nested guest, and what it says on its console."""

    def __init__(self, uuid: UUID, domain: object, log: Path) -> None:
        self.uuid, self.domain, self.log = uuid, domain, log

    def says(self, text: str) -> bool:
        """Does it say so now, in its last whole line, within our patience?"""
        return wait_until(
            lambda: self.log.read_text(errors="replace").splitlines()[-2:-1] == [text], PATIENCE
        )


def make_initrd(files: Path) -> Path:
    tree = files / "tree"
    for name in ("bin", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in [tree, *tree.rglob("*")])
    image = files / "initrd"
    with image.open("wb") as out:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=names.encode(), stdout=out, check=True
        )
    return image


@pytest.fixture(scope="module")
def guest(make_guest: Callable[..., Guest]) -> Guest:
    guest = make_guest("runner", running=True)
    assert wait_until(guest.log.exists, PATIENCE)
    assert guest.says("GUEST sees 0")
    return guest


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path, connection: object) -> Iterator[LibvirtDriver]:
    driver = LibvirtDriver(conf, tmp_path)
    driver.start()
    yield driver
    driver.stop()


def test_a_vf_and_then_the_whole_port_go_to_a_running_guest_and_come_home(
    driver: LibvirtDriver, guest: Guest, make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    for address, own_driver in ((VF, "igbvf"), (PORT, "igb")):
        step = make_step("attach", address, instance_id=guest.uuid)
        driver.attach(step, step.devices[0])
        driver.attach(step, step.devices[0])  # again: nothing more
        assert [(str(each.address), each.claim_id) for each in driver.attachments()] == [
            (address, step.claim_id)
        ]
        assert driver_of(address) == "vfio-pci"
        assert guest.says("GUEST sees 1")
        driver.detach(step, step.devices[0])
        assert guest.says("GUEST sees 0")
        assert (driver_of(address), driver.attachments(), driver.troubles()) == (own_driver, [], {})
        assert vfs_of(PORT) == before


def test_what_libvirt_gave_by_another_hand_is_neither_taken_nor_given_again(
    driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    other = make_guest("other", running=False)
    bus, slot = VF[5:7], VF[8:10]
    other.domain.attachDeviceFlags(
        f"<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0' bus='0x{bus}' slot='0x{slot}' function='0'/></source></hostdev>",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    assert [(str(each.address), each.instance_id, each.claim_id) for each in driver.attachments()] == [
        (VF, other.uuid, None)
    ]
    step = make_step("attach", VF, instance_id=other.uuid)
    with pytest.raises(DriverError, match=f"{VF} is in instance {other.uuid} already"):
        driver.attach(step, step.devices[0])
    with pytest.raises(DriverError, match=f"{VF} is in instance"):
        driver.attach(make_step("attach", PORT, instance_id=other.uuid), make_step("attach", PORT).devices[0])
    driver.detach(step, step.devices[0])
    assert (driver_of(VF), driver_of(PORT)) == ("vfio-pci", "igb")
    other.domain.destroy()
    assert wait_until(lambda: driver_of(VF) == "igbvf", PATIENCE)


def test_an_instance_that_is_elsewhere_gets_nothing(driver: LibvirtDriver, make_step: MakeStep) -> None:
    step = make_step("attach", OTHER_PORT)
    with pytest.raises(InstanceNotFound, match="is not on this host"):
        driver.attach(step, step.devices[0])
    assert driver_of(OTHER_PORT) == "igb"


def test_a_guest_that_is_destroyed_leaves_its_port_to_be_brought_home(
    driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    doomed = make_guest("doomed", running=False)
    step = make_step("attach", PORT, instance_id=doomed.uuid)
    driver.attach(step, step.devices[0])
    assert vfs_of(PORT) == []
    doomed.domain.destroy()
    driver.detach(step, step.devices[0])
    assert (driver_of(PORT), vfs_of(PORT), driver.attachments()) == ("igb", before, [])
