"""The options of all namespaces that deploy/config-generator.conf names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from oslo_config import cfg

from .text import cell, plain, table

GENERATOR = Path(__file__).parents[2] / "deploy" / "config-generator.conf"
OURS = "portclaim"  # the namespaces that begin so are Portclaim's own

_INTRODUCTION = """\
# Configuration

Every option of the services. A service reads `portclaim.conf` from `~/.portclaim`, `~`, `/etc/portclaim` or
`/etc`, the first one that exists, or the files that `--config-file` names. An environment variable overrides
the file: option `resend_after` in section `[conductor]` is `OS_CONDUCTOR__RESEND_AFTER`. A flag overrides
both: `--conductor-resend_after`. Options in `[pci]` and secret options have no flag. For a secret option, an
environment variable can also name a file that has the value: `OS_DATABASE__CONNECTION_FILE`.

`portclaim config check` tells whether a file is good before a service reads it.
`deploy/portclaim.conf.sample` is a file with all options. The [options of the libraries](library-options.md)
are on a page of their own.
"""

_LIBRARIES = """\
# Options of the libraries

Portclaim calls its services with oslo.messaging and logs with oslo.log. Their options go into the same file
as [Portclaim's own](configuration.md). Most sites set `[DEFAULT] transport_url` and no other. The texts are
the libraries'.
"""

_TYPES = {
    "Boolean": "yes or no",
    "Dict": "key:value pairs",
    "Float": "number",
    "HostAddress": "host name or address",
    "Integer": "whole number",
    "List": "list",
    "Port": "port",
    "String": "text",
    "URI": "URI",
}


class Section(NamedTuple):
    """A section of the file, with what is said about it."""

    name: str
    help: str
    options: list[cfg.Opt]


def page() -> str:
    return _INTRODUCTION + "".join(map(_section, sections(ours=True)))


def libraries() -> str:
    return _LIBRARIES + "".join(map(_section, sections(ours=False)))


def namespaces() -> list[str]:
    return re.findall(r"^namespace = (\S+)", GENERATOR.read_text(), re.MULTILINE)


def sections(*, ours: bool) -> list[Section]:
    """Portclaim's own sections, or those of the libraries."""
    found: dict[str, Section] = {}
    for group, options in _listed(ours=ours):
        name = group if isinstance(group, str) else group.name if group else "DEFAULT"
        section = found.setdefault(name, Section(name, getattr(group, "help", None) or "", []))
        known = {option.dest for option in section.options}
        section.options.extend(option for option in options if option.dest not in known)
    return list(found.values())


def _listed(*, ours: bool) -> Iterator[tuple[cfg.OptGroup | str | None, Sequence[cfg.Opt]]]:
    plugs = {plug.name: plug for plug in entry_points(group="oslo.config.opts")}
    for namespace in namespaces():
        if namespace.startswith(OURS) == ours:
            yield from plugs[namespace].load()()


def _section(section: Section) -> str:
    rows = [_row(section.name, option) for option in section.options]
    about = f"{plain(section.help).rstrip('.')}.\n\n" if section.help else ""
    return f"\n## [{section.name}] {{ #{section.name} }}\n\n{about}" + table(
        ["Option", "Default", "Meaning"], rows
    )


def _row(section: str, option: cfg.Opt) -> list[str]:
    default = option.sample_default if option.sample_default is not None else option.default
    shown = "" if default in (None, "", []) else f"`{_value(default)}`"
    gone = " Deprecated." if option.deprecated_for_removal else ""
    return [
        f"`{option.name}`{{ #{section}.{option.dest} }}",
        shown,
        f"{cell(_help(option))}{gone}<br><small>{_type(option)}</small>",
    ]


def _help(option: cfg.Opt) -> str:
    """The text as ``--help`` shows it, where ``%`` has a meaning."""
    text: str = option.help or ""
    return text.replace("%(default)s", str(option.default)).replace("%%", "%")


def _value(default: object) -> str:
    if isinstance(default, list):
        return ",".join(map(str, default))
    return str(default).replace("|", r"\|")


def _type(option: cfg.Opt) -> str:
    kind: Any = option.type
    words = [_TYPES.get(type(kind).__name__, type(kind).__name__.lower())]
    if getattr(kind, "min", None) is not None:
        words.append(f"at least {kind.min}")
    if getattr(kind, "max", None) is not None:
        words.append(f"at most {kind.max}")
    if choices := getattr(kind, "choices", None):
        words.append("one of " + ", ".join(f"`{each}`" for each in choices if each))
    if option.multi:
        words.append("may be given many times")
    if option.secret:
        words.append("secret")
    return ", ".join(words)
