"""The wheel and the sdist: what is in them, and that Portclaim works where only the wheel is installed."""

import configparser
import json
import re
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import portclaim
from tests.packaging.conftest import ROOT, STRANGER, STRANGERS, Environment, Packages, build
from tests.support.services import Services, as_ini

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SAMPLE = ROOT / "deploy/portclaim.conf"
DEADLINE = 30.0  # seconds until the scheduler knows the simulated host


def files_of(packages: Packages) -> set[str]:
    with zipfile.ZipFile(packages.wheel) as wheel:
        return {name for name in wheel.namelist() if not name.endswith("/")}


def contents_of(wheel: Path) -> dict[str, bytes]:
    """All files but the list of them, which has their order in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def sources() -> set[str]:
    """The files that belong to the package, by their names in it."""
    found = {"portclaim/__init__.py", "portclaim/py.typed"}
    for folder in ("cli", "common", "services"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".sql", ".mako", ".html", ".css", ".js", ".svg"}:
                found.add(f"portclaim/{path.relative_to(ROOT)}")
    return found


class TestContents:
    def test_the_wheel_has_one_top_level_package(self, packages: Packages) -> None:
        assert {name.split("/")[0] for name in files_of(packages)} == {
            "portclaim",
            f"portclaim-{VERSION}.dist-info",
        }

    def test_the_wheel_has_every_source_file_and_no_other(self, packages: Packages) -> None:
        installed = {name for name in files_of(packages) if name.startswith("portclaim/")}
        assert installed == sources()
        assert any(re.fullmatch(r"portclaim/common/db/sql/\w+\.sql", name) for name in installed)

    def test_the_wheel_has_the_licence(self, packages: Packages) -> None:
        assert f"portclaim-{VERSION}.dist-info/licenses/LICENSE" in files_of(packages)

    def test_the_sdist_has_the_package_and_what_builds_it(self, packages: Packages) -> None:
        with tarfile.open(packages.sdist) as archive:
            members = [member for member in archive.getmembers() if not member.isdir()]
        assert all(member.isfile() for member in members), "a link would lead nowhere"
        names = {member.name.removeprefix(f"portclaim-{VERSION}/") for member in members}
        assert {name for name in names if name.startswith("portclaim/")} == sources()
        assert {name.split("/")[0] for name in names} == {
            "LICENSE",
            "PKG-INFO",
            "README.md",
            "portclaim",
            "portclaim.egg-info",
            "pyproject.toml",
            "requirements.in",
            "setup.cfg",
        }

    def test_the_sdist_builds_the_same_wheel(self, packages: Packages, tmp_path: Path) -> None:
        with tarfile.open(packages.sdist) as archive:
            archive.extractall(tmp_path, filter="data")
        again = build(tmp_path / f"portclaim-{VERSION}", tmp_path / "dist")
        assert contents_of(again.wheel) == contents_of(packages.wheel)


class TestInstalled:
    """In an environment that has the wheel and its dependencies, beside packages of another project."""

    def test_it_is_imported_from_there(self, environment: Environment) -> None:
        told = environment.run("python", "-c", "import portclaim; print(portclaim.__file__)")
        assert told.stdout.strip() == str(environment.site_packages / "portclaim/__init__.py")

    def test_packages_of_another_project_stay_as_they_are(self, environment: Environment) -> None:
        for name in STRANGERS:
            folder = environment.site_packages / name
            assert [path.name for path in folder.iterdir()] == ["__init__.py"]
            assert (folder / "__init__.py").read_text() == STRANGER

    def test_every_console_script_has_help(self, environment: Environment) -> None:
        (file,) = environment.site_packages.glob("portclaim-*.dist-info/entry_points.txt")
        entry_points = configparser.ConfigParser()
        entry_points.read(file)
        scripts = list(entry_points["console_scripts"])
        assert len(scripts) >= 4
        for script in scripts:
            told = environment.run(script, "--help")
            assert told.returncode == 0, told.stderr
            assert f"usage: {script} " in told.stdout.replace("Usage:", "usage:")

    def test_every_command_can_be_loaded(self, environment: Environment) -> None:
        listed = "from portclaim.cli.main import COMMANDS; print(*COMMANDS, sep='\\n')"
        for command in environment.run("python", "-c", listed).stdout.splitlines():
            told = environment.run("portclaim", *command.split(), "--help")
            assert told.returncode == 0, told.stderr

    def test_it_tells_its_version_and_schema(self, environment: Environment) -> None:
        told = environment.run("portclaim", "--version")
        assert re.fullmatch(rf"portclaim {VERSION}, schema \d{{4}}\n", told.stdout)

    def test_it_checks_a_configuration(self, environment: Environment) -> None:
        told = environment.run("portclaim", "config", "check", "--no-host", "--output", "json", SAMPLE)
        assert told.returncode == 0, told.stderr
        assert len(json.loads(told.stdout)) == 6, "three device_spec entries and three aliases"

    def test_every_plug_in_can_be_loaded(self, environment: Environment) -> None:
        program = (
            "from importlib.metadata import entry_points\n"
            "for group in ('portclaim.packing', 'portclaim.hypervisor', 'oslo.config.opts'):\n"
            "    for point in entry_points(group=group):\n"
            "        if point.module.startswith('portclaim'):\n"
            "            print(group, point.name, point.load())\n"
        )
        told = environment.run("python", "-W", "ignore", "-c", program)
        assert told.returncode == 0, told.stderr
        assert len(told.stdout.splitlines()) >= 9


class TestAtWork:
    """Services and callers that all run the installed code, on a real PostgreSQL and a real RabbitMQ."""

    @pytest.fixture
    def services(
        self, environment: Environment, empty_database_url: str, rabbit_url: str, tmp_path: Path
    ) -> Iterator[Services]:
        file = tmp_path / "database.conf"
        file.write_text(as_ini({"database": {"connection": empty_database_url}}))
        upgraded = environment.run("portclaim", "--config-file", file, "db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        services = Services(tmp_path, rabbit_url, empty_database_url, installed=environment.bin)
        yield services
        services.end()

    def test_a_client_claims_a_port(
        self, services: Services, environment: Environment, rabbit_url: str, tmp_path: Path
    ) -> None:
        host = {"DEFAULT": {"host": "h1"}, "compute_agent": {"sysfs_root": tmp_path / "sys"}}
        flags = ("--config-file", str(SAMPLE))
        services("conductor")
        services("scheduler", None, *flags)
        services("compute_agent", host, *flags)
        file = tmp_path / "caller.conf"
        file.write_text(f"[DEFAULT]\ntransport_url = {rabbit_url}\n")
        wait_for_host(environment, file)

        claimed = environment.run("python", "-c", example().replace(EXAMPLE_URL, rabbit_url))
        assert re.match(r"h1 \['0000:..:..\..'\]\n", claimed.stdout), claimed.stderr
        shown = environment.run("portclaim", "--config-file", file, "devices", "--output", "json")
        assert {"claimed", "allocated"} & {device["status"] for device in json.loads(shown.stdout)}

        refused = environment.run("portclaim", "--config-file", file, "claim", "--alias", "nic-vf:200")
        assert refused.returncode == 1
        assert refused.stderr.startswith("portclaim: "), refused.stderr


EXAMPLE_URL = "rabbit://portclaim:secret@broker.example/portclaim"


def example() -> str:
    """The program in the docstring of the package."""
    _, _, indented = (portclaim.__doc__ or "").partition("::\n\n")
    program = indented.partition("\n\nEverything else")[0]
    return "\n".join(line.removeprefix("    ") for line in program.splitlines())


def wait_for_host(environment: Environment, config_file: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while "h1" not in (told := environment.run("portclaim", "--config-file", config_file, "tree")).stdout:
        assert time.monotonic() < deadline, told.stderr
