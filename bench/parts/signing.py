"""What signatures cost a claim and a report, end to end: the same services with and without, in turns.

In each round the services are started anew on the same fleet, first for hosts without keys, then for hosts
that sign. Ratios compare the two within a round.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import bus, signing_clients
from bench.crew import Crew, crew
from bench.sample import Sample, merged
from bench.signing_clients import PORTS, VFS
from bench.site import Site
from portclaim.common.trust.keys import PrivateKey, write
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
VF = "nic-vf:1"
CLIENTS = 8
REPORTING = 4
"""Agents, each of a host of its own. They report without a pause."""

TASKS = {
    "life": "a sign of life that is answered",
    "changed": "a report of one changed VF",
    "in full": f"a report of all {PORTS * (VFS + 1)} devices",
}
_WARM_UP = 1.5  # seconds


def results(site: Site) -> Iterator[dict[str, Any]]:
    """For each kind of message, figures without and with signatures, and the ratios."""
    url = site.fleet(SIZE)
    samples: dict[str, dict[str, list[Sample]]] = {}
    with ExitStack() as stack:
        broker = bus.one_node(stack)  # the same for both: it takes longest to start
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = _keys(directory)
        for _ in range(site.options.rounds):
            for is_signed in (False, True):
                _forget_keys(url)
                if is_signed:
                    signing_clients.enrol(url, {host: key for host, (key, _) in made.items()})
                files = {host: str(file) for host, (_, file) in made.items()} if is_signed else {}
                options = _options(directory, is_signed)
                start = partial(bus.services, url, start_broker=lambda _stack: broker, more=options)
                running = site.running(("signing", object()), start)
                for name, sample in _measured(site, url, running, files):
                    kinds = samples.setdefault(name, {"not signed": [], "signed": []})
                    kinds["signed" if is_signed else "not signed"].append(sample)
        site.stop()
    site.forget(SIZE)
    for name, kinds in samples.items():
        yield _row(name, kinds["not signed"], kinds["signed"])


def _measured(
    site: Site, url: str, running: bus.Running, key_files: Mapping[str, str]
) -> Iterator[tuple[str, Sample]]:
    meter = site.meter(url, **running.parts)
    with crew(signing_clients.claims, running.file, VF, key_files, processes=CLIENTS) as hired:
        hired.run(_WARM_UP)
        yield "a claim, its release and the answer", hired.run(site.options.seconds, meter=meter)
    with _agents(running, url, is_signed=bool(key_files)) as hired:
        hired.run(_WARM_UP)
        for task, name in TASKS.items():
            hired.run(0.2, task)
            yield name, hired.run(site.options.seconds, task, meter)


@contextmanager
def _agents(running: bus.Running, url: str, *, is_signed: bool) -> Iterator[Crew]:
    prepare = partial(signing_clients.reports, is_signed=is_signed)
    with crew(prepare, running.file, url, processes=REPORTING) as hired:
        yield hired


def _options(directory: Path, is_signed: bool) -> Mapping[str, Mapping[str, object]]:
    """Claims are spread over the hosts, because the clients here speak for the agents of all of them."""
    spread = {"scheduler": {"packing": "spread"}}
    if not is_signed:
        return spread
    trust = {"services_key_file": directory / "services.pem", "require": "all", "host_rate": 1_000_000}
    return {**spread, "trust": trust}


def _keys(directory: Path) -> Mapping[str, tuple[PrivateKey, Path]]:
    """A key for each host of the fleet, and its file; and the services' key."""
    write(directory / "services.pem", PrivateKey.make())
    made = {}
    for number in range(1, SIZE.hosts + 1):
        key, file = PrivateKey.make(), directory / f"host-{number}.pem"
        write(file, key)
        made[f"host-{number}"] = (key, file)
    return made


def _forget_keys(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM host_keys"))


def _row(name: str, plain: list[Sample], signed: list[Sample]) -> dict[str, Any]:
    without, with_ = merged(plain), merged(signed)
    return {
        "name": name,
        "clients": CLIENTS if name not in TASKS.values() else REPORTING,
        "not_signed": without,
        "signed": with_,
        "server_ms_more": round(with_["server_ms"] - without["server_ms"], 4),
        "clients_ms_more": round(with_["cpu_ms"]["clients"] - without["cpu_ms"]["clients"], 4),
        "server_ratio": _median(plain, signed, _server_ms),
        "p50_ratio": _median(plain, signed, lambda sample: sample.percentiles["p50_ms"]),
    }


def _server_ms(sample: Sample) -> float:
    """The CPU time of all services for one of these."""
    return sum(value for part, value in sample.cpu.items() if part != "clients") / len(sample.latencies)


def _median(plain: list[Sample], signed: list[Sample], what: Callable[[Sample], float]) -> float:
    pairs = zip(plain, signed, strict=True)
    return round(statistics.median(what(with_) / what(without) for without, with_ in pairs), 3)
