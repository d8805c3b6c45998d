"""Register the options of a group in one configuration only."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg


def register(
    conf: cfg.ConfigOpts, options: Sequence[cfg.Opt], group: cfg.OptGroup | None, *, flags: bool = False
) -> None:
    """Register options in ``conf``. ``flags``: they are flags of the command line too.

    oslo.config keeps what is set from code in the group object. If two configurations of a process had the
    same object, what is set in one would be set in the other.
    """
    own = None if group is None else cfg.OptGroup(group.name, group.title, group.help)
    if flags:
        conf.register_cli_opts(options, own)
    conf.register_opts(options, own)
