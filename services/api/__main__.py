"""``python -m portclaim.services.api``."""

from portclaim.common import service
from portclaim.services.api.service import Api


def main() -> None:
    service.main("api", Api, lambda conf: conf.api.workers)


if __name__ == "__main__":
    main()
