"""The containers seen from outside: the command line, the bus on its published port, and SQL."""

import json
import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import tenacity

from portclaim.cli.http_client import HttpScheduler
from portclaim.common import config
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, DeviceFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport

HOSTS = ("compute-node-1", "compute-node-2", "compute-node-3")
PORTS, VFS_PER_PORT = 2, 8  # of each simulated host
DEVICES = len(HOSTS) * (PORTS * (1 + VFS_PER_PORT) + 1)

_unanswered = tenacity.retry_if_exception_type(ServiceUnavailable)
_patience = {"wait": tenacity.wait_fixed(0.1), "stop": tenacity.stop_after_delay(240)}
until_true = tenacity.retry(retry=tenacity.retry_if_result(lambda so: not so) | _unanswered, **_patience)
until_answered = tenacity.retry(retry=_unanswered, reraise=True, **_patience)


class Containers:
    """One running copy of docker-compose.yml."""

    def __init__(self, compose: Sequence[str], port_for: Callable[[str, int], int]) -> None:
        self._compose = tuple(compose)
        self._port_for = port_for

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with these arguments."""
        command = [*self._compose, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, f"{command} failed: {done.stderr}"
        return done

    def ids(self, service: str) -> list[str]:
        """The container ids of a service."""
        return self.compose("ps", "--quiet", service).stdout.split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows about each container of a service."""
        done = subprocess.run(["docker", "inspect", *self.ids(service)], check=True, capture_output=True)
        return list(json.loads(done.stdout))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `portclaim` in a container of its own, as an operator would."""
        return self.compose("run", "--rm", "-T", "portclaim", *arguments, check=False)

    def answer(self, *arguments: str) -> Any:
        """What `portclaim ... --output json` says; it must succeed."""
        done = self.cli(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sql(self, query: str) -> str:
        """Ask the database itself, as psql prints it: rows as lines, columns separated by |."""
        psql = ("psql", "--username=portclaim", "--dbname=portclaim", "-AtXc", query)
        return self.compose("exec", "-T", "postgres", *psql).stdout.strip()

    def http(self, role: str, *options: str) -> HttpScheduler:
        """A client of the API on its published port, with a new token of this role."""
        name = f"{role}-{secrets.token_hex(4)}"
        create = ("portclaim", "token", "create", "--name", name, "--role", role, *options)
        token = self.compose("exec", "-T", "api", *create).stdout.strip()
        return HttpScheduler(f"http://127.0.0.1:{self._port_for('api', 9610)}", token)

    @contextmanager
    def scheduler(self, directory: Path) -> Iterator[SchedulerClient]:
        """A client outside the containers, on the bus's published port, as an API server has it."""
        password, port = os.environ["PORTCLAIM_BUS_PASSWORD"], self._port_for("rabbitmq", 5672)
        url = f"rabbit://portclaim:{password}@127.0.0.1:{port}/portclaim"
        file = directory / "portclaim.conf"
        file.write_text(f"[DEFAULT]\ntransport_url = {url}\n[rpc]\ntimeout = 5\nattempts = 6\n")
        conf = config.load(["--config-file", str(file)], "portclaim-test")
        bus = transport(conf)
        yield SchedulerClient(bus, conf)
        bus.cleanup()


class Fleet:
    """The three hosts as the scheduler shows them."""

    def __init__(self, scheduler: SchedulerClient) -> None:
        self.scheduler = scheduler

    def statuses(self, host: str, port: str) -> dict[str, str]:
        """The effective status of a port's PF and of its VFs, by address."""
        found = self.scheduler.devices(DeviceFilter(host=host)).devices
        return {device.address: device.effective_status for device in found if device.port == port}

    @until_answered
    def claim(self, request: ClaimRequest) -> Claim:
        """Claim as a caller must who got no answer: again, with the same id."""
        return self.scheduler.claim(request)

    @until_answered
    def release(self, claim_id: UUID) -> None:
        """Release, again if nobody answers."""
        self.scheduler.release(claim_id)

    @until_true
    def wait_until_all_is_free(self) -> bool:
        """Until every host is published, and nothing of it is claimed."""
        found = self.scheduler.devices(DeviceFilter()).devices
        free = Counter(device.host for device in found if device.effective_status == "available")
        return set(free) == set(HOSTS) and free.total() == DEVICES

    @until_true
    def wait_for_claim(self, claim_id: str, status: str) -> bool:
        """Until a claim has this status."""
        return self.scheduler.show(UUID(claim_id)).status == status
