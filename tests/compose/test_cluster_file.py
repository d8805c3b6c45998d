"""deploy/cluster/docker-compose.yml on top of docker-compose.yml, as compose reads it, with no engine."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.engines import skip_without

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "deploy/cluster/docker-compose.yml")
NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
SERVERS = ("postgres", "postgres-2")
WITH_DATABASE = ("conductor", "scheduler", "api")
ON_BUS = (*WITH_DATABASE, "compute-node-1", "compute-node-2", "compute-node-3", "portclaim")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the settings that deploy/make-env writes."""
    file = tmp_path_factory.mktemp("compose") / "env"
    subprocess.run([ROOT / "deploy/make-env", file], check=True)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return os.environ | {"COMPOSE_PROJECT_NAME": "test"} | dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def services(environment: Mapping[str, str]) -> dict[str, Any]:
    """The services of both files together."""
    compose = _compose()
    files = [word for file in FILES for word in ("-f", file)]
    profile = ("--profile", "command-line")
    command = [*compose, *files, *profile, "config"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


def test_each_service_has_all_nodes_of_rabbitmq_and_quorum_queues(services: dict[str, Any]) -> None:
    for name in ON_BUS:
        has = services[name]["environment"]
        assert re.findall(r"@([\w-]+):5672", has["OS_DEFAULT__TRANSPORT_URL"]) == list(NODES), name
        assert has["OS_OSLO_MESSAGING_RABBIT__RABBIT_QUORUM_QUEUE"] == "true", name
        assert has["OS_OSLO_MESSAGING_RABBIT__RABBIT_TRANSIENT_QUORUM_QUEUE"] == "true", name


def test_queues_are_made_when_all_nodes_are_there_to_have_copies(services: dict[str, Any]) -> None:
    for name in ON_BUS:
        if name != "portclaim":  # it runs once, on the queues of the others
            waits = {of for of, how in services[name]["depends_on"].items() if "healthy" in how["condition"]}
            assert set(NODES) <= waits, name


def test_each_service_has_both_servers_of_postgresql(services: dict[str, Any]) -> None:
    for name in ("migrate", "enroll", *WITH_DATABASE):
        url = services[name]["environment"]["OS_DATABASE__CONNECTION"]
        assert re.findall(r"host=([\w-]+):5432", url) == list(SERVERS), name
        assert url.endswith("&target_session_attrs=read-write")


def test_agents_have_no_credentials_for_the_database(services: dict[str, Any]) -> None:
    for name in ("compute-node-1", "compute-node-2", "compute-node-3"):
        assert not [each for each in services[name]["environment"] if "DATABASE" in each]
        assert set(services[name]["networks"]) == {"bus"}


def test_each_server_keeps_data_of_its_own(services: dict[str, Any]) -> None:
    for names, place in ((NODES, "/var/lib/rabbitmq"), (SERVERS, "/var/lib/postgresql/data")):
        volumes = {_source_of(services[name], place) for name in names}
        assert len(volumes) == len(names)


def test_nodes_of_rabbitmq_have_one_cookie_and_stop_in_a_minority(services: dict[str, Any]) -> None:
    assert len({services[name]["environment"]["ERLANG_COOKIE"] for name in NODES}) == 1
    assert [services[name]["hostname"] for name in NODES] == list(NODES)
    settings = (ROOT / "deploy/cluster/rabbitmq.conf").read_text()
    assert re.findall(r"^cluster_formation\S+ = rabbit@(\S+)$", settings, re.MULTILINE) == list(NODES)
    assert "\ncluster_partition_handling = pause_minority\n" in settings


@pytest.mark.parametrize("script", ["postgres-node", "postgres-init.sh"])
def test_the_shell_understands_the_scripts(script: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "deploy/cluster" / script], check=True)


def test_settings_that_a_file_lacks_are_added(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("PORTCLAIM_BUS_PASSWORD=mine\n")
    for _ in range(2):
        subprocess.run([ROOT / "deploy/make-env", file], check=True)
    names = [line.split("=")[0] for line in file.read_text().splitlines()]
    assert len(names) == len(set(names)) == 7
    assert "PORTCLAIM_BUS_PASSWORD=mine" in file.read_text()


def _compose() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = [*command, "version"]
            if subprocess.run(version, check=False, capture_output=True).returncode == 0:
                return command
    return skip_without("docker compose", "install it; an engine is not needed")


def _source_of(service: Mapping[str, Any], place: str) -> str:
    """What is mounted there. Compose writes a volume as text or as a mapping."""
    sources = [
        volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
        for volume in service["volumes"]
        if (volume["target"] if isinstance(volume, dict) else volume.split(":")[1]) == place
    ]
    [source] = sources
    return str(source)
