"""Lines of the log are the same as oslo.log alone would write them."""

import copy
import logging
import sys
from typing import Any

import pytest
from oslo_config import cfg
from oslo_log import log
from oslo_log.formatters import ContextFormatter

from portclaim.common import log_context
from portclaim.common.log_lines import LineFormatter

REQUEST = {"request_id": "req-0123456789abcdef", "claim_id": "c1", "about": "req-0123456789abcdef claim c1"}
FORMATS = [
    {},
    {"logging_context_format_string": "%(isotime)s %(request_id)s %(message)s"},
    {"logging_context_format_string": "%(project)s %(version)s %(funcName)s %(claim_id)s %(message)s"},
    {"logging_default_format_string": "%(user_identity)s%(instance)s|%(message)s", "log_date_format": "%H"},
]


def formatters(options: dict[str, str]) -> tuple[ContextFormatter, LineFormatter]:
    """oslo.log's own, and the one that takes its place."""
    log_context.set_defaults()
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf([], project="portclaim")
    for name, value in options.items():
        conf.set_override(name, value)
    known = {"project": "portclaim", "version": "1.2"}
    theirs = ContextFormatter(config=conf, datefmt=conf.log_date_format, **known)
    return theirs, LineFormatter(conf, theirs)


def record(level: int, message: str, *args: object, context: Any = None, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("portclaim.x", level, "x.py", 7, message, args, more.pop("exc_info", None), "f")
    made.__dict__.update(more)
    if context is not None:
        made.context = context
    return made


def an_error() -> Any:
    try:
        int("no number")
    except ValueError:
        return sys.exc_info()
    raise AssertionError


@pytest.mark.parametrize("options", FORMATS, ids=lambda options: ", ".join(options) or "default")
@pytest.mark.parametrize(
    "line",
    [
        record(logging.INFO, "claim %s is %s", "c1", "claimed", context=REQUEST),
        record(logging.INFO, "100 %% of %s", "it", context={**REQUEST, "host": "h1"}),
        record(logging.INFO, "100 % and no more"),
        record(logging.INFO, "nobody asked for %s", "this"),
        record(logging.INFO, "the host has no request", context={"request_id": "", "host": "h1"}),
        record(logging.INFO, "with an error", exc_info=an_error()),
        record(logging.INFO, "of an instance", instance={"uuid": "i1"}, context=REQUEST),
        record(logging.INFO, "too %s", "many", "facts", context=REQUEST),
        record(logging.WARNING, "a warning of %s", "it", context=REQUEST),
        record(logging.ERROR, "failed", exc_info=an_error(), context=REQUEST),
        record(logging.DEBUG, "for developers", context=REQUEST),
    ],
    ids=lambda line: line.msg,
)
def test_it_is_the_same_line(options: dict[str, str], line: logging.LogRecord) -> None:
    theirs, ours = formatters(options)
    assert written(ours, line) == written(theirs, line)
    assert written(ours, line) == written(theirs, line)  # within the same second


def written(formatter: ContextFormatter, line: logging.LogRecord) -> str:
    """The line, or the error that the handler would write."""
    try:
        return str(formatter.format(copy.copy(line)))
    except (KeyError, TypeError, ValueError) as error:
        return repr(error)
