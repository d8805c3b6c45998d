"""``python -m portclaim.services.compute_agent``."""

from portclaim.common import service
from portclaim.services.compute_agent.agent import ComputeAgent


def main() -> None:
    service.main("compute_agent", ComputeAgent)


if __name__ == "__main__":
    main()
