"""``portclaim doctor``: look at everything that Portclaim depends on, and say what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from portclaim.cli import documents
from portclaim.cli.doctor.finding import STATUS, Finding, ok, trouble, warning
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    import sqlalchemy as sa

_COLOURS = {"ok": "green", "not checked": "dim", "warning": "yellow", "trouble": "bold red"}
_PATIENCE = 5.0  # seconds for an answer


@command()
@click.option(
    "--rules/--no-rules",
    default=True,
    show_default=True,
    help="Check the rules of the data too. That reads all devices and claims: seconds, in a large fleet.",
)
@click.option("--quiet", is_flag=True, help="Show only warnings and trouble.")
@output_option
@click.pass_obj
def doctor(session: Session, rules: bool, quiet: bool, output: str) -> None:
    """Check configuration, versions, bus, database, agents, steps and data, and say what to do.

    Example: portclaim doctor --quiet

    It changes nothing. It needs the configuration of a scheduler, with [database] connection and
    [DEFAULT] transport_url. With --url it looks at the API, and through it at the scheduler, the database,
    hosts, steps and queues, as far as the token may. It says what it could not check.

    Exit status, as monitoring systems read it: 0 all that was checked is ok; 1 warning: somebody should look
    at it in the next days; 2 trouble: something does not work now.

    Next: do what the last column says, and call it again.
    """
    findings = [each for each in _findings(session, rules) if not quiet or STATUS[each.verdict]]
    if output != documents.TABLE:
        documents.document(output, [each._asdict() for each in findings])
    else:
        _print(findings)
    sys.exit(max((STATUS[each.verdict] for each in findings), default=0))


def _findings(session: Session, rules: bool) -> Iterator[Finding]:
    from portclaim.cli.doctor import bus, configuration, http_api

    if session.url is not None:
        yield from http_api.check(session, session.url, _PATIENCE)
        return
    try:
        conf = session.conf
    except InvalidConfiguration as error:
        yield trouble("configuration", error.message, "correct the file; no service starts with it")
        return
    except SystemExit:  # oslo.config has said on standard error which option it is
        yield trouble(
            "configuration", "an option has an invalid value", "correct the file; no service starts"
        )
        return
    yield from configuration.check(conf)
    conf.set_override("timeout", _PATIENCE, "rpc")
    conf.set_override("attempts", 1, "rpc")
    yield from bus.check(session)
    if not conf.database.connection:
        yield warning(
            "database",
            "[database] connection is not set, so database, hosts, steps and data were not looked at",
            "call it where a scheduler runs, or name its file with --config-file",
        )
        return
    yield from _of_database(session, conf.database.connection, rules)


def _of_database(session: Session, url: str, rules: bool) -> Iterator[Finding]:
    import sqlalchemy as sa

    from portclaim.cli.doctor import database, fleet
    from portclaim.common.db.transaction import connect

    engine = connect(url, pool_size=1)
    try:
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            yield from database.check(connection, session.conf)
            if database.has_schema(connection):
                yield from fleet.check(connection, session)
                if rules:
                    yield from _rules(connection)
    except sa.exc.DBAPIError as error:
        said = str(error.orig).strip().partition("\n")[0]
        yield trouble(
            "database", said, "see whether PostgreSQL runs, and whether [database] connection is right"
        )
    finally:
        engine.dispose()


def _rules(connection: sa.Connection) -> Iterator[Finding]:
    from portclaim.common.db.invariants import RULES, violations

    connection.exec_driver_sql("SET enable_seqscan = on")
    broken: dict[str, list[str]] = {}
    for rule, what in violations(connection):
        broken.setdefault(rule, []).append(what)
    for rule, cases in broken.items():
        yield trouble(
            "data",
            f"{rule}: {cases[0]}" + (f", and {len(cases) - 1} more" if len(cases) > 1 else ""),
            "drain what it names, and report it as a fault of Portclaim with this line: "
            "portclaim host drain HOST --reason WHY",
        )
    if not broken:
        yield ok("data", f"all {len(RULES)} rules hold")


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    from portclaim.cli import render
    from portclaim.cli.table import Table

    if not findings:
        click.echo("all is ok")
        return
    table = Table("check", "verdict", "found", "what to do")
    for each in findings:
        verdict = Text(each.verdict, style=_COLOURS[each.verdict])
        table.add_row(each.check, verdict, each.found, each.advice)
    render.console().print(table)
