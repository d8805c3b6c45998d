"""The web server: uvicorn in a thread, with a limit of time for clients that connect and send nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portclaim.common.errors import InvalidConfiguration, ServiceFailed
from portclaim.services.api.backend import Backend
from portclaim.services.api.limits import ConnectionLimit

_START = 30.0  # seconds
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Several processes may listen on one port.

    Raises :class:`InvalidConfiguration` if the address is not free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Connections inherit it. asyncio would set it only for sockets that name their protocol. Without it, an
    # answer waits some 40 ms until the client has acknowledged its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(f"[api] listen, port: cannot listen on {host}:{port}: {error}") from error
    listener.listen(_BACKLOG)
    return listener


def _protocol(timeout: float) -> type[HttpToolsProtocol]:
    """uvicorn alone waits for ever for the head of the first request, and for the rest of a head."""

    class Impatient(HttpToolsProtocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._patience is None:
                self._wait()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._patience = self.loop.call_later(timeout, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Impatient


class Server:
    """Serves an application until it is stopped."""

    def __init__(self, app: FastAPI, backend: Backend, listener: socket.socket) -> None:
        options = backend.options
        self._backend = backend
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                ConnectionLimit(
                    app,
                    options.max_connections,
                    lambda: len(self._server.server_state.connections),
                ),
                http=_protocol(options.request_timeout),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=65,
                timeout_graceful_shutdown=max(round(options.stop_timeout), 1),
                backlog=_BACKLOG,
            )
        )
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        """Return when it takes requests."""
        self._thread.start()
        if not self._started.wait(_START):
            raise ServiceFailed("the API did not start")

    def stop(self) -> None:
        """Take no more requests, answer those in hand, and return."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._backend.end)
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._started.set)
        self._backend.totals.start()
        await self._server.serve(sockets=[self._listener])
