"""A way to a server on this machine that can hang, as if the server had stopped where it is."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class HangingProxy:
    """Passes on what it gets, until it hangs. Then its connections stay open, and new ones can be opened."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self._others: dict[socket.socket, socket.socket] = {}  # the other end of each
        self._selector = selectors.DefaultSelector()
        for each in (self._listener, self._woken):
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def hang(self) -> None:
        """Pass nothing on from now on."""
        self._wake.send(b".")
        self._thread.join()

    def close(self) -> None:
        if self._thread.is_alive():
            self.hang()
        for each in (self._listener, self._wake, self._woken, *self._others):
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                if ready is self._woken:
                    return
                if ready is self._listener:
                    self._accept()
                elif isinstance(ready, socket.socket) and ready in self._others:
                    self._pass_on(ready)

    def _accept(self) -> None:
        near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._to))
        for one, other in ((near, far), (far, near)):
            self._others[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, ready: socket.socket) -> None:
        try:
            data = ready.recv(1 << 16)
        except ConnectionError:
            data = b""
        if data:
            self._others[ready].sendall(data)
            return
        for each in (ready, self._others.pop(ready)):
            self._others.pop(each, None)
            self._selector.unregister(each)
            each.close()


@contextmanager
def hanging_proxy(port: int) -> Iterator[HangingProxy]:
    """A proxy of the server at this port, which does not hang yet."""
    proxy = HangingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
