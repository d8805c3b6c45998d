"""``python -m portclaim.services.conductor``."""

from oslo_config import cfg

from portclaim.common import service
from portclaim.common.db.schema_check import require_schema
from portclaim.services.conductor.service import Conductor

WORKERS = cfg.IntOpt("workers", min=1, help="Worker processes; overrides [conductor] workers.")


def main() -> None:
    service.main(
        "conductor",
        Conductor,
        lambda conf: conf.workers or conf.conductor.workers,
        flags=[WORKERS],
        check=require_schema,
    )


if __name__ == "__main__":
    main()
