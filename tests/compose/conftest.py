"""The containers of docker-compose.yml, up once for these tests, under a name and on ports of their own."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from tests.compose.containers import Containers, Fleet
from tests.support.engines import skip_without

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first builds the image. One worker runs them all, because they are in one file (`loadfile`)."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """`docker compose`, or `docker-compose` where only that is there; skips where there is no engine."""
    for command in ("docker compose", "docker-compose"):
        words = command.split()
        if shutil.which(words[0]) and _succeeds(*words, "version") and _succeeds("docker", "info"):
            return command
    return skip_without("a Docker engine with compose", "see that `docker info` answers")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> Iterator[str]:
    """Also sets what the file takes from the environment; port 0 is any that is free."""
    settings = {
        "PORTCLAIM_IMAGE": "portclaim-test",
        "PORTCLAIM_DATABASE_PASSWORD": secrets.token_hex(16),
        "PORTCLAIM_BUS_PASSWORD": secrets.token_hex(16),
        **{f"PORTCLAIM_{name}_PORT": "0" for name in ("API", "BUS", "BUS_PAGE", "DATABASE")},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield f"portclaim-test-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --build --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --remove-orphans"]


@pytest.fixture(scope="session")
def containers(
    docker_services: Services,
    docker_compose_command: str,
    docker_compose_file: str,
    docker_compose_project_name: str,
) -> Containers:
    """All services, started."""
    files = ("-f", docker_compose_file, "-p", docker_compose_project_name)
    return Containers([*docker_compose_command.split(), *files], docker_services.port_for)


@pytest.fixture
def fleet(containers: Containers, tmp_path: Path) -> Iterator[Fleet]:
    """The three simulated hosts, published, nothing claimed. A failed test shows the containers' logs."""
    with containers.scheduler(tmp_path) as scheduler:
        fleet = Fleet(scheduler)
        fleet.wait_until_all_is_free()
        yield fleet
    sys.stdout.write(containers.compose("logs", "--no-color", "--tail=30").stdout)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
