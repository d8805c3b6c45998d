"""Clients that compete for ports: some for whole ports, some for VFs, all at the same time."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from portclaim.cli.demo.polling import until_status
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient


@dataclass
class Contention:
    """Each client claims the devices of its alias, waits until they are attached, releases them, and repeats.

    All clients stop when ``to_serve`` claims have been served. A client then keeps the devices that it holds.
    """

    scheduler: SchedulerClient
    aliases: Sequence[str]  # one per client, as in pci_passthrough:alias
    instances: Sequence[uuid.UUID]  # one per client
    avoid_hosts: list[str]
    to_serve: int
    served: int = 0
    refused: int = 0
    holding: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        self._over = threading.Event()

    def run(self, watch: Callable[[int, int], None]) -> None:
        """Run to the end. After each claim, ``watch`` gets the numbers of served and refused ones."""
        start = threading.Barrier(len(self.aliases))
        with ThreadPoolExecutor(len(self.aliases), thread_name_prefix="client") as pool:
            try:
                clients = [
                    pool.submit(self._compete, start, instance, alias, watch)
                    for instance, alias in zip(self.instances, self.aliases, strict=True)
                ]
                for client in clients:
                    client.result()
            finally:
                self._over.set()
                start.abort()  # clients at the barrier must not wait for those that never start

    def _compete(
        self, start: threading.Barrier, instance: uuid.UUID, alias: str, watch: Callable[[int, int], None]
    ) -> None:
        start.wait()
        while not self._over.is_set():
            claim = self._claim(instance, alias)
            self._count(claim is not None)
            watch(self.served, self.refused)
            if claim is None:
                continue
            claim = until_status(self.scheduler, claim.claim_id, "allocated")
            if self._over.is_set():
                self.holding.append(claim)
                return
            self.scheduler.release(claim.claim_id)
            until_status(self.scheduler, claim.claim_id, "released")

    def _claim(self, instance: uuid.UUID, alias: str) -> Claim | None:
        request = ClaimRequest(
            claim_id=uuid.uuid4(),
            instance_id=instance,
            extra_specs={"pci_passthrough:alias": alias},
            avoid_hosts=self.avoid_hosts,
        )
        try:
            return self.scheduler.claim(request)
        except ClaimRefused:
            return None

    def _count(self, was_served: bool) -> None:
        with self._counting:
            self.served += was_served
            self.refused += not was_served
            if self.served >= self.to_serve:
                self._over.set()
