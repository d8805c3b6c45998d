"""The recipe of docs/hosts.md under a container engine: a real port is handed over and restored."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from tests.hardware.conftest import NUM_VFS, PORT, VF, driver_of, vfs_of
from tests.hardware.engine import Engine, engine
from tests.hardware.unprivileged import WITHOUT_CAPABILITIES
from tests.hardware.vfio_user import group_of
from tests.support.engines import MISSING

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    programs = Path(os.environ["PORTCLAIM_ENGINE"])
    if not (programs / "dockerd").exists():
        pytest.skip(f"{MISSING}Docker's programs on the host of the lab")
    with engine(programs, tmp_path_factory.mktemp("engine")) as running:
        yield running


def recipe() -> list[str]:
    """The options of the `docker run` that the docs show, as a shell would read them here."""
    page = (PROJECT / "docs/hosts.md").read_text()
    [shown] = re.findall(r"^docker run (.*?) \.\.\.$", page, re.DOTALL | re.MULTILINE)
    number = next(
        line.split()[0] for line in Path("/proc/devices").read_text().splitlines() if "vfio" in line
    )
    return shlex.split(re.sub(r"\$\(.*?/proc/devices\)", number, shown.replace("\\\n", " ")))


def in_container(options: list[str], *command: str) -> list[str]:
    """A container with what Python and the project need of the lab, and nothing else of it."""
    volumes = [f"--volume={path}:{path}:ro" for path in ("/usr", PROJECT)]  # its .venv is below the project
    path = f"--env=PYTHONPATH={os.environ['PYTHONPATH']}"
    return ["run", "--rm", *options, *volumes, path, Engine.image, *command]


def test_a_port_goes_and_is_restored_by_the_recipe_of_the_docs(
    docker: Engine, make_step: Callable[..., Step]
) -> None:
    Path("/var/lib/portclaim").mkdir(parents=True, exist_ok=True)
    step = make_step("attach", PORT).model_dump_json()
    agent = [sys.executable, "-c", WITHOUT_CAPABILITIES, "/var/lib/portclaim", step]
    done = docker.docker(*in_container(recipe(), *agent))
    assert done.returncode == 0, done.stderr.decode()
    assert driver_of(PORT) == "igb"
    assert len(vfs_of(PORT)) == NUM_VFS[PORT]


@pytest.fixture
def handed_over_vf(conf: cfg.ConfigOpts, tmp_path: Path, make_step: Callable[..., Step]) -> Iterator[Path]:
    """A VF that was handed over; yields the file by which a guest would have it."""
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    step = make_step("attach", VF)
    driver.prepare(step, step.devices[0])
    yield Path("/dev/vfio", group_of(VF))
    driver.detach(step, step.devices[0])
    driver.stop()


def test_without_the_rule_for_vfio_it_cannot_ask_whether_a_guest_has_a_device(
    docker: Engine, handed_over_vf: Path
) -> None:
    ask = [sys.executable, "-c", f"open('{handed_over_vf}', 'rb')"]
    options = recipe()
    assert docker.docker(*in_container(options, *ask)).returncode == 0
    at = options.index("--device-cgroup-rule")
    refused = docker.docker(*in_container(options[:at] + options[at + 2 :], *ask))
    assert b"Operation not permitted" in refused.stderr


def test_under_apparmor_it_cannot_write_to_sysfs(docker: Engine) -> None:
    if not Path(os.environ["PORTCLAIM_ENGINE"], "apparmor_parser").exists():
        pytest.skip(f"{MISSING}AppArmor's parser on the host of the lab")
    write = [sys.executable, "-c", f"open('/sys/bus/pci/devices/{VF}/driver_override', 'w').write('\\n')"]
    options = recipe()
    assert docker.docker(*in_container(options, *write)).returncode == 0
    at = options.index("apparmor=unconfined")
    refused = docker.docker(*in_container(options[: at - 1] + options[at + 1 :], *write))
    assert b"Permission denied" in refused.stderr
