"""``python -m services.compute_agent``."""

from common import service
from services.compute_agent.agent import ComputeAgent


def main() -> None:
    service.main("compute_agent", ComputeAgent)


if __name__ == "__main__":
    main()
