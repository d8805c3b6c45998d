"""Requests over HTTP as logs and metrics see them: each has an id, and is counted and measured."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portclaim.common import log_context, tracing
from portclaim.common.metrics.catalogue import HTTP_ANSWERS, HTTP_SECONDS

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})


class Observed:
    """Passes requests on to ``app``. A request that does not find its path has the route ``none``.

    Each answer has the header ``X-Request-Id``, which is in every line that any service logs for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = log_context.new_request_id()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", "none")
                HTTP_SECONDS.observe(time.perf_counter() - begun, method, route)
                HTTP_ANSWERS.count(method, route, str(message["status"]))
            await send(message)

        with log_context.about(request_id=request_id, trace_id=tracing.trace_id()):
            await self._app(scope, receive, sent)
