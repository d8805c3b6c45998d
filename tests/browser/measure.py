"""Measure the page on a fleet of 1,000 hosts with 256,000 VFs: ``make test-page``.

``python -m tests.browser.measure 5000`` takes another number of hosts. Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from playwright.sync_api import Browser, Page

from portclaim.common.errors import ClaimRefused
from tests.support import engines, four_questions, postgresql
from tests.support.browser import Shown, chromium, shown
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, http_api
from tests.support.pictured_fleet import build_in_use
from tests.support.straight_fleet import Size

SIZE = Size(int(sys.argv[1]) if len(sys.argv) == 2 else 1000, 4, 64)
ROUNDS = 40
VIEWERS = 900
PAINT = 1.5  # seconds
UPDATE = 0.5  # seconds
MEMORY = 300.0  # MB

_HELD_WHOLE = """
    SELECT n.host, d.address, c.instance_id
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
      JOIN claims c ON c.id = d.claim_id
     WHERE d.dev_type = 'type-PF'
     ORDER BY n.host LIMIT 1
"""
_SILENT = """
    SELECT host FROM compute_nodes
     WHERE last_seen < now() - interval '2 min' AND disabled_reason IS NULL ORDER BY host LIMIT 1
"""

_WATCH = """async () => {
    const { app } = await import('./page/main.js');
    window.painted = 0;
    const paint = () => { window.painted = performance.timeOrigin + performance.now(); };
    app.fleet.listen(message => message.ports.length && requestAnimationFrame(paint));
}"""
_SCROLL = """async () => {
    const map = document.querySelector('.map-scroll');
    const gaps = [];
    let before = performance.now();
    for (let frame = 0; frame < 180; frame += 1) {
        map.scrollTop += 120;
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        gaps.push(now - before);
        before = now;
    }
    return gaps.slice(5);
}"""


def first_paint(browser: Browser, api: HttpApi) -> float:
    """Seconds from the request of the page, with nothing cached, until the map is drawn."""
    with shown(browser, api) as page:
        page.until("performance.getEntriesByName('portclaim-map').length")
        return float(page.page.evaluate("performance.getEntriesByName('portclaim-map')[0].startTime")) / 1000


def update(page: Shown, change: Callable[[], object]) -> float:
    """Seconds from before a claim is made, and so before its commit, until the map is drawn with it."""
    page.page.evaluate("window.painted = 0")
    begun = time.time()
    change()
    page.until("window.painted")
    return float(page.page.evaluate("window.painted")) / 1000 - begun


def memory(browser: Browser, page: Page) -> tuple[float, float]:
    """MB of the heap of JavaScript, and of the tab's process without what it shares with others."""
    tab = page.context.new_cdp_session(page)
    tab.send("HeapProfiler.collectGarbage")
    heap = tab.send("Runtime.getHeapUsage")["usedSize"]
    found = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    tabs = [each["id"] for each in found if each["type"] == "renderer"]
    sizes = [_private(each) for each in tabs]
    return heap / 1e6, max(sizes)


