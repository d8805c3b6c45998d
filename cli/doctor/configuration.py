"""The configuration, as far as it can be judged without a server."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from portclaim.cli.doctor.finding import Finding, ok, trouble, warning
from portclaim.common import config
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError

if TYPE_CHECKING:
    from oslo_config import cfg

_CHECK = "configuration"


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    files = ", ".join(conf.config_file or ())
    yield ok("version", f"portclaim {version('portclaim')}")
    if not files:
        yield warning(
            _CHECK,
            "no file was found, so every option has its default",
            "name the services' file with --config-file",
        )
    else:
        yield ok(_CHECK, f"{files} is valid")
    for meaning in config.explanations(conf):
        yield warning(_CHECK, meaning, "see the page about the configuration")
    try:
        aliases = Aliases.parse(conf.pci.alias, by_class=conf.filter_scheduler.pci_in_placement)
    except PciError as error:
        yield trouble(_CHECK, str(error), "correct [pci] alias: portclaim config check FILE says more")
    else:
        yield ok("aliases", f"{len(aliases.by_name)} in [pci] alias")
    conductor = conf.conductor
    if conductor.agent_down_after < 3 * conf.compute_agent.report_interval:
        yield warning(
            _CHECK,
            f"[conductor] agent_down_after is {conductor.agent_down_after:g} s, and agents report every "
            f"{conf.compute_agent.report_interval:g} s: one lost report makes a host silent",
            "set agent_down_after to three times [compute_agent] report_interval at least",
        )
