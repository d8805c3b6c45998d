"""The README, the tutorial and the how-to guides are right.

Their commands run, or at least parse. Their programs run. Both print what the pages show.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from docs._generate import PAGES as MADE_FROM_THE_CODE
from portclaim.cli.main import main
from portclaim.common import config
from portclaim.common.db import tokens
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.service import Scheduler
from tests.support.engines import MISSING
from tests.support.fleet import Fleet
from tests.support.rabbitmq import free_ports
from tests.support.readme import PAGES, ROOT, Example, blocks, examples, missing, pages, programs
from tests.support.services import Services

DEADLINE = 30.0  # seconds until the effect of a command must be visible
Run = Callable[[Example], subprocess.CompletedProcess[str]]


def shown(program: str) -> list[str]:
    """Every command line of this program in a block, without the program's name."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return _of(program, lines + [example.command for example in examples()])


def mentioned(program: str) -> list[str]:
    """Every command line of this program in the text, without the program's name."""
    return _of(program, [line for _page, text in pages() for line in re.findall(r"`([^`\n]+)`", text)])


def _of(program: str, lines: list[str]) -> list[str]:
    after = re.compile(rf"(?:^|docker compose run --rm ){program} (.+)")
    return [match[1] for line in lines if (match := after.match(line))]


NAMES = [line for line in mentioned("portclaim") if re.fullmatch(r"[a-z_ ]+", line)]


