"""``python -m bench.run``: measure Portclaim and its peers in one run, on one PostgreSQL with fsync on.

Each part writes ``results/PART.json`` as soon as it has something, with the machine and the versions. Parts
that have a fleet are measured for one size after the other. ``python -m bench.report`` makes the pages
docs/performance.md and docs/scaling.md from the files.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import machine
from bench.site import Options, Site, new_site
from tests.support.straight_fleet import Size

RESULTS = Path(__file__).parent / "results"

PER_SIZE = {
    "rpc": "bench.parts.rpc:single",
    "many": "bench.parts.rpc:many",
    "http": "bench.parts.http:results",
    "refusals": "bench.parts.refusals:results",
    "placement": "bench.parts.placement:results",
}
ONCE = {
    "in_process": "bench.parts.in_process:results",
    "bus": "bench.parts.bus:results",
    "cluster": "bench.parts.cluster:results",
    "replication": "bench.parts.replication:results",
    "inventory": "bench.parts.inventory:results",
    "events": "bench.parts.events:results",
    "nova": "bench.parts.nova:results",
    "growth": "bench.parts.growth:results",
    "soak": "bench.parts.soak:results",
    "packing": "bench.parts.packing:results",
    "matching": "bench.parts.matching:results",
}
MORE = {
    "observability": "bench.parts.observability:results",
    "signing": "bench.parts.signing:results",
    "refused_messages": "bench.parts.refused_messages:results",
    "postgresql": "bench.parts.postgresql:results",
}
"""What is measured only if it is asked for, so that all the others take less than 40 minutes."""

LONG = Options([Size(100, 2, 8), Size(1000, 4, 64), Size(5000, 4, 64)], (1, 8, 32), 2, 3.0, 120.0, False)
SHORT = Options([Size(100, 2, 8), Size(1000, 4, 64)], (8,), 1, 2.0, 20.0, True)


class Book:
    """The results of a run, one file for each part, written anew with each result."""

    def __init__(self, folder: Path, site: Site) -> None:
        self._folder = folder
        self._head = {
            "machine": machine.machine(),
            "versions": machine.versions() | {"postgresql": site.server.settings()},
            "run": {
                **site.options._asdict(),
                "sizes": [str(size) for size in site.options.sizes],
                "postgresql": len(site.options.postgresql),
                "load_before": machine.load(),
                "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            },
        }
        self._results: dict[str, list[dict[str, Any]]] = {}

    def write(self, part: str, results: Iterable[dict[str, Any]]) -> None:
        """Add the results of a part, one by one as they are made."""
        for result in results:
            print(json.dumps({"part": part, **result}), flush=True)
            self._results.setdefault(part, []).append(result)
            text = json.dumps({**self._head, "results": self._results[part]}, indent=1)
            (self._folder / f"{part}.json").write_text(text + "\n")


def main() -> None:
    """Measure what is asked for, print every result, and write the files."""
    options, parts, folder = _arguments()
    folder.mkdir(parents=True, exist_ok=True)
    with new_site(options) as site:
        book = Book(folder, site)
        for size in options.sizes:
            for part in [part for part in PER_SIZE if part in parts]:
                _measure(book, part, PER_SIZE[part], site, size)
            site.forget(size)
        for part, place in (ONCE | MORE).items():
            if part in parts:
                _measure(book, part, place, site)


def _measure(book: Book, part: str, place: str, *facts: object) -> None:
    module, _, name = place.partition(":")
    results: Callable[..., Iterable[dict[str, Any]]] = getattr(importlib.import_module(module), name)
    began = time.monotonic()
    book.write(part, results(*facts))
    print(json.dumps({"part": part, "took_s": round(time.monotonic() - began, 1)}), flush=True)


def _arguments() -> tuple[Options, list[str], Path]:
    usual = [*PER_SIZE, *ONCE]
    every = [*usual, *MORE]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer, smaller and shorter: in some minutes")
    parser.add_argument("--parts", type=_names, default=usual, help=f"of {','.join(every)}")
    parser.add_argument("--sizes", type=_names, help="of fleets: HOSTSxPORTSxVFS, ...")
    parser.add_argument("--clients", type=_names, help="how many, like 1,8,32")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="for each contestant in each round")
    parser.add_argument(
        "--postgresql",
        type=Path,
        nargs="+",
        help="folders of other releases' programs, for the part postgresql",
    )
    parser.add_argument("--soak-seconds", type=float, help="how long the part soak takes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(every):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: the parts are {', '.join(every)}")
    options = SHORT if arguments.short else LONG
    asked = {
        "sizes": arguments.sizes and [Size(*map(int, each.split("x"))) for each in arguments.sizes],
        "clients": arguments.clients and [int(each) for each in arguments.clients],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "soak_seconds": arguments.soak_seconds,
        "postgresql": arguments.postgresql,
    }
    options = options._replace(**{name: value for name, value in asked.items() if value})
    return options, arguments.parts, arguments.results


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
