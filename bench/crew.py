"""Clients that do the same thing again and again, in processes of their own, and are timed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from bench.sample import Sample

Do = Callable[[], None]
_SPAWN = multiprocessing.get_context("spawn")  # a process as a service is one: nothing comes along


class Crew:
    """So many ``processes`` with so many ``threads`` each; every thread is a client.

    In each process, ``prepare(*args)`` is called once; it answers what a client then does again and again.
    """

    def __init__(self, prepare: Callable[..., Do], *args: Any, processes: int = 1, threads: int = 1) -> None:
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            mine, its = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_client, args=(its, prepare, args, threads), daemon=True)
            process.start()
            self._ends.append(mine)
            self._processes.append(process)
        for end in self._ends:
            assert end.recv() == "ready"

    def run(self, seconds: float) -> Sample:
        """Let all clients work for so long."""
        begin = time.monotonic() + 0.05  # the same clock in all processes
        for end in self._ends:
            end.send((begin, begin + seconds))
        latencies: list[float] = []
        last = begin
        for end in self._ends:
            theirs, ended = end.recv()
            latencies += theirs
            last = max(last, ended)
        return Sample(len(latencies) / (last - begin), latencies)

    def close(self) -> None:
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join()


@contextmanager
def crew(prepare: Callable[..., Do], *args: Any, processes: int = 1, threads: int = 1) -> Iterator[Crew]:
    """A crew for the length of a ``with`` block."""
    hired = Crew(prepare, *args, processes=processes, threads=threads)
    try:
        yield hired
    finally:
        hired.close()


def _client(end: Connection, prepare: Callable[..., Do], args: tuple[Any, ...], threads: int) -> None:
    do = prepare(*args)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):  # connections, plans, and what is made at first use
            list(pool.map(lambda _: do(), range(threads)))
        end.send("ready")
        while (task := end.recv()) is not None:
            begin, until = task
            time.sleep(max(0.0, begin - time.monotonic()))
            done = list(pool.map(_work, [do] * threads, [until] * threads))
            end.send(([latency for each in done for latency in each], time.monotonic()))


def _work(do: Do, until: float) -> list[float]:
    latencies = []
    before = time.monotonic()
    while before < until:
        do()
        after = time.monotonic()
        latencies.append((after - before) * 1000)
        before = after
    return latencies
