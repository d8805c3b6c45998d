"""What a line of the log is about: the request, the claim, the host and the trace, with every line.

oslo.log writes them in brackets, or as ``context`` of a JSON object with ``[DEFAULT] use_json``. The facts
follow a call over the bus: its context has the id of the request.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from oslo_config import cfg
from oslo_log import log

from portclaim.common import log_lines

_FORMAT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [%(about)s] %(message)s"
_LONGEST = 200  # characters of a fact. A caller may have chosen it
_NAMES = {"request_id": "", "claim_id": "claim ", "host": "host ", "trace_id": "trace "}

_facts: ContextVar[Mapping[str, str]] = ContextVar("portclaim_log_facts", default={})  # noqa: B039 - never changed


def set_defaults() -> None:
    """Have oslo.log write the facts. Call it before the configuration is read."""
    log.set_defaults(logging_context_format_string=_FORMAT)


def install(conf: cfg.ConfigOpts) -> None:
    """Give the facts to every line. Call it after oslo.log was set up."""
    log_lines.install(conf)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_give_context)


class about:
    """Lines that are logged in the block are about these facts too: ``claim_id``, ``host``, ``trace_id``,
    ``request_id``. None, and what cannot be in a line, is left out.
    """

    __slots__ = ("_known", "_token")

    def __init__(self, **facts: object) -> None:
        self._known = printable(**facts)

    def __enter__(self) -> None:
        self._token = _facts.set({**_facts.get(), **self._known})

    def __exit__(self, *_error: object) -> None:
        _facts.reset(self._token)


def printable(**facts: object) -> dict[str, str]:
    """Those of the facts that can be in a line, as text."""
    return {name: text for name, fact in facts.items() if (text := _printable(fact))}


def request_id() -> str:
    """The id of the request that is worked on, or a new one."""
    return _facts.get().get("request_id") or new_request_id()


def new_request_id() -> str:
    return f"req-{secrets.token_hex(8)}"


def _printable(fact: object) -> str | None:
    text = "" if fact is None else str(fact)
    return text if text and len(text) <= _LONGEST and text.isprintable() else None


def _give_context(record: logging.LogRecord) -> bool:
    facts = _facts.get()
    if facts and not hasattr(record, "context"):
        said = " ".join(f"{word}{facts[name]}" for name, word in _NAMES.items() if name in facts)
        context: dict[str, Any] = {"request_id": "-", **facts, "about": said}
        record.context = context
    return True
