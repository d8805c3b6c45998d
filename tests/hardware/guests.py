"""Guests of a real libvirt, and what they see of the devices they are given."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from portclaim.services.compute_agent.uevents import wait_until

PATIENCE = 400.0  # seconds, for all tests here: an emulator on a busy machine has a tenth of a core
START_PAUSED = 1  # VIR_DOMAIN_START_PAUSED
DOMAIN = """
<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>192</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 quiet</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<controller type='usb' model='none'/><memballoon model='none'/>{slots}
<serial type='file'><source path='{log}'/></serial>{hostdevs}</devices></domain>
"""
SLOTS = {
    "q35": "<controller type='pci' model='pcie-root'/>"
    + 2 * "<controller type='pci' model='pcie-root-port'/>",
    "pc": "",  # any card can be plugged into its root bus
}
INIT = """#!/busybox sh
/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys
echo GUEST is up
while sleep 1; do
    cat /sys/bus/pci/devices/*/device | grep -c -E '0x10ca|0x10c9' | sed 's/^/GUEST sees /'
done
"""


@pytest.fixture(scope="session")
def connection() -> Iterator[Any]:
    libvirt = pytest.importorskip("libvirt")
    subprocess.run(["lab-libvirtd"], check=True, stdout=subprocess.DEVNULL)
    connection = libvirt.open("qemu:///system")
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def make_guest(connection: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., "Guest"]]:
    files = tmp_path_factory.mktemp("guest")
    initrd = make_initrd(files)
    made = set()

    def make(
        name: str,
        *,
        running: bool,
        uuid: UUID | None = None,
        hostdevs: str = "",
        started: bool = True,
        machine: str = "q35",
    ) -> Guest:
        """``running``: it boots; otherwise it is paused when it is started. ``hostdevs``: XML."""
        uuid, log = uuid or uuid4(), files / f"{name}.log"
        kernel = next(Path("/boot").glob("vmlinuz-*"))
        xml = DOMAIN.format(
            name=name,
            uuid=uuid,
            kernel=kernel,
            initrd=initrd,
            log=log,
            hostdevs=hostdevs,
            machine=machine,
            slots=SLOTS[machine],
        )
        domain = alive(connection).defineXML(xml)
        if started:
            domain.createWithFlags(0 if running else START_PAUSED)
        made.add(str(uuid))
        return Guest(uuid, domain, log)

    yield make
    for domain in alive(connection).listAllDomains():
        if domain.UUIDString() in made:
            if domain.isActive():
                domain.destroy()
            domain.undefine()


def alive(connection: Any) -> Any:
    """The connection, or another one if libvirtd was restarted since."""
    import libvirt  # noqa: PLC0415 - only where libvirt is

    try:
        connection.getLibVersion()
    except libvirt.libvirtError:
        return libvirt.open("qemu:///system")
    return connection


class Guest:
    """A nested guest, and what it says on its console."""

    def __init__(self, uuid: UUID, domain: Any, log: Path) -> None:
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


@pytest.fixture(scope="session")
def guest(make_guest: Callable[..., Guest]) -> Guest:
    guest = make_guest("runner", running=True)
    assert wait_until(guest.log.exists, PATIENCE)
    assert guest.says("GUEST sees 0")
    return guest
