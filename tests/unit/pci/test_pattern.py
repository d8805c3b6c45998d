"""Patterns for address fields: usual patterns work, and no accepted pattern can take long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.pattern import MAX_LENGTH, MAX_STEPS, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "0a"),
        (".*", "0a"),
        ("[0-9a-f]{2}", "0a"),
        ("(?i)0A", "0a"),
        ("(?i:0A)$", "0a"),
        ("(0a|0b|1[0-9a-f])", "1f"),
        ("(?!81)", "0a"),
        ("(?=0)(?<!1)0a", "0a"),
        (r"(.)\1", "ff"),
        ("(?P<digit>.)(?P=digit)", "ff"),
        (r"\x30\141\Z", "0a"),
        ("(a+)+$", "aaaa"),
        ("(a*)*b?", "aaaa"),
        ("(?:.*)*", "0000"),
        ("([0-9a-f][0-9a-f])+", "0000"),
        ("[]a-]{1,3}?", "a"),
        ("0(?#the first)a", "0a"),
        ("(?>0)a", "0a"),
        ("(0)?(?(1)a|b)", "0a"),
        ("0{,1}a{1,}", "0a"),
        ("[[:a]", "a"),
    ],
)
def test_patterns_work_as_re_does(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).match(text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "is no regular expression"),
        ("a**", "is no regular expression"),
        ("a{4294967296}", "is no regular expression"),
        ("a" * (MAX_LENGTH + 1), "is no text of at most"),
        (None, "is no text of at most"),
        ("(?x) a  # with comments", "verbose flag"),
        ("(?x:a )", "verbose flag"),
        ("(|||||||||){20}", "could try more than"),
        ("(a?){40}(a?){40}b", "could try more than"),
        ("(((a?){9}){9}){9}", "could try more than"),
        ("(a|a|a|a|a|a|a|a|a|a|a|a|a|a|a|a|a){4}b", "could try more than"),
        ("(|){30}", "could try more than"),
        ("(?:(.|a|)){14}x", "could try more than"),
        ("a{65535}", "could try more than"),
        ("(){99999}", "could try more than"),
        ("(?=(|||||){9})", "could try more than"),
    ],
)
def test_invalid_patterns_and_patterns_that_could_hang_are_refused(pattern: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_pattern(pattern)


@given(st.text(alphabet="ab0^$.*+?{}[]()|\\?=!<>:PxiA-,19", max_size=24))
@settings(max_examples=400, deadline=None)
def test_any_text_is_accepted_or_refused(pattern: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    for text in ("0", "aa", "0a0a"):
        compiled.match(text)


class Part(NamedTuple):
    """A part of a pattern: its text, and whether it is a choice, a sequence or a repetition of parts."""

    text: str
    kind: str
    parts: tuple[Part, ...] = ()
    low: int = 0
    high: int = 0


def _choice(parts: list[Part]) -> Part:
    return Part(f"(?:{'|'.join(part.text for part in parts)})", "choice", tuple(parts))


def _sequence(parts: list[Part]) -> Part:
    return Part("".join(part.text for part in parts), "sequence", tuple(parts))


def _repeated(part: Part, low: int, more: int) -> Part:
    return Part(f"(?:{part.text}){{{low},{low + more}}}", "repeated", (part,), low, low + more)


parts = st.recursive(
    st.sampled_from([Part("a", "character"), Part("", "sequence")]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(_choice),
        st.lists(inner, max_size=4).map(_sequence),
        st.builds(_repeated, inner, st.integers(0, 6), st.integers(0, 6)),
    ),
    max_leaves=8,
)


@given(parts)
@settings(max_examples=300, deadline=None)
def test_an_accepted_pattern_has_few_ways_to_match(part: Part) -> None:
    """The test counts all ways of a simple backtracking matcher."""
    try:
        compile_pattern(part.text)
    except ValueError:
        return
    for text in ("", "a", "aaaa"):
        assert sum(1 for _ in ways(part, text, 0)) <= MAX_STEPS
        assert bool(re.match(part.text, text)) == any(True for _ in ways(part, text, 0))


def ways(part: Part, text: str, at: int) -> Iterator[int]:
    """The end of each way to match ``part`` from ``at`` on."""
    match part.kind:
        case "character":
            if at < len(text):
                yield at + 1
        case "choice":
            for one in part.parts:
                yield from ways(one, text, at)
        case "sequence":
            yield from _in_sequence(part.parts, text, at)
        case "repeated":
            yield from _in_rounds(part, text, at, 0)


def _in_sequence(rest: tuple[Part, ...], text: str, at: int) -> Iterator[int]:
    if not rest:
        yield at
        return
    for end in ways(rest[0], text, at):
        yield from _in_sequence(rest[1:], text, end)


def _in_rounds(part: Part, text: str, at: int, done: int) -> Iterator[int]:
    """As in ``re``, after the required rounds a round that consumes nothing is the last one."""
    if done < part.high:
        for end in ways(part.parts[0], text, at):
            if end > at or done < part.low:
                yield from _in_rounds(part, text, end, done + 1)
    if done >= part.low:
        yield at
