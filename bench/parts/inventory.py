"""Reports of hosts: one by one, many at once, and signs of life."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from bench import inventory_agents, inventory_storm
from bench.crew import crew
from bench.inventory_agents import inventory, pf
from bench.parts_of_server import SERVER_PARTS
from bench.site import Site
from portclaim.common import config
from portclaim.common.db import migrate
from portclaim.common.db.transaction import connect
from portclaim.common.rpc.agent_messages import DeviceReport, InventoryReport
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.conductor.inventory import apply
from tests.support.straight_fleet import Size

_LARGE = Size(1, 8, 240)
_AGENTS = 10_000
_HOSTS = 1000  # of each of two processes. They show life so much more often, and make as many more calls
_PROCESSES = 2
_SPEED = _AGENTS / _HOSTS / _PROCESSES


def results(site: Site) -> Iterator[dict[str, Any]]:
    """A host's reports; the first reports of 1,000 hosts at once, or of 100; agents that show life."""
    yield from _single(site)
    yield from inventory_storm.results(site, Size(100, 4, 64) if site.options.short else Size(1000, 4, 64))
    yield _signs_of_life(site)


def _signs_of_life(site: Site) -> dict[str, Any]:
    """What the services do for 10,000 agents at the default interval, and what they do at rest."""
    url = site.server.create_database("signs_of_life")
    migrate.upgrade(url)
    running = site.services(url)
    meter = site.meter(url, **running.parts)
    interval = config.load(["--config-file", running.file], "bench").compute_agent.report_interval
    seconds = max(10.0, 5 * site.options.seconds)
    facts = (running.file, _HOSTS, interval / _SPEED, _SPEED)
    with crew(inventory_agents.signs_of_life, *facts, processes=_PROCESSES, warm_up=1) as agents:
        resting = agents.run(seconds, "rest", meter)
        agents.run(interval / _SPEED, "life")
        lively = agents.run(seconds, "life", meter)
    site.stop()
    site.server.drop_database(url)
    parts = [part for part in SERVER_PARTS if part in lively.cpu]
    return {
        "name": "signs of life",
        "agents": _AGENTS,
        "interval_s": interval,
        "per_second": round(lively.rate, 1),
        "cores": {part: round(lively.cpu[part] / seconds, 4) for part in parts},
        "cores_at_rest": {part: round(resting.cpu[part] / seconds, 4) for part in parts},
        "notes": dict(lively.notes),
    }


class Reporting:
    """Reports of one host after the other, in process, each measured."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url, 1)
        with self._engine.connect() as connection:
            self._backend = int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)
        self.new_host()

    def new_host(self) -> None:
        self._agent: UUID = uuid4()

    def report(self, name: str, digest: str, **content: Any) -> dict[str, Any]:
        """From the fields of the message to the commit: seconds on the clock, and CPU of both sides."""
        report = InventoryReport(host=str(self._agent), agent_id=self._agent, digest=digest, **content)
        fields = report.model_dump(mode="json")
        backend, python, clock = self._backend_ms(), time.process_time(), time.monotonic()
        answer = apply(self._engine, InventoryReport.model_validate(fields), agent_down_after=60.0)
        clock, python = time.monotonic() - clock, time.process_time() - python
        assert not answer.resend, name
        return {
            "name": name,
            "ms": round(clock * 1000, 2),
            "cpu_ms": {
                "postgresql": round(self._backend_ms() - backend, 2),
                "conductor": round(python * 1000, 2),
            },
        }

    def close(self) -> None:
        self._engine.dispose()

    def _backend_ms(self) -> float:
        return int(Path(f"/proc/{self._backend}/schedstat").read_text().split()[0]) / 1e6


def _single(site: Site, size: Size = _LARGE) -> Iterator[dict[str, Any]]:
    """A host's first report, and what comes after it. The ratios are those of the CPU time of both sides."""
    url = site.server.create_database("inventory")
    migrate.upgrade(url)
    reporting = Reporting(url)
    rounds: list[dict[str, dict[str, Any]]] = []
    for _ in range(max(3, site.options.rounds)):
        reporting.new_host()
        rounds.append({each["name"]: each for each in _of_one_host(reporting, size)})
    reporting.close()
    site.server.drop_database(url)
    for name in rounds[0]:
        ratios = sorted(_cpu(each[name]) / _cpu(each["first report"]) for each in rounds)
        middle = rounds[len(rounds) // 2][name]
        yield {**middle, "size": f"{size.ports}x{size.vfs}", "of_first": round(ratios[len(ratios) // 2], 4)}


def _of_one_host(reporting: Reporting, size: Size) -> Iterator[dict[str, Any]]:
    first = inventory(size.ports, size.vfs)
    yield reporting.report("first report", first.digest, devices=first.devices)
    yield reporting.report("sign of life", first.digest)
    yield reporting.report("the same in full", first.digest, devices=first.devices)
    second = _with(first, first.devices[5].model_copy(update={"unusable_reason": "not in order"}))
    yield reporting.report("a changed VF", second.digest, **_changes(first, second))
    third = _with(second, first.devices[5])
    yield reporting.report("a changed VF, reported in full", third.digest, devices=third.devices)
    gone = Inventory([device for device in first.devices if device.parent_address != pf(1)], [])
    yield reporting.report("the VFs of a port vanish", gone.digest, **_changes(third, gone))
    yield reporting.report("the VFs of a port come back", third.digest, **_changes(gone, third))


def _with(known: Inventory, changed: DeviceReport) -> Inventory:
    return Inventory(
        [changed if device.address == changed.address else device for device in known.devices], []
    )


def _changes(known: Inventory, now: Inventory) -> dict[str, Any]:
    changed, removed = now.changes_since(known)
    return {"base_digest": known.digest, "devices": changed, "removed": removed}


def _cpu(result: dict[str, Any]) -> float:
    return float(sum(result["cpu_ms"].values()))
