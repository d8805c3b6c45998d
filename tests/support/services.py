"""Portclaim's services as real processes, configured by a file as an operator would."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from portclaim.cli.supervisor import SupervisedProcess, supervise
from tests.support.engines import run_owner

Options = Mapping[str, Mapping[str, object]]  # {section: {option: value, or a list of values}}


@dataclass
class ServiceProcess:
    """One started service; `name` is unique in the test."""

    name: str
    process: SupervisedProcess
    log_file: Path
    running: bool = True

    @property
    def log(self) -> str:
        """All that the service has written so far."""
        return self.log_file.read_text()

    @property
    def workers(self) -> set[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return {int(pid) for thread in children for pid in thread.read_text().split()}

    def stop(self) -> None:
        """Stop it as an operator does, with SIGTERM, and see that it ends in good order."""
        self.running = False
        status = self.process.stop()
        assert status == 0, f"{self.name} ended with status {status} on SIGTERM:\n{self.log}"

    def kill(self) -> None:
        """Kill it and its workers with SIGKILL, as a lost machine would."""
        self.running = False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Services:
    """Starts services that share a bus and, where they may have one, a database.

    ``tree``: the root of the tree whose code they run. By default it is this one. ``installed``: the folder
    with the console scripts of an installed Portclaim, to run these instead. ``database_urls``: the URLs of
    services that have one of their own.
    """

    def __init__(
        self,
        directory: Path,
        transport_url: str,
        database_url: str,
        tree: Path | None = None,
        installed: Path | None = None,
    ) -> None:
        self.directory = directory
        self.tree = tree
        self.installed = installed
        self.transport_url = transport_url
        self.database_url = database_url
        self.database_urls: dict[str, str] = {}
        self.processes: list[ServiceProcess] = []

    def __call__(
        self, service: str, options: Options | None = None, *flags: str, until: str | None = None
    ) -> ServiceProcess:
        """Start `python -m portclaim.services.<service> <flags>` and return when it is ready to work.

        Or when a line of its log matches the regular expression `until`.

        Every service gets the transport URL and a state directory of its own, and all but the compute agent
        the database's URL; `options` come on top, e.g. `{"compute_agent": {"sysfs_root": tree}}`.
        """
        name = f"{service}-{len(self.processes) + 1}"
        state = self.directory / name
        state.mkdir()
        sections: dict[str, Mapping[str, object]] = {
            "DEFAULT": {"transport_url": self.transport_url, "state_path": state}
        }
        if service != "compute_agent":
            sections["database"] = {"connection": self.database_urls.get(service, self.database_url)}
        for section, values in (options or {}).items():
            sections[section] = {**sections.get(section, {}), **values}
        file = self.directory / f"{name}.conf"
        file.touch(mode=0o600)  # it has passwords
        file.write_text(as_ini(sections))
        log = self.directory / f"{name}.log"
        program = [sys.executable, "-m", f"portclaim.services.{service}", "--config-file", file, *flags]
        if self.tree is not None:
            program = ["env", f"--chdir={self.tree}", *program]
        if self.installed is not None:
            script = self.installed / f"portclaim-{service.replace('_', '-')}"
            here = ["env", "--unset=PYTHONPATH", "--unset=PYTHONDONTWRITEBYTECODE", f"--chdir={state}"]
            program = [*here, script, "--config-file", file, *flags]
        process = supervise(
            *program,
            ready=until or rf"portclaim-{service.replace('_', '[-_]')} ready",
            log=log,
            owner=run_owner(),
        )
        self.processes.append(ServiceProcess(name, process, log))
        return self.processes[-1]

    def end(self) -> None:
        """Stop what still runs; all of it must end in good order. A failed test shows the logs."""
        for process in self.processes:
            sys.stdout.write(f"--- {process.name}\n{process.log}\n")
        running = [process for process in self.processes if process.running]
        agents = [process for process in running if process.name.startswith("compute_agent")]
        for group in (agents, [process for process in running if process not in agents]):
            with ThreadPoolExecutor() as threads:  # each takes seconds to notice
                list(threads.map(ServiceProcess.stop, group))


def as_ini(sections: Options) -> str:
    """A configuration file as oslo.config reads it: an option with several values has a line for each."""
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        for option, value in values.items():
            many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            lines += [f"{option} = {each}" for each in many]
    return "\n".join(lines) + "\n"
