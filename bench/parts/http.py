"""Claims over HTTP: what they take with the API in front of the scheduler, and a token in each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import bus, http_clients
from bench.parts.rpc import VF, by_clients
from bench.site import Site
from tests.support.straight_fleet import Size


def results(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """A claim, its release and the agent's answer, by 1, 8 and 32 clients."""
    modules = (*bus.PORTCLAIM, bus.API)
    yield from by_clients(site, size, "http", http_clients.over_http, VF, modules=modules)
