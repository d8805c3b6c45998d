"""The options of metrics."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register

GROUP = cfg.OptGroup("metrics", "Metrics for Prometheus: each service answers on a port of its own")
PORTS = {"scheduler": 9611, "conductor": 9612, "compute_agent": 9613, "api": 9614}
"""The default port of each service."""
OPTIONS = [
    cfg.HostAddressOpt(
        "listen",
        help="Address where each service answers /metrics, for all of its workers together. Nobody needs a "
        "token there, so let only Prometheus reach it. Default: services have no metrics.",
    ),
    *(
        cfg.PortOpt(
            f"{service}_port",
            default=port,
            help=f"Port of the metrics of the service {service}. 0: any free port, which the log names.",
        )
        for service, port in PORTS.items()
    ),
    cfg.FloatOpt(
        "fleet_interval",
        default=10.0,
        min=1.0,
        help="Seconds between two readings of the fleet's numbers from the database. One scheduler reads "
        "them, however many run.",
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """All options, for oslo.config's sample and documentation generators."""
    return [(GROUP, OPTIONS)]


def address(conf: cfg.ConfigOpts, service: str) -> tuple[str, int] | None:
    """Where the service answers; None: it has no metrics. Raises :class:`InvalidConfiguration`."""
    register(conf, OPTIONS, GROUP)
    try:
        for option in OPTIONS:
            getattr(conf.metrics, option.dest)
    except (cfg.Error, ValueError) as error:
        raise InvalidConfiguration(str(error)) from error
    listen: str | None = conf.metrics.listen
    return None if listen is None else (listen, conf.metrics[f"{service}_port"])
