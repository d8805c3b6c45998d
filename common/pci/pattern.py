"""Regular expressions for address fields. A pattern that could hang a scan is refused when it is read.

Python's ``re`` tries all ways to match, one after the other. Even a short pattern can have too many ways, for
example ``(|||||||||){20}``. So this module counts the ways beforehand, for a text as long as the longest
address field, and refuses a pattern with too many.
"""

from __future__ import annotations

import re
import warnings

from portclaim.common.pci.option_text import shown

FIELD_LENGTH = 4  # the domain is the longest field of an address
MAX_LENGTH = 128
MAX_STEPS = 10_000

Ways = tuple[int, ...]
"""In how many ways, at most, a part of a pattern can consume 0, 1, ... FIELD_LENGTH characters."""

_NOTHING: Ways = (0,) * (FIELD_LENGTH + 1)
_EMPTY: Ways = (1, *_NOTHING[1:])
_CHARACTER: Ways = (0, 1, *_NOTHING[2:])
_ANY_LENGTH: Ways = (1,) * (FIELD_LENGTH + 1)

_ESCAPE = re.compile(
    r"\\(?:(?P<empty>[AbBZ])|(?P<octal>0[0-7]{0,2}|[0-7]{3})|(?P<reference>[1-9][0-9]?)"
    r"|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|.)",
    re.DOTALL,
)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(
    r"\((?:(?P<empty>\?#[^)]*\)|\?(?P<flags>[aiLmsux]+)\))|(?P<reference>\?P=\w+\))"
    r"|(?P<look>\?<?[=!])|\?(?P<inner_flags>[aiLmsux]*)(?:-[imsx]+)?:|\?P<\w+>|\?>|\?\(\w+\))?"
)
_QUANTIFIER = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<exact>\d+)\}|\{(?P<low>\d*),(?P<high>\d*)\})[?+]?")


def compile_pattern(text: object) -> re.Pattern[str]:
    """Compile a pattern for ``re.match`` against one field of an address (at most FIELD_LENGTH characters).

    No match takes ``re`` more than MAX_STEPS steps. Raises ValueError with a reason: the pattern is not text,
    is not a regular expression, is too long, has too many ways, or uses the verbose mode.
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise ValueError(f"{shown(text)} is no text of at most {MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" may get another meaning in a later Python
            pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown(text)} is no regular expression: {error}") from None
    if pattern.flags & re.VERBOSE:
        raise ValueError(f"{shown(text)} uses the verbose flag; write it without")
    _Counter(text).check()
    return pattern


class _Counter:
    """Counts the ways of a pattern that ``re`` has accepted, in one pass."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def check(self) -> None:
        _, steps = self._alternatives()
        if steps > MAX_STEPS:
            self._refuse()

    def _refuse(self) -> None:
        raise ValueError(
            f"{shown(self._text)} could try more than {MAX_STEPS} ways to match one field of an address; "
            "write it without repetitions of what is itself repeated, optional or a choice"
        )

    def _alternatives(self) -> tuple[Ways, int]:
        """One or more sequences with ``|`` between them, up to a closing parenthesis or the end."""
        ways, steps = self._sequence()
        while self._take("|"):
            more, cost = self._sequence()
            ways, steps = _sum(ways, more), steps + cost
        return ways, steps

    def _sequence(self) -> tuple[Ways, int]:
        ways, steps = _EMPTY, 1
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            item, cost = self._quantified(*self._item())
            steps += sum(ways) * cost
            ways = _product(ways, item)
            if steps > MAX_STEPS:
                self._refuse()
        return ways, steps

    def _item(self) -> tuple[Ways, int]:
        text, at = self._text, self._at
        if escape := _ESCAPE.match(text, at):
            self._at = escape.end()
            if escape["reference"]:
                return _ANY_LENGTH, 1
            return (_EMPTY if escape["empty"] else _CHARACTER), 1
        if group := _GROUP.match(text, at):
            return self._group(group)
        characters = _CLASS.match(text, at)
        self._at = characters.end() if characters else at + 1
        return (_EMPTY if text[at] in "^$" else _CHARACTER), 1

    def _group(self, opening: re.Match[str]) -> tuple[Ways, int]:
        self._at = opening.end()
        if "x" in (opening["inner_flags"] or ""):
            raise ValueError(f"{shown(self._text)} uses the verbose flag; write it without")
        if opening["empty"]:
            return _EMPTY, 1
        if opening["reference"]:
            return _ANY_LENGTH, 1
        ways, steps = self._alternatives()
        self._take(")")
        return (_EMPTY if opening["look"] else ways), steps

    def _quantified(self, ways: Ways, steps: int) -> tuple[Ways, int]:
        """Apply the quantifier after the item just read, if there is one.

        After the minimum number of rounds, ``re`` continues only while rounds consume characters. It makes
        at most one empty round, at the end.
        """
        quantifier = _QUANTIFIER.match(self._text, self._at)
        if quantifier is None:
            return ways, steps
        self._at = quantifier.end()
        low, high = _bounds(quantifier)
        if low > MAX_STEPS:
            self._refuse()
        total, power, cost = _NOTHING, _EMPTY, 1
        for done in range(min(high, low + FIELD_LENGTH) + 1):
            if done >= low:
                total = _sum(total, *[power] * (1 + ways[0] * (done < high)))
            cost += sum(power) * steps
            if cost > MAX_STEPS:
                self._refuse()
            power = _product(power, ways if done < low else (0, *ways[1:]))
        return total, cost

    def _take(self, char: str) -> bool:
        found = self._text.startswith(char, self._at)
        self._at += found
        return found


def _bounds(quantifier: re.Match[str]) -> tuple[int, int]:
    if sign := quantifier["sign"]:
        return {"*": (0, MAX_STEPS), "+": (1, MAX_STEPS), "?": (0, 1)}[sign]
    if exact := quantifier["exact"]:
        return int(exact), int(exact)
    return int(quantifier["low"] or 0), int(quantifier["high"] or MAX_STEPS)


def _sum(*several: Ways) -> Ways:
    return tuple(map(sum, zip(*several, strict=True)))


def _product(one: Ways, other: Ways) -> Ways:
    """The ways of ``one`` followed by ``other``. Longer texts than a field do not occur and are left out."""
    return tuple(sum(one[i] * other[n - i] for i in range(n + 1)) for n in range(FIELD_LENGTH + 1))
