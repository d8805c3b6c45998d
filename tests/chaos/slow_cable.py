"""A cable that delays and loses packets: a program between two devices of the kernel (TAP)."""

import fcntl
import heapq
import os
import select
import struct
import threading
import time
from pathlib import Path
from random import Random

TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 65536  # bytes; the kernel splits what is longer than the MTU


class SlowCable:
    """Makes the devices ``left`` and ``right``, and joins them from :meth:`start` until :meth:`end`.

    Each frame comes ``delay`` seconds later, in order; the part ``loss`` of them does not come at all.
    """

    def __init__(self, left: str, right: str, delay: float, loss: float, seed: float) -> None:
        self._taps = (_open(left), _open(right))
        self._delay, self._loss, self._random = delay, loss, Random(seed)
        self._end, self._ended = os.pipe()
        self.carried = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._carry, name=f"cable {left}", daemon=True)

    def start(self) -> None:
        """Carry frames. Both devices must be up: the kernel takes none for one that is down."""
        self._thread.start()

    def end(self) -> None:
        """Remove the devices."""
        os.close(self._ended)
        self._thread.join()
        for descriptor in (*self._taps, self._end):
            os.close(descriptor)

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            pause = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            ready, _, _ = select.select([*self._taps, self._end], [], [], pause)
            if self._end in ready:
                return
            for side, tap in enumerate(self._taps):
                if tap in ready:
                    frame = os.read(tap, _FRAME)
                    if self._random.random() < self._loss:
                        self.lost += 1
                        continue
                    number += 1
                    heapq.heappush(
                        under_way, (time.monotonic() + self._delay, number, self._taps[1 - side], frame)
                    )
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, tap, frame = heapq.heappop(under_way)
                os.write(tap, frame)
                self.carried += 1


def _open(name: str) -> int:
    descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor
