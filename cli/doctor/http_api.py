"""What can be checked where only the HTTP API is reached, and what cannot."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from portclaim.cli.doctor import fleet
from portclaim.cli.doctor.finding import Finding, not_checked, ok, trouble
from portclaim.cli.http_client import shown
from portclaim.common.errors import InvalidConfiguration, PortclaimError
from portclaim.common.rpc.operator_messages import StepFilter, WaitingFilter

if TYPE_CHECKING:
    from portclaim.cli.http_client import HttpScheduler
    from portclaim.cli.session import Session

_ADVICE = {
    "scheduler": "see whether a scheduler and the message bus run: systemctl status portclaim-scheduler",
    "database": "see whether PostgreSQL runs, and whether [database] connection of the API is right",
}
_OVERDUE = 60  # seconds
_MOST = 1000
_NOT_OVER_HTTP = (
    "the configuration, releases, the broker, the settings of PostgreSQL, conductors, clocks, events and the "
    "rules of the data: the HTTP API does not say how they are"
)
_WHERE_IT_IS = (
    "to check them too, call it without a URL and with the file of a scheduler or of portclaim serve: "
    "env -u PORTCLAIM_URL portclaim --config-file FILE doctor"
)


def check(session: Session, url: str, patience: float) -> Iterator[Finding]:
    """Look at the API at ``url``, and through it at the fleet. ``patience``: seconds for an answer."""
    yield ok("version", f"portclaim {version('portclaim')}")
    yield from _through(session, shown(url), patience)
    yield not_checked("the rest", _NOT_OVER_HTTP, _WHERE_IT_IS)


def _through(session: Session, url: str, patience: float) -> Iterator[Finding]:
    from portclaim.cli.http_client import HttpScheduler

    try:
        scheduler = HttpScheduler(url, session.token)
    except InvalidConfiguration as error:
        yield trouble("api", error.message, "set PORTCLAIM_URL and PORTCLAIM_TOKEN")
        return
    scheduler.hurry(patience)
    try:
        checks = _readiness(url, patience)
    except (OSError, ValueError) as error:
        yield trouble(
            "api",
            f"{url} does not answer as the API: {error}",
            "see whether portclaim serve or portclaim-api runs there, and whether the URL is right",
        )
        return
    yield ok("api", f"{url} answers")
    for what, said in checks.items():
        if said == "ok":
            yield ok(what, "answers the API")
        else:
            yield trouble(what, said, _ADVICE.get(what, "read the log of the API"))
    yield from _of_token(scheduler)


def _readiness(url: str, patience: float) -> dict[str, str]:
    """What the API says of all that it needs. It needs no token. Raises OSError and ValueError."""
    # A proxy of the environment is not for this, nor do the other commands use one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        # It answers itself within 5 seconds if something does not.
        with opener.open(f"{url.rstrip('/')}/readyz", timeout=2 * patience) as answer:
            said = answer.read()
    except urllib.error.HTTPError as error:
        said = error.read()
    try:
        return dict(json.loads(said)["checks"])
    except (KeyError, TypeError) as error:
        raise ValueError("it says nothing of its checks") from error


def _of_token(scheduler: HttpScheduler) -> Iterator[Finding]:
    """What the holder of the token may see."""
    try:
        holder = scheduler.json("GET", "/v1/token")
    except PortclaimError as error:
        yield trouble("token", error.message, "set PORTCLAIM_TOKEN to a valid one: portclaim token create")
        return
    yield ok("token", f"{holder['name']}, {holder['role']}")
    if holder["role"] == "claimer" or holder["project"] is not None:
        yield not_checked(
            "fleet",
            "hosts, steps and queues: this token sees only its project",
            "use the token of an operator, or of a reader without a project",
        )
        return
    try:
        yield from _of_fleet(scheduler)
    except PortclaimError as error:
        yield trouble("fleet", error.message, "do what the lines above say, then call it again")


def _of_fleet(scheduler: HttpScheduler) -> Iterator[Finding]:
    summary = scheduler.summary()
    up = summary.hosts - summary.hosts_silent - summary.hosts_drained
    silent = [each.host for each in summary.silent_hosts]
    yield fleet.of_hosts(summary.hosts, up, summary.hosts_silent, silent)
    if summary.steps_parked:
        parked = scheduler.awaited_steps(StepFilter(parked=True, limit=3)).steps
        yield fleet.of_parked(summary.steps_parked, [str(step.claim_id) for step in parked])
    late = scheduler.awaited_steps(StepFilter(older_than=_OVERDUE, limit=_MOST)).steps
    unanswered = [f"{step.claim_id} on {step.host}" for step in late if not step.parked]
    if unanswered:
        yield fleet.of_late(unanswered)
    if not summary.steps_parked and not unanswered:
        yield fleet.of_steps(summary.steps)
    waiting = scheduler.waiting(WaitingFilter(limit=_MOST)).claims
    yield fleet.of_queues(sum(each.expires_in < -_OVERDUE for each in waiting))