def _private(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kinds = ("Private_Clean:", "Private_Dirty:")
    return sum(int(row.split()[1]) for row in rows if row.startswith(kinds)) / 1000


def load(fleet: Fleet, over: threading.Event) -> None:
    """Ten claims or releases a second."""
    held: list[Any] = []
    while not over.wait(0.1):
        if len(held) < 20:
            held.append(fleet.claim("nic-vf:2"))
        else:
            fleet.release(held.pop(0))


async def _view(url: str, token: str, viewers: int) -> None:
    """Look at the map so many times. Writes a line when all have it; ends with its input."""
    parts = urlsplit(url)
    request = f"GET /v1/map HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
        writer.write(request)
        await reader.readuntil(b"event: map")
        kept.append((writer, asyncio.create_task(_drain(reader))))

    kept: list[tuple[asyncio.StreamWriter, asyncio.Task[None]]] = []
    for _ in range(viewers):
        await one()
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(2**20):
        pass


def viewers(api: HttpApi, fleet: Fleet) -> tuple[float, float]:
    """Milliseconds of CPU for a second without a change, and for one with a change for all viewers."""
    command = [sys.executable, "-m", "tests.browser.measure", api.url, api.token("reader")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(3)
        idle = _cpu(lambda: None)
        busy = _cpu(lambda: fleet.claim("nic-vf:1"))
        process.communicate("", timeout=60)
    return idle * 1000, busy * 1000


def _cpu(change: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(10):
        change()
        time.sleep(1)
    return (time.process_time() - begun) / 10


def questions(page: Shown, fleet: Fleet) -> None:
    """Answer the four questions of an operator; say with how many clicks, and how soon."""
    claim_id = uuid4()
    with suppress(ClaimRefused):
        fleet.claim("nic-pf:5", claim_id)
    fleet.refusals.record()
    [(host, address, instance_id)] = fleet.sql(_HELD_WHOLE)
    [(silent,)] = fleet.sql(_SILENT)
    for name, answer in (
        (
            "who holds this port",
            lambda: four_questions.who_holds_this_port(page, host, address, instance_id),
        ),
        (
            "why was this claim refused",
            lambda: four_questions.why_was_this_claim_refused(page, claim_id),
        ),
        ("where is a whole port free", lambda: four_questions.where_is_a_whole_port_free(page)),
        ("which host is in trouble", lambda: four_questions.which_host_is_in_trouble(page, silent)),
    ):
        begun = time.monotonic()
        clicks = answer()
        say(f"{name}: {clicks} clicks, answered after {time.monotonic() - begun:.2f} s")


def scrolling(page: Shown) -> list[float]:
    page.page.click(".zoom button >> text=VFs")
    page.page.wait_for_timeout(500)
    return sorted(page.page.evaluate(_SCROLL))


def main() -> int:
    engines.begin_run()
    try:
        url = postgresql.create_database()
        fleet = Fleet(url)
        build_in_use(fleet.engine, SIZE)
        with chromium() as browser, http_api(fleet, url) as api:
            return measure(browser, api, fleet)
    finally:
        engines.end_run()


def measure(browser: Browser, api: HttpApi, fleet: Fleet) -> int:
    warm_up = browser.new_page()
    warm_up.goto(api.url)  # it asks for a token
    warm_up.close()
    cold = first_paint(browser, api)
    warm = statistics.median(first_paint(browser, api) for _ in range(5))
    with shown(browser, api) as page:
        page.page.evaluate(_WATCH)
        quiet = [update(page, lambda: fleet.claim("nic-vf:1")) for _ in range(ROUNDS)]
        over = threading.Event()
        thread = threading.Thread(target=load, args=(fleet, over))
        thread.start()
        loaded = [update(page, lambda: fleet.claim("nic-vf:1")) for _ in range(ROUNDS)]
        over.set()
        thread.join()
        gaps = scrolling(page)
        heap, tab = memory(browser, page.page)
    with shown(browser, api) as page:
        questions(page, fleet)
    idle, busy = viewers(api, fleet)
    say(f"{SIZE}: first useful paint {cold:.2f} s for the first viewer, {warm:.2f} s later (median of 5)")
    for name, found in (("in a quiet fleet", quiet), ("beside 10 claims a second", loaded)):
        p95 = statistics.quantiles(found, n=20)[-1]
        say(f"update {name}: median {statistics.median(found):.3f} s, 95 % within {p95:.3f} s")
    middle, late = gaps[len(gaps) // 2], gaps[-len(gaps) // 20]
    say(f"frames while VFs are scrolled: median {middle:.0f} ms, 95 % within {late:.0f} ms")
    say(f"memory after that: heap {heap:.0f} MB, the tab's process {tab:.0f} MB")
    say(
        f"{VIEWERS} viewers: {idle:.0f} ms of CPU a second, with a claim and its change for all {busy:.0f} ms"
    )
    slowest = statistics.quantiles(quiet, n=20)[-1]
    return 0 if max(cold, warm) < PAINT and slowest < UPDATE and tab < MEMORY else 1


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(_view(sys.argv[1], sys.argv[2], VIEWERS))
    else:
        sys.exit(main())
