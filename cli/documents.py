"""Answers for programs: JSON and YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

A = TypeVar("A")

TABLE = "table"


def show(output: str, answer: A, for_people: Callable[[A], object]) -> None:
    """Print an answer as ``--output`` says: as a document, or with the function for people."""
    for_people(answer) if output == TABLE else document(output, answer)


def document(output: str, answer: Any) -> None:
    """Print an answer as one document: messages, lists, mappings and what JSON has."""
    click.echo(_text(output, _plain(answer)))


def line(output: str, answer: BaseModel) -> None:
    """Print one of many answers that come over time: a line of JSON, or YAML and then ---."""
    click.echo(answer.model_dump_json() if output == "json" else _text(output, _plain(answer)) + "\n---")


def rows(output: str, pages: Iterable[Sequence[BaseModel]]) -> None:
    """Print the rows of a list as one document, while they come."""
    if output == "json":
        _json_rows(pages)
        return
    empty = True
    for page in pages:
        for row in page:
            click.echo(_text(output, [_plain(row)]))
            empty = False
    if empty:
        click.echo("[]")


def _json_rows(pages: Iterable[Sequence[BaseModel]]) -> None:
    before = "["
    for page in pages:
        for row in page:
            click.echo(before + "\n" + indent(json.dumps(_plain(row), indent=2), "  "), nl=False)
            before = ","
    click.echo("[]" if before == "[" else "\n]")


def _text(output: str, value: Any) -> str:
    if output == "json":
        return json.dumps(value, indent=2)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _plain(value: Any) -> Any:
    """What JSON has."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
