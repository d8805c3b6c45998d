"""The server's side of a call: messages are checked where they arrive, and no message ends a worker."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import oslo_messaging
from oslo_messaging._drivers.amqpdriver import AMQPListener
from oslo_messaging.rpc import ExplicitRPCAccessPolicy
from pydantic import ValidationError

from portclaim.common.errors import InvalidMessage, InvalidRequest, PortclaimError, ServiceFailed
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.fields import Message, Nothing

LOG = logging.getLogger(__name__)
VERSION = "1.0"

M = TypeVar("M", bound=Message)
Handler = Callable[[Any, M], Message | None]


def exposed(message: type[M]) -> Callable[[Handler[M]], Callable[..., dict[str, Any]]]:
    """Make a method callable over the bus, with the fields of ``message`` as its arguments.

    The caller gets a :class:`PortclaimError`, whatever happens: :class:`InvalidMessage` for fields
    that do not fit, the method's own errors as they are, and :class:`ServiceFailed` for a fault.
    """

    def decorate(handler: Handler[M]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(handler)
        def handle(self: object, _context: object, **fields: Any) -> dict[str, Any]:
            try:
                answer = handler(self, _checked(message, handler.__name__, fields))
            except PciError as error:
                raise InvalidRequest(str(error)) from error
            except PortclaimError:
                raise
            except Exception as error:
                LOG.exception("%s failed", handler.__name__)
                raise ServiceFailed(f"{handler.__name__} failed; the log of the service says why") from error
            return (answer or Nothing()).model_dump(mode="json")

        expected: Callable[..., dict[str, Any]] = oslo_messaging.expected_exceptions(PortclaimError)(handle)
        oslo_messaging.expose(expected)
        return expected

    return decorate


class Endpoint:
    """The root of a service's endpoint: it can be pinged."""

    target = oslo_messaging.Target(version=VERSION)

    @exposed(Nothing)
    def ping(self, _nothing: Nothing) -> None:
        """Answer, to show that this service takes calls from the bus."""


def server(
    bus: oslo_messaging.RPCTransport, topic: str, name: str, endpoint: Endpoint
) -> oslo_messaging.RPCServer:
    """A server for ``topic``, not started yet. ``name`` is what ``Client(..., server=name)`` reaches."""
    return oslo_messaging.get_rpc_server(
        bus,
        oslo_messaging.Target(topic=topic, server=name),
        [endpoint],
        access_policy=ExplicitRPCAccessPolicy,
    )


def _printable(part: int | str) -> str:
    """A part of a field's name, which the caller chose, as it may stand in a log."""
    text = str(part)
    return text if text.isprintable() else ascii(text)


def finish(server: oslo_messaging.RPCServer) -> None:
    """Take no more calls, answer those in hand, and return.

    oslo.messaging 18.3 alone would lose some: the broker goes on sending calls to a stopped server until
    its connection is closed, and what arrives while that happens is acknowledged and dropped. So the
    consumers are cancelled first, and what had come by then is handled as in hand. A connection that is lost
    has no consumers: the broker gives what they had to others.
    """
    server.stop()
    listener = getattr(server.listener, "_poll_style_listener", None)
    if isinstance(listener, AMQPListener):
        with suppress(*listener.conn.connection.connection.connection_errors):
            for consumer, tag in listener.conn._consumers.items():
                consumer.cancel(tag)
        while listener.incoming:
            server._on_incoming([listener.incoming.pop(0)])
    server.wait()


def _checked(message: type[M], method: str, fields: dict[str, Any]) -> M:
    try:
        return message.model_validate(fields)
    except ValidationError as error:
        faults = [
            {"field": ".".join(map(_printable, fault["loc"])) or method, "fault": fault["msg"]}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        LOG.warning("refused a message for %s: %s", method, faults)
        summary = "; ".join(f"{fault['field']}: {fault['fault']}" for fault in faults[:5])
        raise InvalidMessage(f"{method}: {summary}", method=method, faults=faults) from None
