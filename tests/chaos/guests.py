"""The guests of all hosts. Clients define them, as the services that create instances do on real hosts."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import UUID

from portclaim.services.compute_agent.drivers.simulated_guests import SimulatedGuests


class Guests:
    """Threads may share one. An agent hears of a guest through a socket in the network of its host.

    So each host has a thread in that network, which ``enter`` prepares.
    """

    def __init__(self, agents: Path, hosts: Sequence[str], enter: Mapping[str, Callable[[], None]]) -> None:
        """``agents``: the directory with the state of each agent."""
        self._guests = {host: SimulatedGuests(agents / host) for host in hosts}
        self._threads = {host: ThreadPoolExecutor(1, initializer=enter.get(host, int)) for host in hosts}

    def define(self, host: str, instance_id: UUID, *, arriving: bool = False) -> None:
        """The instance comes to the host. ``arriving``: a live migration brings it, and it runs elsewhere."""
        self._on(host, partial(self._guests[host].define, instance_id, arriving=arriving))

    def undefine(self, host: str, instance_id: UUID) -> None:
        """The instance leaves the host."""
        self._on(host, partial(self._guests[host].undefine, instance_id))

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads.values():
            thread.shutdown()

    def _on(self, host: str, change: Callable[[], None]) -> None:
        self._threads[host].submit(change).result()
