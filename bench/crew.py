"""Clients that do the same thing again and again, in processes of their own, and are timed."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bench.cpu import Meter, difference
from bench.sample import Sample

Do = Callable[[], Any]
"""Done once more at each call. The answer ``False`` means that there is nothing left to do."""

CYCLE = "cycle"
_SPAWN = multiprocessing.get_context("spawn")  # a process as a service is one: nothing comes along


class Work(NamedTuple):
    """What a client can do, by name, and what it counts meanwhile.

    ``settle`` returns when the services have done all that was only cast to them. It belongs to the round.
    """

    tasks: Mapping[str, Do]
    notes: Counter[str]
    settle: Do = lambda: None


class Crew:
    """So many ``processes`` with so many ``threads`` each; every thread is a client.

    In each process, ``prepare(*args)`` is called once; it answers what a client then does again and again: a
    function, or several of them as :class:`Work`. Each client begins with ``warm_up`` cycles.
    """

    def __init__(
        self,
        prepare: Callable[..., Do | Work],
        *args: Any,
        processes: int = 1,
        threads: int = 1,
        warm_up: int = 3,
    ) -> None:
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            mine, its = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_client, args=(its, prepare, args, threads, warm_up), daemon=True)
            process.start()
            its.close()  # so that the end of the process is noticed
            self._ends.append(mine)
            self._processes.append(process)
        for end in self._ends:
            assert end.recv() == "ready"

    def run(self, seconds: float, task: str = CYCLE, meter: Meter | None = None) -> Sample:
        """Let all clients work for so long. With a ``meter``, read the CPU time, the clients' own too."""
        begin = time.monotonic() + 0.05  # the same clock in all processes
        before = self._read(meter)
        for end in self._ends:
            end.send((task, begin, begin + seconds))
        latencies: list[float] = []
        notes: Counter[str] = Counter()
        last = begin
        for end in self._ends:
            theirs, ended, counted = end.recv()
            latencies += theirs
            notes += counted
            last = max(last, ended)
        cpu = difference(before, self._read(meter)) if meter else {}
        return Sample(len(latencies) / (last - begin), latencies, cpu, notes)

    def close(self) -> None:
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join()

    def _read(self, meter: Meter | None) -> dict[str, float]:
        if meter is None:
            return {}
        ours = Meter({"clients": tuple(process.pid for process in self._processes if process.pid)})
        return meter.read() | ours.read()


@contextmanager
def crew(
    prepare: Callable[..., Do | Work], *args: Any, processes: int = 1, threads: int = 1, warm_up: int = 3
) -> Iterator[Crew]:
    """A crew for the length of a ``with`` block."""
    hired = Crew(prepare, *args, processes=processes, threads=threads, warm_up=warm_up)
    try:
        yield hired
    finally:
        hired.close()


def _client(
    end: Connection, prepare: Callable[..., Do | Work], args: tuple[Any, ...], threads: int, warm_up: int
) -> None:
    prepared = prepare(*args)
    work = prepared if isinstance(prepared, Work) else Work({CYCLE: prepared}, Counter())
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(warm_up):  # connections, plans, and what is made at first use
            list(pool.map(lambda _: work.tasks[CYCLE](), range(threads)))
        end.send("ready")
        while (order := end.recv()) is not None:
            task, begin, until = order
            work.notes.clear()
            time.sleep(max(0.0, begin - time.monotonic()))
            done = list(pool.map(_work, [work.tasks[task]] * threads, [until] * threads))
            work.settle()
            end.send(([latency for each in done for latency in each], time.monotonic(), work.notes))


def _work(do: Do, until: float) -> list[float]:
    latencies = []
    before = time.monotonic()
    while before < until and do() is not False:
        after = time.monotonic()
        latencies.append((after - before) * 1000)
        before = after
    return latencies
