"""What failed with a device is tried again at that device's own intervals, or when the kernel tells of it."""

import threading
from collections.abc import Callable, Iterator

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.retries import Retries

ONE, OTHER = PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:02:00.0")


class Bench:
    """Retries whose clock the test turns. ``shows``: what the host shows of each device."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tried: list[tuple[float, PciAddress]] = []
        self.shows: dict[PciAddress, int] = {}
        self.heals: set[PciAddress] = set()
        self.retries = Retries(self._attempt, self.shows.get, lambda: self.now)

    def _attempt(self, address: PciAddress) -> bool:
        self.tried.append((self.now, address))
        return address in self.heals

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.retries.run_due()

    def times(self, address: PciAddress) -> list[float]:
        return [when for when, which in self.tried if which == address]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_device_has_its_own_pauses(bench: Bench) -> None:
    bench.retries.add(ONE)
    bench.wait(60)
    bench.retries.add(OTHER)
    bench.wait(20)
    assert bench.times(ONE) == [5, 15, 35, 75]
    assert bench.times(OTHER) == [65, 75]


def test_a_pause_is_five_minutes_at_most(bench: Bench) -> None:
    bench.retries.add(ONE)
    bench.wait(2000)
    assert bench.times(ONE)[-2:] == [1515, 1815]


def test_a_device_that_fails_again_elsewhere_keeps_its_pause(bench: Bench) -> None:
    bench.retries.add(ONE)
    bench.wait(16)
    bench.retries.add(ONE)
    bench.wait(20)
    assert bench.times(ONE) == [5, 15, 35]


def test_success_ends_the_tries(bench: Bench) -> None:
    bench.retries.add(ONE)
    bench.heals.add(ONE)
    bench.wait(100)
    assert bench.times(ONE) == [5]
    bench.retries.add(ONE)
    bench.wait(5)
    assert bench.times(ONE) == [5, 105]


def test_an_event_of_a_device_that_has_changed_starts_its_try_at_once_and_its_pauses_anew(
    bench: Bench,
) -> None:
    bench.retries.add(ONE)
    bench.wait(40)
    bench.shows[ONE] = 1
    bench.retries.hurry([ONE])
    bench.wait(20)
    assert bench.times(ONE) == [5, 15, 35, 41, 46, 56]


@pytest.mark.parametrize("named", [[ONE], [OTHER], None])
def test_the_events_of_a_try_start_no_other(bench: Bench, named: list[PciAddress] | None) -> None:
    bench.retries.add(ONE)
    bench.wait(6)
    bench.retries.hurry(named)
    bench.wait(4)
    assert bench.times(ONE) == [5]


def test_an_error_of_one_device_does_not_keep_others_from_their_tries(bench: Bench) -> None:
    class Broken(Exception):
        pass

    tried = []

    def attempt(address: PciAddress) -> bool:
        tried.append(address)
        raise Broken

    retries = Retries(attempt, bench.shows.get, lambda: bench.now)
    retries.add(ONE, at_once=True)
    retries.add(OTHER, at_once=True)
    retries.run_due()
    assert tried == [ONE, OTHER]


@pytest.fixture
def start() -> Iterator[Callable[[Retries], None]]:
    started: list[Retries] = []

    def start(retries: Retries) -> None:
        started.append(retries)
        retries.start()

    yield start
    for each in started:
        each.end()


def test_the_thread_tries_at_once_what_cannot_wait(start: Callable[[Retries], None]) -> None:
    tried = threading.Event()

    def attempt(_address: PciAddress) -> bool:
        tried.set()
        return True

    retries = Retries(attempt, lambda _address: None)
    start(retries)
    retries.add(ONE, at_once=True)
    assert tried.wait(60)
