"""``--watch``: show an answer again when something has changed, until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from portclaim.common.errors import PortclaimError

if TYPE_CHECKING:
    from portclaim.cli.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST = 10.0  # seconds until it is asked again although no event came
_LEAST = 1.0  # seconds between two answers, however many events come
_AGAIN = 5.0  # seconds until events are followed again after their service was away


def watch_option(function: Function) -> Function:
    """Adds ``--watch [SECONDS]``. With it, the command is repeated whenever an event comes."""

    @functools.wraps(function)
    def run(*args: Any, watch: float | None, **kwargs: Any) -> Any:
        if watch is None:
            return function(*args, **kwargs)
        session = click.get_current_context().find_root().obj
        with contextlib.suppress(KeyboardInterrupt):
            _repeat(session, watch, lambda: function(*args, **kwargs))
        return None

    return click.option(
        "--watch",
        is_flag=False,
        flag_value=str(LONGEST),
        type=click.FloatRange(min=_LEAST),
        metavar="[SECONDS]",
        help="Show it again whenever an event comes, and at least every SECONDS (10), until Ctrl-C.",
    )(run)  # type: ignore[return-value]


def _repeat(session: Session, seconds: float, show: Callable[[], object]) -> None:
    changed = threading.Event()
    threading.Thread(target=_follow, args=(session, changed), name="events", daemon=True).start()
    known = False
    while True:
        changed.clear()
        began = time.monotonic()
        try:
            draw(show)
            known = True
        except PortclaimError as error:
            if not known:  # a wrong name, for example: the first answer says so
                raise
            click.echo(f"portclaim: {error.message}", err=True)
        changed.wait(seconds)
        time.sleep(max(0.0, began + _LEAST - time.monotonic()))


def _follow(session: Session, changed: threading.Event) -> None:
    """Set ``changed`` with every event. Without events, the command looks at intervals only."""
    while True:
        try:
            for _event in _events(session):
                changed.set()
        except Exception:
            time.sleep(_AGAIN)


def _events(session: Session) -> Any:
    if session.http is not None:
        from portclaim.cli.event_streams import events_over_http
        from portclaim.common.events.schema import EventFilter

        return events_over_http(session.http, EventFilter())
    from portclaim.common.events.stream import EventStream

    return EventStream(session.conf)


class _Screen(io.StringIO):
    """What the command prints for the terminal, collected, so that the terminal never shows a half of it."""

    def isatty(self) -> bool:
        return True


def draw(show: Callable[[], object]) -> None:
    """Print what ``show`` prints: on a terminal over what is there, cut to its height, else below it."""
    if not sys.stdout.isatty():
        show()
        sys.stdout.flush()
        return
    screen = _Screen()
    with contextlib.redirect_stdout(screen):
        show()
    lines = screen.getvalue().splitlines()
    height = shutil.get_terminal_size().lines - 1
    if len(lines) > height:
        lines = [*lines[: height - 1], f"({len(lines) - height + 1} more lines: make the window higher)"]
    sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(lines) + "\n")
    sys.stdout.flush()
