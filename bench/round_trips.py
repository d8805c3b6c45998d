"""Counts round trips to PostgreSQL where they pass: at a socket between the client and the server."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

_NAME = ".s.PGSQL.5432"
_READY = b"Z"  # ReadyForQuery ends the answer to whatever the client has sent


class Counter:
    """``url`` leads to the same database; ``trips`` is how often it has answered there."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = sa.make_url(url).set(query={"host": str(directory)}).render_as_string(hide_password=False)
        self.trips = 0
        self._server = str(Path(str(sa.make_url(url).query["host"])) / _NAME)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / _NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=_forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        """Forward message by message: a type of one byte, a length that counts itself too, and the rest."""
        with suppress(OSError), server.makefile("rb") as messages:
            while head := messages.read(5):
                self.trips += head[:1] == _READY
                client.sendall(head + messages.read(int.from_bytes(head[1:]) - 4))


def _forward(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while data := client.recv(65536):
            server.sendall(data)
        server.close()


@contextmanager
def counted(url: str) -> Iterator[Counter]:
    """A counter before the database at ``url``, which is reached by a socket in the file system."""
    with tempfile.TemporaryDirectory() as directory:
        counter = Counter(url, Path(directory))
        try:
            yield counter
        finally:
            counter.close()
