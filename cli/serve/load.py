"""Random clients that claim, hold and release, so that there is something to see."""

from __future__ import annotations

import logging
import random
import threading
import uuid

from portclaim.common.errors import ClaimRefused, PortclaimError
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.operator_messages import ClaimFilter
from portclaim.common.rpc.pages import pages
from portclaim.common.rpc.scheduler import SchedulerClient

LOG = logging.getLogger(__name__)

PROJECT = "load"
_CLIENTS = 8
_ASKED = ("nic-vf:1", "nic-vf:1", "nic-vf:2", "nic-vf:4", "nic-pf:1", "gpu:1")
_LONGEST_HOLD = 8.0  # seconds
_LONGEST_PAUSE = 2.0


class Load:
    """Clients in threads. A start releases what the clients of the last start held."""

    def __init__(self, scheduler: SchedulerClient) -> None:
        self._scheduler = scheduler
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"load-{number}", daemon=True)
            for number in range(_CLIENTS)
        ]

    def start(self) -> None:
        wanted = ClaimFilter(project=PROJECT, statuses=["waiting", "claimed", "prepared", "allocated"])
        for page in pages(self._scheduler.claims, wanted):
            for claim in page.claims:
                self._scheduler.release(claim.claim_id)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop claiming. What is held stays held until the next start."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                claim = self._scheduler.claim(
                    ClaimRequest(
                        claim_id=uuid.uuid4(),
                        instance_id=uuid.uuid4(),
                        extra_specs={"pci_passthrough:alias": random.choice(_ASKED)},  # noqa: S311
                        project=PROJECT,
                    )
                )
                self._over.wait(random.uniform(0.2, _LONGEST_HOLD))  # noqa: S311
                self._scheduler.release(claim.claim_id)
            except ClaimRefused:
                pass
            except PortclaimError as error:
                LOG.info("a client of --load goes on after: %s", error)
            self._over.wait(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311
