"""The server's side of a call. It checks messages when they arrive. No message ends a worker."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeVar

import oslo_messaging
from oslo_messaging._drivers.amqpdriver import AMQPListener
from oslo_messaging.rpc import ExplicitRPCAccessPolicy, RPCDispatcher
from oslo_messaging.rpc.server import RPCServer
from pydantic import ValidationError

from portclaim.common.errors import (
    InvalidMessage,
    InvalidRequest,
    PortclaimError,
    ServiceFailed,
    UnsupportedVersion,
)
from portclaim.common.metrics import sampling
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc import versions
from portclaim.common.rpc.about import About
from portclaim.common.rpc.bounded_connection import listen
from portclaim.common.rpc.envelope import ARRIVED
from portclaim.common.rpc.fields import Message, Nothing
from portclaim.common.rpc.measured import observed
from portclaim.common.rpc.replies import Replies
from portclaim.common.trust.arrivals import Arrivals
from portclaim.common.trust.gate import Gate, OpenGate
from portclaim.common.trust.refusals import REFUSALS

LOG = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
Handler = Callable[[Any, M], Message | None]


def exposed(message: type[M]) -> Callable[[Handler[M]], Callable[..., dict[str, Any]]]:
    """Make a method callable over the bus, with the fields of ``message`` as its arguments.

    If the call fails, the caller gets a :class:`PortclaimError`: :class:`InvalidMessage` for invalid fields,
    the method's own errors as they are, and :class:`ServiceFailed` for any other exception.
    """

    def decorate(handler: Handler[M]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(handler)
        def handle(self: object, context: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
            with observed(handler.__name__, context, fields):
                return answered(self, fields)

        def answered(self: object, fields: dict[str, Any]) -> dict[str, Any]:
            try:
                answer = handler(self, checked(message, handler.__name__, fields))
            except PciError as error:
                raise InvalidRequest(str(error)) from error
            except PortclaimError:
                raise
            except Exception as error:
                LOG.exception("%s failed", handler.__name__)
                raise ServiceFailed(
                    f"{handler.__name__} failed because of a fault in the service: read the service's log"
                ) from error
            return (answer or Nothing()).model_dump(mode="json")

        expected: Callable[..., dict[str, Any]] = oslo_messaging.expected_exceptions(PortclaimError)(handle)
        oslo_messaging.expose(expected)
        return expected

    return decorate


class Endpoint:
    """The root of a service's endpoint. It answers pings, and says what it is."""

    target: oslo_messaging.Target

    @exposed(Nothing)
    def ping(self, _nothing: Nothing) -> None:
        """Answer, to show that this service takes calls from the bus."""

    @exposed(Nothing)
    def about(self, _nothing: Nothing) -> About:
        """Say which release this is, and what its clock says."""
        return About(release=version("portclaim"), clock=time.time())


class Entrance(NamedTuple):
    """How calls come to a server.

    ``queue``: another queue of the service than that of its topic, which does not wait for that one. ``gate``
    decides who may call what. None: whoever can write to the queue, but no compute agent. ``is_shared``: the
    server also takes calls that do not name a server. ``arrivals`` bounds what hosts send.
    """

    queue: str | None = None
    gate: Gate | None = None
    is_shared: bool = True
    arrivals: Arrivals | None = None


def server(
    bus: oslo_messaging.RPCTransport,
    topic: str,
    name: str,
    endpoint: Endpoint,
    entrance: Entrance = Entrance(),  # noqa: B008 - it cannot change
) -> oslo_messaging.RPCServer:
    """A server for ``topic``, not started yet. ``Client(..., server=name)`` reaches it by its name."""
    dispatcher = _Dispatcher(topic, endpoint, entrance.gate or OpenGate(topic))
    target = oslo_messaging.Target(topic=entrance.queue or topic, server=name)
    made = _Server(bus, target, dispatcher, entrance)
    sampling.SERVERS.add(made)
    return made


