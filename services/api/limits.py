"""Limits of clients: how many there are, how long a body is, and how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portclaim.services.api.problems import Busy, ContentTooLarge, RequestTimeout, fault_of


class ConnectionLimit:
    """Refuses requests while there are more connections than ``most``, and closes theirs.

    ``connections``: how many there are now. uvicorn's own limit answers plain text, not a problem.
    """

    def __init__(self, app: ASGIApp, most: int, connections: Callable[[], int]) -> None:
        self._app = app
        self._most = most
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections() <= self._most:
            await self._app(scope, receive, send)
            return
        response = fault_of(Busy("too many connections: repeat the request later")).response()
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


class BodyLimits:
    """Reads the whole body before the application does, and refuses one that is too long or too slow."""

    def __init__(self, app: ASGIApp, max_body: int, timeout: float) -> None:
        self._app = app
        self._max_body = max_body
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._body(scope, receive)
        except TimeoutError:
            fault = fault_of(RequestTimeout(f"the body did not arrive within {self._timeout:g} s"))
        except ContentTooLarge as error:
            fault = fault_of(error)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)
            return
        response = fault.response()
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body. None: the client has gone. Raises :class:`ContentTooLarge`."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> ContentTooLarge:
        return ContentTooLarge(
            f"the body is longer than {self._max_body} bytes: send less, or several requests"
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """``receive`` for the application: the body at once, then what the client does."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
