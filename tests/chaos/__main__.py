"""`make chaos`: inject faults into a whole Portclaim on this machine, and print a table of the results.

Ends with 1 if anything was wrong. PORTCLAIM_CHAOS_KEEP=1 in the environment leaves the logs where they are.
"""

import argparse
import sys
import time
from pathlib import Path
from random import Random

from rich.console import Console

from tests.chaos import privacy, report
from tests.chaos.campaign import Campaign
from tests.chaos.deck import deal
from tests.chaos.network_faults import CutNetwork
from tests.chaos.site import Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--seed", type=int, default=1, help="what decides which and when (1)")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new fault after so long (60)")
    parser.add_argument("--clients", type=int, default=4, help="who claim and release all the time (4)")
    parser.add_argument("--hosts", type=int, default=5, help="with an agent each (5)")
    parser.add_argument("--only", help="faults whose names contain this")
    parser.add_argument("--cut", type=float, default=CutNetwork.seconds, help="seconds of a cut (30)")
    parser.add_argument("--results", type=Path, help="JSON file to write; the table goes beside it")
    wanted = parser.parse_args()
    privacy.enter()

    console, began, random = (
        Console(width=None if sys.stdout.isatty() else 160),
        time.monotonic(),
        Random(wanted.seed),
    )
    console.print(f"begins: {wanted.faults} faults, seed {wanted.seed}", highlight=False)
    site = Site(wanted.hosts)
    console.print(f"logs in {site.directory}", highlight=False)
    campaign = Campaign(site, deal(wanted.faults, random, wanted.only), random, wanted.clients, wanted.cut)
    with console.status("the first claims ...") as status:

        def tell(news: str) -> None:
            minutes, wrong = (time.monotonic() - began) / 60, len(campaign.wrong)
            status.update(f"{campaign.injected} faults in {minutes:.1f} min, {wrong} wrong")
            console.print(f"{minutes:5.2f} min  {news}", highlight=False)

        campaign.run(began + wanted.minutes * 60, tell)
        ended_badly = site.close()
    seconds = time.monotonic() - began
    load = campaign.load
    title = f"{campaign.injected} faults, seed {wanted.seed}, in {seconds / 60:.0f} min, {load.calls} calls"
    console.print(report.table(campaign, title))
    console.print(report.work(load), highlight=False)
    wrong = list(dict.fromkeys([*campaign.wrong, *load.wrong, *ended_badly]))
    for each in wrong:
        console.print(f"WRONG: {each}", style="red", markup=False, highlight=False)
    if wanted.results is not None:
        command = f"python -m tests.chaos --faults {wanted.faults} --seed {wanted.seed}"
        report.write(campaign, wanted.results, command, wanted.seed, seconds)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
