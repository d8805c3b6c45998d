"""Events match docs/events.md, and the bindings of a queue let through the events of its filter."""

import json
import re
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.common.db.life_cycle import TRANSITIONS
from portclaim.common.errors import InvalidMessage, UnknownSchema
from portclaim.common.events.schema import Event, EventFilter, Kind, read, routing_key

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
[EXAMPLE] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]

kinds = st.sampled_from(get_args(Kind))
statuses = st.sampled_from(sorted({each.after for each in TRANSITIONS} | {"available", "removed"}))
hosts = st.from_regex(r"[a-z0-9-]{1,3}(\.[a-z0-9-]{1,3}){0,3}", fullmatch=True)
claims = st.sampled_from([UUID(int=1), UUID(int=2)])
few = {"max_size": 2}
filters = st.builds(
    EventFilter,
    kinds=st.lists(kinds, **few).map(tuple),
    statuses=st.lists(statuses, **few).map(tuple),
    hosts=st.lists(hosts, **few).map(tuple),
    claim_ids=st.lists(claims, **few).map(tuple),
)


def event(**facts: Any) -> Event:
    return read(json.dumps(EXAMPLE | facts, default=str))


def lets_through(pattern: str, key: str) -> bool:
    """Match as a topic exchange does (RabbitMQ, tutorial 5): `*` is one word, `#` any number of words."""
    words = [
        ".*" if word == "#" else r"[^.]*" if word == "*" else re.escape(word) for word in pattern.split(".")
    ]
    return re.fullmatch(r"\.".join(words), key) is not None


def test_the_page_explains_every_field() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [\w ]+ \| (.*?) \|$", PAGE, re.MULTILINE)
    assert rows == [(name, field.description) for name, field in Event.model_fields.items()]


def test_the_page_shows_an_event() -> None:
    shown = read(json.dumps(EXAMPLE))
    assert shown.model_dump(mode="json").keys() == EXAMPLE.keys()
    assert read(shown.model_dump_json()) == shown


def test_each_pattern_on_the_page_matches_an_event() -> None:
    patterns = re.findall(r"^\| `(\S+)` \| [a-z]", PAGE.partition("| pattern |")[2], re.MULTILINE)
    keys = ["claim.released.compute-7.example", "device.unavailable.h1"]
    assert [[lets_through(pattern, key) for key in keys] for pattern in patterns] == [
        [True, True],
        [True, False],
        [True, False],
        [True, False],
        [False, True],
    ]


@given(wanted=filters, kind=kinds, status=statuses, host=hosts | st.none(), claim=claims | st.none())
def test_bindings_let_all_wanted_events_through_and_few_others(
    wanted: EventFilter, kind: str, status: str, host: str | None, claim: UUID | None
) -> None:
    told = event(kind=kind, to_status=status, host=host, claim_id=claim)
    comes = any(lets_through(pattern, told.routing_key) for pattern in wanted.bindings())
    assert comes or not wanted.fits(told)
    assert not comes or wanted.model_copy(update={"claim_ids": ()}).fits(told)


def test_the_longest_host_name_has_a_key_and_a_binding() -> None:
    host = "h" * 255
    assert len(routing_key("claim", "releasing", host)) == 255
    [pattern] = EventFilter(kinds=("claim",), statuses=("releasing",), hosts=(host,)).bindings()
    assert lets_through(pattern, event(to_status="releasing", host=host).routing_key)


@pytest.mark.parametrize("host", ["*", "#", "a.#", "a b", ""])
def test_a_host_name_is_never_a_pattern(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        EventFilter(hosts=(host,))


def test_unknown_fields_are_ignored() -> None:
    assert event(colour="blue", devices=[{"address": "0000:81:00.0", "dev_type": "type-PF", "speed": 7}])
    assert event(to_status="migrating").to_status == "migrating"


@pytest.mark.parametrize("version", [0, 2, 99])
def test_an_event_of_another_version_is_refused(version: int) -> None:
    with pytest.raises(UnknownSchema, match=f"version {version}") as refused:
        read(json.dumps({"version": version, "and": "whatever"}))
    assert refused.value.kwargs == {"version": version}


@pytest.mark.parametrize("name", Event.model_fields)
def test_an_event_without_a_required_field_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        read(json.dumps({key: value for key, value in EXAMPLE.items() if key != name}))


@given(st.binary() | st.text())
def test_any_other_bytes_are_refused(body: bytes | str) -> None:
    with pytest.raises(InvalidMessage):
        read(body)
