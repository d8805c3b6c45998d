"""Clients that fight over ports: whole against sliced, all at once, again and again."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from portclaim.cli.demo.waiting import until_status
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient


@dataclass
class Contest:
    """Each client claims what its wish says; what it gets it uses, gives back, and claims again.

    Once ``to_serve`` claims have been served it is over: what a client has by then it keeps.
    """

    scheduler: SchedulerClient
    wishes: Sequence[str]  # one per client, as in pci_passthrough:alias
    instances: Sequence[uuid.UUID]  # one per client
    avoid_hosts: list[str]
    to_serve: int
    served: int = 0
    refused: int = 0
    kept: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        self._over = threading.Event()

    def run(self, watch: Callable[[int, int], None]) -> None:
        """Fight to the end. ``watch`` is told the numbers of served and refused claims as they grow."""
        gun = threading.Barrier(len(self.wishes))
        with ThreadPoolExecutor(len(self.wishes), thread_name_prefix="client") as pool:
            try:
                clients = [
                    pool.submit(self._fight, gun, instance, wish, watch)
                    for instance, wish in zip(self.instances, self.wishes, strict=True)
                ]
                for client in clients:
                    client.result()
            finally:
                self._over.set()
                gun.abort()  # if not all have come to the start, nobody waits for the rest

    def _fight(
        self, gun: threading.Barrier, instance: uuid.UUID, wish: str, watch: Callable[[int, int], None]
    ) -> None:
        gun.wait()
        while not self._over.is_set():
            claim = self._claim(instance, wish)
            self._count(claim is not None)
            watch(self.served, self.refused)
            if claim is None:
                continue
            claim = until_status(self.scheduler, claim.claim_id, "allocated")
            if self._over.is_set():
                self.kept.append(claim)
                return
            self.scheduler.release(claim.claim_id)
            until_status(self.scheduler, claim.claim_id, "released")

    def _claim(self, instance: uuid.UUID, wish: str) -> Claim | None:
        request = ClaimRequest(
            claim_id=uuid.uuid4(),
            instance_id=instance,
            extra_specs={"pci_passthrough:alias": wish},
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