@pytest.mark.parametrize("line", [*shown("portclaim"), *sorted({*mentioned("portclaim")} - {*NAMES})])
def test_the_command_line_parses_every_shown_command(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _page, text in pages():  # what a page exports, its commands have
        for name, value in re.findall(r"^export (\w+)=(.+)$", text, re.MULTILINE):
            monkeypatch.setenv(name, value)
    file = tmp_path / "portclaim.conf"
    file.touch()
    words = shlex.split(line.replace("/etc/portclaim/portclaim.conf", str(file)))
    try:
        understand(main, "portclaim", words)
    except click.exceptions.Exit as ended:  # --version
        if ended.exit_code:
            raise


@pytest.mark.parametrize("line", sorted({*NAMES}))
def test_a_command_that_the_text_names_exists(line: str) -> None:
    command: click.Command = main
    for word in line.split():
        if not isinstance(command, click.Group):
            break  # an argument
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found


def understand(
    command: click.Command, name: str, words: list[str], parent: click.Context | None = None
) -> None:
    """Parse a command and its arguments as click would, without running it. Raises UsageError."""
    context = command.make_context(name, words, parent)
    if isinstance(command, click.Group):
        name, within, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert within is not None
        understand(within, name, words, context)


def test_every_named_make_target_exists() -> None:
    targets = {line.split()[0] for line in (*shown("make"), *mentioned("make"))}
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_a_target(page: Path) -> None:
    made = {f"docs/{place}" for place in MADE_FROM_THE_CODE}
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert links
    targets = [(page.parent / link).resolve() for link in links if "://" not in link]
    assert [
        place for place in targets if not place.exists() and str(place.relative_to(ROOT)) not in made
    ] == []


@pytest.fixture(params=["rpc", "http"])
def portclaim(
    service_process: Services, rabbit_url: str, tmp_path: Path, fleet: Fleet, request: pytest.FixtureRequest
) -> Run:
    """The command line, on real services with one simulated host, which has what the containers' have."""
    aliases_and_devices = ("--config-file", str(ROOT / "deploy/portclaim.conf"))
    host = {"DEFAULT": {"host": "compute-node-1"}, "compute_agent": {"sysfs_root": tmp_path / "sys"}}
    service_process("conductor")
    service_process("scheduler", None, *aliases_and_devices)
    service_process("compute_agent", host, *aliases_and_devices)
    file = tmp_path / "caller.conf"
    file.write_text(f"[DEFAULT]\ntransport_url = {rabbit_url}\n")
    program = [str(Path(sys.executable).with_name("portclaim")), "--config-file", str(file)]
    environment = dict(os.environ)
    if request.param == "http":
        [port] = free_ports(1)
        service_process("api", {"api": {"port": port}})
        with fleet.engine.begin() as connection:
            token = tokens.create(connection, "ann", "operator", None)
        environment |= {"PORTCLAIM_URL": f"http://127.0.0.1:{port}", "PORTCLAIM_TOKEN": token}

    def run(example: Example) -> subprocess.CompletedProcess[str]:
        words = shlex.split(example.command)[1:]
        return subprocess.run(
            [*program, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return run


def test_the_shown_commands_print_the_shown_output(portclaim: Run) -> None:
    every = [example for example in examples() if example.command.startswith("portclaim ")]
    assert len(every) > 4
    for example in every:
        deadline = time.monotonic() + DEADLINE
        run = portclaim(example)
        while missing(example.lines, run.stdout) and time.monotonic() < deadline:
            run = portclaim(example)  # the effect of an earlier command may still be under way
        assert run.returncode == 0, run.stderr
        assert missing(example.lines, run.stdout) is None, f"{example.command} printed:\n{run.stdout}"


@pytest.mark.parametrize("portclaim", ["rpc"], indirect=True)
def test_the_shown_programs_print_the_shown_output(portclaim: Run, tmp_path: Path) -> None:
    every = programs()
    assert "scheduler.claim(" in every[0].command
    assert all(program.lines for program in every)
    for program in every:
        text = program.command.replace("/etc/portclaim/portclaim.conf", str(tmp_path / "caller.conf"))
        run = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=60
        )
        assert run.returncode == 0, f"{program.command}\nfailed:\n{run.stderr}"
        assert missing(program.lines, run.stdout) is None, f"{program.command}\nprinted:\n{run.stdout}"


def test_services_start_with_the_shown_configuration(tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    for block in blocks("ini"):
        file.write_text(block)
        config.load(["--config-file", str(file)], "portclaim")
    (text,) = [block for block in blocks("ini") if "device_spec" in block]
    file.write_text(text)
    conf = config.load(["--config-file", str(file)], "portclaim")
    assert len(conf.pci.device_spec) == 2
    Conductor(conf)
    Scheduler(conf)


def test_the_sample_of_the_configuration_is_up_to_date(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    generate = [str(Path(sys.executable).with_name("oslo-config-generator"))]
    settings = ["--config-file", "deploy/config-generator.conf"]
    subprocess.run([*generate, *settings, "--output-file", str(fresh)], cwd=ROOT, check=True)
    remedy = f"run oslo-config-generator {' '.join(settings)}"
    assert (ROOT / "deploy/portclaim.conf.sample").read_text() == fresh.read_text(), remedy


def test_the_unedited_sample_configuration_changes_no_option() -> None:
    conf = config.load(["--config-file", str(ROOT / "deploy/portclaim.conf.sample")], "portclaim")
    assert conf.pci.device_spec == []
    assert conf.database.connection is None


@pytest.mark.parametrize("unit", sorted((ROOT / "deploy/systemd").iterdir()), ids=lambda unit: unit.name)
def test_every_systemd_unit_starts_an_existing_program(unit: Path) -> None:
    (program,) = re.findall(r"^ExecStart=/opt/portclaim/bin/(\S+)", unit.read_text(), re.MULTILINE)
    assert program in {unit.stem, "portclaim"}  # a service, or a command that runs once
    assert Path(sys.executable).with_name(program).is_file()
    assert unit.stem in "".join(blocks("sh"))


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    """Together, as on one machine: what it does not know, it would ignore."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip(f"{MISSING}systemd-analyze")
    units = [tmp_path / unit.name for unit in (ROOT / "deploy/systemd").iterdir()]
    for unit in units:
        text = (ROOT / "deploy/systemd" / unit.name).read_text()
        unit.write_text(text.replace("/opt/portclaim/bin", str(Path(sys.executable).parent)))
    done = subprocess.run(
        [verify, "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
