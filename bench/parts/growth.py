"""Does a claim cost more when there are more devices? The same work with 16,000 to 2,000,000 of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from bench import clients
from bench.crew import crew
from bench.sample import Sample, merged, ratio
from bench.site import Site
from tests.support.straight_fleet import Size

SMALL = Size(62, 4, 64)
LONG = [SMALL, Size(1000, 4, 64), Size(7700, 4, 64)]
SHORT = [SMALL, Size(500, 4, 64)]
CLIENTS = 8
_PROCESSES = 2
TASKS: dict[str, tuple[Callable[..., Any], str]] = {
    "claim, release and answer": (clients.in_process, "nic-vf:1"),
    "refusal": (clients.refused_in_process, "nic-pf:3"),
}


def results(site: Site) -> Iterator[dict[str, Any]]:
    """For each task and fleet the rate, and its ratio to that of the smallest fleet. In process."""
    sizes = SHORT if site.options.short else LONG
    samples: dict[tuple[str, Size], list[Sample]] = {}
    with ExitStack() as stack:
        runs = {(task, size): _run(site, stack, task, size) for task in TASKS for size in sizes}
        for _ in range(site.options.rounds):
            for key, run in runs.items():
                samples.setdefault(key, []).append(run(site.options.seconds))
    for (task, size), measured in samples.items():
        yield {
            "name": task,
            "size": str(size),
            "devices": size.hosts * size.ports * (size.vfs + 1),
            "ratio": round(ratio(list(zip(measured, samples[task, SMALL], strict=True))), 3),
            **merged(measured),
        }
    for size in sizes:
        site.forget(size)


def _run(site: Site, stack: ExitStack, task: str, size: Size) -> Callable[[float], Sample]:
    prepare, alias = TASKS[task]
    url = site.fleet(size)
    threads = CLIENTS // _PROCESSES
    hired = crew(prepare, url, alias, threads, processes=_PROCESSES, threads=threads)
    return functools.partial(stack.enter_context(hired).run, meter=site.meter(url))
