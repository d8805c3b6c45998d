"""What the parts of a run share: the server, the options, the fleets and the running services."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from bench import bus
from bench.cpu import Meter
from bench.crew import Crew
from bench.fleet import new_fleet
from bench.results_of import REFERENCE_CLIENTS
from bench.sample import Sample
from bench.server import Server, durable_postgresql
from tests.support.straight_fleet import Size

T = TypeVar("T")

_WARM_UP = 1.5  # seconds


class Options(NamedTuple):
    """``rounds`` of ``seconds`` each for every contestant; ``sizes`` of fleets and numbers of ``clients``.

    ``short``: the parts that have a long and a short form run in the short one. ``postgresql``: the folders
    of other releases' programs.
    """

    sizes: Sequence[Size]
    clients: Sequence[int]
    rounds: int
    seconds: float
    soak_seconds: float
    short: bool
    postgresql: Sequence[Path] = ()

    @property
    def reference_clients(self) -> int:
        """The number for which a claim and its end are measured apart."""
        return max((count for count in self.clients if count <= REFERENCE_CLIENTS), default=self.clients[0])


class Site:
    """The services of one part run at a time: what runs takes processor time, even at rest."""

    def __init__(self, server: Server, options: Options) -> None:
        self.server = server
        self.options = options
        self._fleets: dict[Size, str] = {}
        self._running = ExitStack()
        self._key: object = None
        self._current: object = None

    def fleet(self, size: Size) -> str:
        """The URL of a database with such a fleet, partly in use. It stays until :meth:`forget`."""
        if size not in self._fleets:
            self._fleets[size] = new_fleet(self.server.url, size)
        return self._fleets[size]

    def forget(self, size: Size) -> None:
        """Drop the fleet, if it is there."""
        self.stop()
        if size in self._fleets:
            self.server.drop_database(self._fleets.pop(size))

    def services(
        self, url: str, modules: Sequence[str] = bus.PORTCLAIM, start_broker: bus.StartBroker = bus.one_node
    ) -> bus.Running:
        """These services on this database. Others that were running are stopped."""
        key = (url, start_broker, *modules)
        return self.running(key, lambda: bus.services(url, modules, start_broker))

    def running(self, key: object, start: Callable[[], AbstractContextManager[T]]) -> T:
        """What ``start`` yields, started unless it is what runs; all else is stopped."""
        if key != self._key:
            self.stop()
            self._current = self._running.enter_context(start())
            self._key = key
        return self._current  # type: ignore[return-value]

    def stop(self) -> None:
        """Stop what runs."""
        self._running.close()
        self._key = self._current = None

    def meter(self, url: str, **parts: int | tuple[int, ...]) -> Meter:
        """Of PostgreSQL, as far as it works for this database, and of other processes."""
        return Meter({**parts, "postgresql": self.server.pid}, sa.make_url(url).database)

    def rounds(self, crew: Crew, meter: Meter) -> list[Sample]:
        """What the crew does in all rounds. Before that, every thread of the services gets some work."""
        crew.run(min(self.options.seconds, _WARM_UP))
        return [crew.run(self.options.seconds, meter=meter) for _ in range(self.options.rounds)]


@contextmanager
def new_site(options: Options) -> Iterator[Site]:
    """A site for the length of a ``with`` block."""
    with durable_postgresql() as server:
        site = Site(server, options)
        try:
            yield site
        finally:
            site.stop()
