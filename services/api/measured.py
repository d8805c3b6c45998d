"""Count requests over HTTP, and how long they take, for Prometheus."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portclaim.common.metrics import kinds
from portclaim.common.metrics.catalogue import HTTP_ANSWERS, HTTP_SECONDS

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})


class Measured:
    """Passes requests on to ``app``. A request that does not find its path has the route ``none``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not kinds.is_on() or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", "none")
                HTTP_SECONDS.observe(time.perf_counter() - begun, method, route)
                HTTP_ANSWERS.count(method, route, str(message["status"]))
            await send(message)

        await self._app(scope, receive, sent)
