"""How a command goes through the pages of a list, whatever the scheduler's version is."""

import json
from collections.abc import Iterator

import pytest

from portclaim.cli.listing import ListOptions, show, table
from portclaim.common.rpc.operator_messages import Claims, HostFilter, Hosts, HostSummary

OLD = ListOptions(limit=None, after=None, everything=False, output="json")


def host(name: str) -> HostSummary:
    numbers = dict.fromkeys(
        ("devices", "available", "pfs_available", "pfs_held", "vfs_available", "vfs_held", "live_claims"), 0
    )
    return HostSummary(
        host=name, agent_silent_for=1.0, is_silent=False, drained_reason=None, drained_ports={}, **numbers
    )


class Scheduler:
    """Answers these pages one after the other, and keeps what it was asked."""

    def __init__(self, *pages: Hosts) -> None:
        self.asked: list[HostFilter] = []
        self._pages: Iterator[Hosts] = iter(pages)

    def hosts(self, wanted: HostFilter) -> Hosts:
        self.asked.append(wanted)
        return next(self._pages)


def shown(options: ListOptions, scheduler: Scheduler) -> None:
    show(
        options,
        scheduler.hosts,
        HostFilter(prefix="h"),
        "hosts",
        table(["host"], lambda row: [row.host]),
        "--state",
    )


def test_all_pages_are_asked_for_with_the_same_filter(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = Scheduler(
        Hosts(hosts=[host("h1"), host("h2")], more=True, after="x"),
        Hosts(hosts=[host("h3")], more=False),
    )
    shown(OLD, scheduler)
    out, err = capsys.readouterr()
    assert [row["host"] for row in json.loads(out)] == ["h1", "h2", "h3"]
    assert err == ""
    assert scheduler.asked == [
        HostFilter(prefix="h", limit=1000),
        HostFilter(prefix="h", limit=1000, after="x"),
    ]


def test_a_scheduler_that_has_no_pages_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Release 0.2.0 answers that there are more, and no cursor."""
    scheduler = Scheduler(Hosts(hosts=[host("h1")], more=True))
    shown(OLD._replace(output="table", everything=True), scheduler)
    out, err = capsys.readouterr()
    assert out.split() == ["host", "h1"]
    assert err == (
        "there are more than 1000: use --limit to see more (this scheduler is too old to say what comes "
        "next), or --state to see fewer\n"
    )
    assert len(scheduler.asked) == 1


def test_a_limit_is_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = Scheduler(Hosts(hosts=[host("h1")], more=True, after="x"))
    shown(OLD._replace(limit=1), scheduler)
    assert "use --all, --limit or --after x to see more, or --state to see fewer" in capsys.readouterr().err
    assert scheduler.asked == [HostFilter(prefix="h", limit=1)]


def test_the_json_is_written_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [host("h1"), host("h2")]
    shown(OLD, Scheduler(Hosts(hosts=rows, more=False)))
    assert (
        capsys.readouterr().out == json.dumps([row.model_dump(mode="json") for row in rows], indent=2) + "\n"
    )
    shown(OLD, Scheduler(Hosts(hosts=[], more=False)))
    assert capsys.readouterr().out == "[]\n"


def test_answers_of_older_services_are_read() -> None:
    assert Hosts.model_validate({"hosts": [], "more": True}).after is None
    assert Claims.model_validate({"claims": [], "more": False}).after is None
