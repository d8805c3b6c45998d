"""What is wrong with ``[keystone_authtoken]``, as far as it can be said without asking Keystone.

keystonemiddleware takes nearly anything, and then answers every request with an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import NamedTuple
from urllib.parse import urlsplit

from oslo_config import cfg

from portclaim.common import config_faults

SECTION = "keystone_authtoken"

_PASSWORD = ("password", "v3password")
_NEEDED: tuple[tuple[str, ...], ...] = (
    ("username", "user_id"),
    ("password",),
    ("project_name", "project_id", "system_scope", "domain_id", "domain_name"),
)
_DOMAINS = {
    "username": ("user_domain_name", "user_domain_id", "default_domain_name", "default_domain_id"),
    "project_name": ("project_domain_name", "project_domain_id", "default_domain_name", "default_domain_id"),
}
"""A name is of a domain; an id needs none."""


class Fault(NamedTuple):
    """An option, and what is wrong with it: never its value, which may be a password."""

    option: str
    reason: str

    def __str__(self) -> str:
        return f"[{SECTION}] {self.option} {self.reason}"


def faults(conf: cfg.ConfigOpts) -> Iterator[Fault]:
    """The faults of the section. It registers the options in ``conf``. Needs keystoneauth1."""
    from keystoneauth1 import loading  # noqa: PLC0415 - it is optional
    from keystoneauth1.loading.base import PLUGIN_NAMESPACE  # noqa: PLC0415

    loading.register_auth_conf_options(conf, SECTION)
    section = conf[SECTION].auth_section or SECTION
    if section != SECTION:
        loading.register_auth_conf_options(conf, section)
    kind = conf[section].auth_type
    if not kind:
        yield Fault("auth_type", "is not set: write auth_type = password")
        return
    if kind not in entry_points(group=PLUGIN_NAMESPACE).names:  # nothing is loaded for that
        yield Fault("auth_type", f"is {kind!r}, which keystoneauth does not have: password is the usual one")
        return
    needed = [option.dest for option in loading.get_plugin_loader(kind).get_options() if option.required]
    options = loading.get_auth_plugin_conf_options(kind)
    conf.register_opts(options, group=section)
    given: dict[str, str | None] = {}
    for name in conf[section]:
        try:
            given[name] = conf[section][name]
        except config_faults.MISSING_NAMES:
            yield Fault(name, config_faults.DOLLAR)
            given[name] = "?"
    for name in needed:
        if not given.get(name):
            yield Fault(name, f"is not set: auth_type = {kind} needs it")
    if (url := given.get("auth_url")) and not _is_url(url):
        yield Fault("auth_url", "is not a URL: write https://keystone.example.org/v3")
    if kind in _PASSWORD:
        yield from _of_password(given)


def _of_password(given: dict[str, str | None]) -> Iterator[Fault]:
    """What a user with a password lacks, so that Keystone would let it in."""
    for names in _NEEDED:
        if not any(given.get(name) for name in names):
            others = f", nor is {' or '.join(names[1:])}" if names[1:] else ""
            yield Fault(names[0], f"is not set{others}: Keystone would not let the API in")
    for name, domains in _DOMAINS.items():
        if given.get(name) and not any(given.get(domain) for domain in domains):
            yield Fault(domains[0], f"is not set: Keystone cannot know whose {name} it is")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
