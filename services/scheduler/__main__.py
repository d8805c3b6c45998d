"""``python -m portclaim.services.scheduler``."""

from oslo_config import cfg

from portclaim.common import service
from portclaim.common.db.schema_check import require_schema
from portclaim.services.scheduler.fleet_metrics import FleetMetrics
from portclaim.services.scheduler.service import Scheduler, aliases_of

WORKERS = cfg.IntOpt("workers", min=1, help="Worker processes; overrides [scheduler] workers.")


def main() -> None:
    service.main(
        "scheduler",
        Scheduler,
        lambda conf: conf.workers or conf.scheduler.workers,
        flags=[WORKERS],
        check=require_schema,
        collectors=lambda conf: [FleetMetrics(conf, aliases_of(conf))],
    )


if __name__ == "__main__":
    main()
