"""The part of ``portclaim config check`` that is about tokens of Keystone."""

from __future__ import annotations

from pathlib import Path

from portclaim.common import config_faults
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register
from portclaim.common.pci.finding import Finding

_NOT_READ = "is read only with [api] auth = keystone"


def check(file: Path, sections: set[str]) -> list[Finding]:
    """What is wrong with ``[keystone_authtoken]`` of a file that has these sections. No value is shown."""
    from oslo_config import cfg

    from portclaim.services.api import keystone, keystone_options, options

    if not sections & {"api", keystone_options.SECTION}:
        return []
    conf = cfg.ConfigOpts()
    register(conf, options.OPTIONS, options.GROUP)
    conf(["--config-file", str(file)], project="portclaim", prog="portclaim", use_env=False)
    place = f"[{keystone_options.SECTION}]"
    try:
        if conf.api.auth != "keystone":
            return [Finding(place, notes=(_NOT_READ,))] if keystone_options.SECTION in sections else []
        keystone.KeystoneTokens(conf)
    except keystone.InvalidSection as error:
        return [Finding(f"{place} {fault.option}", refused=fault.reason) for fault in error.faults]
    except InvalidConfiguration as error:
        return [Finding("[api] auth", refused=error.message)]
    except cfg.Error as error:
        return [Finding("[api]", refused=config_faults.explained(error))]
    return [Finding(place)]
