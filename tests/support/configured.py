"""A configuration for tests: the defaults with some options."""

from collections.abc import Mapping
from pathlib import Path

import oslo_messaging
from oslo_config import cfg

from portclaim.common import config


def configured(transport_url: str = "fake://", **sections: Mapping[str, object]) -> cfg.ConfigOpts:
    conf = config.load(["--config-dir", "/var/empty"] if Path("/var/empty").is_dir() else [], "test")
    oslo_messaging.TransportURL.parse(conf)
    conf.set_override("transport_url", transport_url)
    for section, options in sections.items():
        for name, value in options.items():
            conf.set_override(name, str(value), section)
    return conf