class _Server(RPCServer):  # type: ignore[misc]  # oslo.messaging has no types
    """Takes a call from the broker when a thread is free for it.

    oslo.messaging alone takes all calls that the broker has, and keeps them in memory until a thread is free.
    A thousand agents that report at once would fill it, and would keep other workers idle.
    """

    def __init__(
        self,
        bus: oslo_messaging.RPCTransport,
        target: oslo_messaging.Target,
        dispatcher: _Dispatcher,
        entrance: Entrance,
    ) -> None:
        super().__init__(bus, target, dispatcher)
        self._entrance = entrance

    def _create_listener(self) -> Any:
        threads = self._work_executor._max_workers
        self._free_threads = threading.BoundedSemaphore(threads)
        self.dispatcher.replies.serve(threads)
        made = listen(
            self.transport,
            self._target.topic,
            self._target.server,
            is_shared=self._entrance.is_shared,
            arrivals=self._entrance.arrivals,
        )
        return made or super()._create_listener()

    def _on_incoming(self, incoming: list[Any]) -> None:
        self._free_threads.acquire()
        super()._on_incoming(incoming)

    def _process_incoming(self, incoming: list[Any]) -> None:
        try:
            super()._process_incoming(incoming)
        finally:
            self._free_threads.release()
            if self._entrance.arrivals is not None:
                for each in incoming:
                    self._entrance.arrivals.leave(each.ctxt.get(ARRIVED))


class _Dispatcher(RPCDispatcher):  # type: ignore[misc]  # oslo.messaging has no types
    """Refuses what the gate does not admit.

    Answers a call that is newer than the service with an error that says what to do.
    """

    def __init__(self, topic: str, endpoint: Endpoint, gate: Gate) -> None:
        self._topic = topic
        self._gate = gate
        self.replies = Replies()
        self._spoken = versions.spoken(topic)
        endpoint.target = oslo_messaging.Target(version=self._spoken)
        super().__init__([endpoint], None, ExplicitRPCAccessPolicy)

    @oslo_messaging.expected_exceptions(PortclaimError)  # type: ignore[untyped-decorator]
    def dispatch(self, incoming: Any) -> Any:
        called = incoming.message
        self.replies.bound(incoming)
        try:
            with self._gate.admitted(incoming.ctxt, called["method"], called.get("args", {})):
                return super().dispatch(incoming)
        except oslo_messaging.NoSuchMethod:
            method = str(called["method"])
            if REFUSALS.may_log("no method"):
                LOG.warning("refused a message: this %s has no method %s", self._topic, _printable(method))
            raise InvalidMessage(
                f"the service {self._topic} has no method {method}", method=method, faults=[]
            ) from None
        except oslo_messaging.UnsupportedVersion as error:
            refusal = UnsupportedVersion(
                f"this {self._topic} speaks version {self._spoken} of its interface, but the call of "
                f"{error.method} needs version {error.version}. Upgrade the service {self._topic} first. "
                f"Until then, set [upgrade_levels] {self._topic} = {self._spoken} in the caller's "
                "configuration",
                method=error.method,
                needed=error.version,
                spoken=self._spoken,
            )
            LOG.warning("refused a message: %s", refusal)
            raise refusal from None


def _printable(part: int | str) -> str:
    """A part of a field's name, safe for a log. The caller may have chosen it."""
    text = str(part)
    return text if text.isprintable() else ascii(text)


class Stoppable(Protocol):
    """What serves, and can be stopped."""

    def stop(self) -> None:
        """Take no more messages."""

    def wait(self) -> None:
        """Return when all messages are handled."""


def finish(*servers: oslo_messaging.RPCServer | Stoppable) -> None:
    """Take no more calls, answer those that have arrived, and return.

    oslo.messaging 18.3 alone would lose calls. The broker sends calls to a stopped server until its
    connection is closed, and the server acknowledges and drops calls that arrive in that time. Therefore this
    function first cancels the consumers, and then handles the calls that have arrived. If the connection is
    lost, there are no consumers, and the broker gives their calls to other workers.
    """
    with ThreadPoolExecutor(len(servers)) as threads:
        list(threads.map(_finish, servers))


def _finish(server: Any) -> None:
    sampling.SERVERS.discard(server)
    server.stop()
    listener = getattr(getattr(server, "listener", None), "_poll_style_listener", None)
    if isinstance(listener, AMQPListener):
        with suppress(*listener.conn.connection.connection.connection_errors):
            for consumer, tag in listener.conn._consumers.items():
                consumer.cancel(tag)
        while listener.incoming:
            server._on_incoming([listener.incoming.pop(0)])
    server.wait()


def checked(message: type[M], method: str, fields: dict[str, Any]) -> M:
    """The message with these fields. Raises :class:`InvalidMessage`, and logs what is wrong."""
    try:
        return message.model_validate(fields)
    except ValidationError as error:
        faults = [
            {"field": ".".join(map(_printable, fault["loc"])) or method, "fault": fault["msg"]}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        if REFUSALS.may_log(method):
            LOG.warning("refused a message for %s: %s", method, faults)
        summary = "; ".join(f"{fault['field']}: {fault['fault']}" for fault in faults[:5])
        raise InvalidMessage(f"{method}: {summary}", method=method, faults=faults) from None
