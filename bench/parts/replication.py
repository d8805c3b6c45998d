"""What a synchronous standby costs a claim: the same work, with commits that wait for it and that do not.

The standby is on the same machine and the same disk, so there is no network between the two.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import clients
from bench.crew import crew
from bench.fleet import new_fleet
from bench.sample import Sample, merged, ratio
from bench.site import Site
from tests.support.standby import Pair
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
CLIENTS = (1, 8)
PATIENT, HASTY = "the commit waits for the standby", "the commit does not wait"


def results(site: Site) -> Iterator[dict[str, Any]]:
    """For each number of clients the rates, and the median ratio of both in one round. In process."""
    with tempfile.TemporaryDirectory(prefix="portclaim-standby-") as directory, ExitStack() as stack:
        Path(directory).chmod(0o711)  # the user of PostgreSQL must reach its files
        pair = Pair(Path(directory), os.getpid())
        stack.callback(pair.stop)
        url = new_fleet(pair.primary.url("postgres"), SIZE)
        for count in CLIENTS:
            samples: dict[str, list[Sample]] = {PATIENT: [], HASTY: []}
            processes = min(count, 2)
            with crew(
                clients.in_process,
                url,
                "nic-vf:1",
                count // processes,
                processes=processes,
                threads=count // processes,
            ) as hired:
                hired.run(site.options.seconds)
                for _ in range(max(3, site.options.rounds)):
                    for way, measured in samples.items():
                        pair.wait_for_standby(way == PATIENT)
                        measured.append(hired.run(site.options.seconds))
            yield {
                "name": f"{count} client{'s' * (count > 1)}",
                "ratio": round(ratio(list(zip(samples[PATIENT], samples[HASTY], strict=True))), 3),
                "waits": merged(samples[PATIENT]),
                "does_not_wait": merged(samples[HASTY]),
            }
