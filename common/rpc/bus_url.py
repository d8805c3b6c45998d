"""The URL of the message bus, read so that no message has a part of its password."""

from __future__ import annotations

from urllib.parse import urlsplit

import oslo_messaging
from oslo_config import cfg

from portclaim.common import config_faults, secret_urls
from portclaim.common.errors import InvalidConfiguration


def bus_url(conf: cfg.ConfigOpts) -> oslo_messaging.TransportURL:
    """``[DEFAULT] transport_url``. Raises :class:`InvalidConfiguration`."""
    try:
        url = oslo_messaging.TransportURL.parse(conf)
        given = urlsplit(conf.transport_url)
    except config_faults.MISSING_NAMES:
        raise InvalidConfiguration(f"[DEFAULT] transport_url {config_faults.DOLLAR}") from None
    except (oslo_messaging.InvalidTransportURL, ValueError):
        raise secret_urls.bus_is_wrong() from None
    if "@" in given.path or given.fragment:
        raise secret_urls.bus_is_wrong()
    return url
