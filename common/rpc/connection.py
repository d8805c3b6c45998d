"""A scheduler client with a bus connection of its own, for programs outside Portclaim."""

from __future__ import annotations

import os
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

import oslo_messaging
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.events.schema import EventFilter
from portclaim.common.events.stream import EventStream
from portclaim.common.events.wait import Goal, wait, wait_until_ready
from portclaim.common.rpc.bus_url import bus_url
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport


class Connection(SchedulerClient):
    """A :class:`SchedulerClient` that owns its connection to the message bus. :func:`connect` makes it.

    Use it in a ``with`` statement, or call :meth:`close`. Threads may share it. Processes must not: a program
    that forks connects after the fork.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._bus: oslo_messaging.RPCTransport = transport(conf, makes_exchange=False)
        super().__init__(self._bus, conf)

    def events(self, wanted: EventFilter | None = None, name: str | None = None) -> EventStream:
        """A stream of events from the same message bus. It has a connection of its own; close it as well.

        ``name`` is the name of a durable queue, see :class:`EventStream`. Raises
        :class:`~portclaim.InvalidRequest` for an invalid name.
        """
        return EventStream(self._conf, wanted, name)

    def wait(self, claim_id: UUID, until: Goal, timeout: float | None = None) -> Claim:
        """Wait for a claim until it is ``claimed``, ``prepared``, ``allocated``, ``released`` or ``ended``.

        It returns the claim at once if the claim is that far already: an allocated claim is prepared too.
        ``ended`` is any end: released, failed or expired. Events of the claim wake the caller, on a
        connection of its own. If no event comes, the claim is looked up, at least every 10 seconds. The wait
        goes on while the scheduler or the message bus restarts.

        Raises :class:`~portclaim.ClaimEnded` if the claim has ended otherwise, or is being released while you
        wait for ``claimed``, ``prepared`` or ``allocated``,
        :class:`~portclaim.WaitTimeout` after ``timeout`` seconds (None: no limit),
        :class:`~portclaim.InvalidRequest` for another word, and what :meth:`show` raises.
        """
        return wait(self._conf, claim_id, partial(self.show, claim_id), until, timeout)

    def wait_until_ready(self, request: MoveRequest, timeout: float | None = None) -> Move:
        """Begin a live move, if it has not begun, and wait until the guest can be migrated.

        Then the target is prepared, and the guest has no device that cannot go with it. Raises what
        :meth:`move` raises, :class:`~portclaim.ClaimEnded` if the move was reverted or is completed, and
        :class:`~portclaim.WaitTimeout` after ``timeout`` seconds (None: no limit).
        """
        return wait_until_ready(self._conf, request, partial(self.move, request), timeout)

    def close(self) -> None:
        """Close the connection to the message bus."""
        self._bus.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    transport_url: str | None = None, *, config_file: str | os.PathLike[str] | None = None
) -> Connection:
    """A client of the scheduler, ready for calls.

    ``transport_url`` names the message bus: ``rabbit://user:password@host:5672/virtual_host``. Without it,
    the configuration names the bus, as for Portclaim's own services. ``config_file`` is the configuration
    file. Without it, the first ``portclaim.conf`` in ``~/.portclaim``, ``~``, ``/etc/portclaim`` or ``/etc``
    is read, if there is one. Environment variables such as ``OS_RPC__TIMEOUT`` take precedence over the file.

    It does not wait for the message bus: the first call connects. To check whether a scheduler answers, call
    :meth:`~SchedulerClient.ping`. Raises :class:`~portclaim.InvalidConfiguration`.

    Example::

        with connect("rabbit://portclaim:secret@broker.example/portclaim") as scheduler:
            scheduler.ping()
    """
    args = [] if config_file is None else ["--config-file", os.fspath(config_file)]
    conf = config.load(args, "portclaim")
    if transport_url is not None:
        bus_url(conf)  # registers the option
        conf.set_override("transport_url", transport_url)
    return Connection(conf)
