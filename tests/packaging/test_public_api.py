"""The public API: what `portclaim` exports, what it costs to import, and that its examples run."""

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import portclaim
from portclaim import ClaimRequest, EventFilter, InvalidConfiguration, connect
from tests.integration.conftest import database_url, rabbit_url, service_process
from tests.packaging.conftest import ROOT
from tests.support.concurrency import wait_until
from tests.support.services import Services, as_ini

__all__ = ["database_url", "rabbit_url", "service_process"]

SOURCE = ROOT / "portclaim/__init__.py"
# What only other services need, and what takes long to import.
FORBIDDEN = {"alembic", "click", "libvirt", "psycopg2", "pyudev", "rich", "sqlalchemy"}


def loaded_by(program: str) -> set[str]:
    """The modules that are loaded after a program, in a process of its own."""
    tell = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


class TestNames:
    def test_type_checkers_see_what_is_exported(self) -> None:
        (block,) = (node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
        imported = {
            alias.name: node.module
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert sorted(imported) == sorted(portclaim.__all__)
        for name, module in imported.items():
            assert getattr(portclaim, name) is getattr(sys.modules[str(module)], name)

    def test_star_import_and_dir_know_all_names(self) -> None:
        assert set(portclaim.__all__) <= set(dir(portclaim))
        names: dict[str, object] = {}
        exec("from portclaim import *", names)
        assert set(portclaim.__all__) <= set(names)

    def test_a_name_that_does_not_exist(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'SchedularClient'"):
            _ = portclaim.SchedularClient  # type: ignore[attr-defined]

    def test_every_public_name_is_documented(self) -> None:
        assert [name for name in portclaim.__all__ if not getattr(portclaim, name).__doc__] == []


class TestCost:
    def test_importing_the_package_loads_nothing_else(self) -> None:
        assert {name for name in loaded_by("import portclaim") if name.startswith("portclaim")} == {
            "portclaim"
        }

    def test_errors_are_cheap(self) -> None:
        loaded = loaded_by("from portclaim import ClaimRefused")
        assert not {"pydantic", "oslo_messaging"} & loaded

    def test_no_name_loads_a_database_driver_or_an_agent(self) -> None:
        loaded = loaded_by("from portclaim import *")
        assert not FORBIDDEN & {name.partition(".")[0] for name in loaded}
        parts = ("portclaim.services", "portclaim.common.db.")
        assert not {name for name in loaded if f"{name}.".startswith(parts)}

    def test_an_agent_loads_nothing_large_that_it_does_not_use(self) -> None:
        """It runs on every compute node. These would be half of its memory."""
        large = {"cryptography", "dns", "eventlet", "prometheus_client", "pyroute2", "sqlalchemy"}
        loaded = loaded_by("import portclaim.services.compute_agent.__main__")
        assert not large & {name.partition(".")[0] for name in loaded}
        assert "opentelemetry.sdk" not in loaded

    def test_eventlet_is_not_loaded_and_stays_at_hand(self) -> None:
        assert "eventlet" in loaded_by("import portclaim.common.rpc.transport, eventlet")


class TestConnect:
    def test_to_an_url(self) -> None:
        with connect("fake://") as scheduler:
            assert scheduler.topic == "scheduler"

    def test_with_a_configuration_file(self, tmp_path: Path) -> None:
        file = tmp_path / "portclaim.conf"
        file.write_text(as_ini({"DEFAULT": {"transport_url": "http://elsewhere"}}))
        with pytest.raises(InvalidConfiguration):
            connect(config_file=file)
        connect("fake://", config_file=file).close()  # the argument takes precedence

    def test_without_arguments_it_reads_what_the_services_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_DEFAULT__TRANSPORT_URL", "fake://")
        connect().close()

    @pytest.mark.parametrize("url", ["broker.example", "http://broker.example", "rabbit://a:secret@b:port/c"])
    def test_an_url_of_no_message_bus_is_refused(self, url: str) -> None:
        with pytest.raises(
            InvalidConfiguration, match="transport_url is not the URL of a message bus"
        ) as refused:
            connect(url)
        assert "secret" not in refused.value.message

    def test_a_file_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfiguration, match=r"portclaim\.conf"):
            connect(config_file=tmp_path / "portclaim.conf")


def examples() -> Iterator[tuple[str, str]]:
    """The examples in the docstrings of the public API, each with the name that it belongs to."""
    for name in portclaim.__all__:
        for text in re.findall(
            r"Example::\n\n((?:    .*\n|\n)+)", inspect.getdoc(getattr(portclaim, name)) + "\n"
        ):
            yield name, textwrap.dedent(text)


EXAMPLES = dict(examples())


@pytest.fixture
def site(service_process: Services, rabbit_url: str, tmp_path: Path) -> str:
    """All services with a simulated host ``compute-7``; answers the URL of their bus."""
    aliases_and_devices = ("--config-file", str(ROOT / "deploy/portclaim.conf"))
    host = {"DEFAULT": {"host": "compute-7"}, "compute_agent": {"sysfs_root": tmp_path / "sys"}}
    service_process("conductor")
    service_process("scheduler", None, *aliases_and_devices)
    service_process("compute_agent", host, *aliases_and_devices)
    with connect(rabbit_url) as scheduler:
        wait_until(lambda: scheduler.devices(portclaim.DeviceFilter()).devices, "the host is known")
    return rabbit_url


def test_the_examples_run(site: str) -> None:
    with_example = {"ClaimRequest", "DeviceFilter", "EventStream", "ExplainRequest", "connect", "hostdev_xml"}
    assert with_example <= set(EXAMPLES)
    with connect(site) as scheduler:
        running = {name: start(text, site) for name, text in EXAMPLES.items()}
        # The stream of events ends with the first claim that is released.
        while running["EventStream"].poll() is None:
            claim = scheduler.claim(
                ClaimRequest(
                    claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": "nic-vf:1"}
                )
            )
            scheduler.release(claim.claim_id)
            wait_until(lambda id=claim.claim_id: scheduler.show(id).status == "released", "it is released")
    told = {name: process.communicate(timeout=60) for name, process in running.items()}
    assert {name: process.returncode for name, process in running.items()} == dict.fromkeys(running, 0), told
    assert told["ClaimRequest"][0] == "claimed compute-7\n"
    assert "type-VF" in told["DeviceFilter"][0]
    assert told["hostdev_xml"][0].count('<alias name="ua-portclaim-') == 2
    assert re.search(r"[0-9a-f-]{36} released\n$", told["EventStream"][0])


def start(example: str, url: str) -> subprocess.Popen[str]:
    """Run an example as a program that has connected before."""
    program = (
        f"from uuid import uuid4\nfrom portclaim import *\nscheduler = connect({url!r})\n"
        + re.sub(r"rabbit://[^\"]+", url, example)
        + "\nscheduler.close()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_events_of_a_connection_come_from_its_bus(rabbit_url: str) -> None:
    with (
        connect(rabbit_url) as scheduler,
        scheduler.events(EventFilter(kinds=("claim",)), name="test") as events,
    ):
        events.start()
        events.delete()
