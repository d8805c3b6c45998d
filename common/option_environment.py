"""Options from the environment: ``OS_<GROUP>__<OPTION>``, for secrets ``OS_<GROUP>__<OPTION>_FILE`` too."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg
from oslo_config.sources._environment import EnvironmentConfigurationSource

from portclaim.common import secret_files


class OptionEnvironment(EnvironmentConfigurationSource):
    """oslo.config's own source, and the files that variables name.

    The variables of the files are not copied into the environment, so programs that a service starts do not
    get the secrets.
    """

    def get(
        self, group_name: str | None, option_name: str, opt: cfg.Opt
    ) -> tuple[Any, cfg.LocationInfo | None]:
        """The value and where it is from. Raises :class:`InvalidConfiguration` for a file without a value."""
        name = self.get_name(group_name, option_name)
        value = secret_files.from_file(name) if opt.secret else None
        if value is None:
            return super().get(group_name, option_name, opt)
        where = cfg.LocationInfo(cfg.Locations.environment, name + secret_files.SUFFIX)
        return value.replace("$", "$$"), where  # in a file of its own, $ begins no other option's name


def use(conf: cfg.ConfigOpts) -> None:
    """Have a configuration read the files too."""
    conf._env_driver = OptionEnvironment()
