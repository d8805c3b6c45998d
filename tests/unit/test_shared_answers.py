"""An answer that many ask for at the same time is read once, and never older than the question."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from portclaim.services.api.shared_answers import SharedAnswers


class Source:
    """Counts what is read from it. A read ends when it is told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        self.begun.set()
        await self.go_on.wait()
        return number


def run(test: Callable[[Source, SharedAnswers], Awaitable[None]], pause: float = 0.01) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(Source(), SharedAnswers(pause)), 20)

    with ThreadPoolExecutor(1) as thread:  # a browser's event loop may run in this one
        thread.submit(asyncio.run, main()).result()


def test_all_who_ask_before_a_read_begins_share_it() -> None:
    async def test(source: Source, shared: SharedAnswers) -> None:
        source.go_on.set()
        asked = [shared.get("same", source.read) for _ in range(100)]
        other = shared.get("other", source.read)
        assert await asyncio.gather(*asked, other) == [1] * 100 + [2]

    run(test)


def test_who_asks_while_a_read_runs_gets_the_next_one() -> None:
    async def test(source: Source, shared: SharedAnswers) -> None:
        first = asyncio.create_task(shared.get("same", source.read))
        await source.begun.wait()
        later = [asyncio.create_task(shared.get("same", source.read)) for _ in range(3)]
        source.go_on.set()
        assert await asyncio.gather(first, *later) == [1, 2, 2, 2]

    run(test)


def test_reads_of_the_same_begin_a_pause_apart() -> None:
    async def test(source: Source, shared: SharedAnswers) -> None:
        source.go_on.set()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(3):
            await shared.get("same", source.read)
        assert source.reads == 3
        assert loop.time() - begun > 0.19

    run(test, pause=0.1)


def test_one_caller_who_goes_takes_nothing_from_the_others() -> None:
    async def test(source: Source, shared: SharedAnswers) -> None:
        one, other = (asyncio.create_task(shared.get("same", source.read)) for _ in range(2))
        await source.begun.wait()
        one.cancel()
        source.go_on.set()
        assert await other == 1

    run(test)


def test_an_error_is_for_all_who_asked_and_for_nobody_else() -> None:
    async def test(source: Source, shared: SharedAnswers) -> None:
        async def fails() -> int:
            raise ValueError("no")

        found = await asyncio.gather(*(shared.get("same", fails) for _ in range(2)), return_exceptions=True)
        assert [str(each) for each in found] == ["no", "no"]
        source.go_on.set()
        assert await shared.get("same", source.read) == 1

    run(test)
