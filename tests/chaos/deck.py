"""Which faults come how often."""

from random import Random

from tests.chaos.faults import (
    Fault,
    KillAgent,
    KillApi,
    KillConductor,
    KillScheduler,
    RunOutOfMemory,
    SecondAgent,
    SetClock,
    StopScheduler,
)
from tests.chaos.network_faults import CutNetwork, SlowNetwork
from tests.chaos.server_faults import (
    BlockPublishers,
    CloseConnections,
    EmptyRabbitMQ,
    FillDisk,
    ForgetName,
    RestartPostgreSQL,
    RestartRabbitMQ,
    TerminateBackends,
)

# How often each fault happens among a thousand. Brief faults happen more often than long ones.
SHARES: dict[type[Fault], int] = {
    KillScheduler: 130,
    KillConductor: 130,
    KillAgent: 170,
    KillApi: 80,
    RunOutOfMemory: 60,
    StopScheduler: 30,
    RestartRabbitMQ: 20,
    EmptyRabbitMQ: 20,
    BlockPublishers: 30,
    ForgetName: 30,
    CloseConnections: 80,
    RestartPostgreSQL: 30,
    TerminateBackends: 80,
    CutNetwork: 30,
    SlowNetwork: 20,
    SetClock: 40,
    SecondAgent: 20,
    FillDisk: 20,
}


def deal(count: int, random: Random, only: str | None = None) -> list[type[Fault]]:
    """``count`` faults by their shares, to be popped from the end: one of each kind, then random ones.

    ``only``: faults whose names contain this.
    """
    shares = {kind: share for kind, share in SHARES.items() if only is None or only in kind.name}
    total = sum(shares.values())
    more = [kind for kind, share in shares.items() for _ in range(round(count * share / total) - 1)]
    first = list(shares)
    random.shuffle(more)
    random.shuffle(first)
    return more + first
