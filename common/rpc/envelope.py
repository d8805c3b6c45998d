"""What oslo.messaging puts around a call: measured and checked before anything else looks at it.

oslo.messaging 18.3 parses whatever arrives, logs a traceback for each message that is not as it expects, and
starts a thread for a sender that asks for signs of life of its call. Here a message is first measured, then
parsed once, then compared with what our clients send. What is wrong is counted, and leaves a line in the log
once a minute at most.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from oslo_messaging._drivers import impl_rabbit
from oslo_messaging._drivers.amqpdriver import AMQPListener

from portclaim.common.trust.arrivals import sender
from portclaim.common.trust.refusals import REFUSALS

LOG = logging.getLogger(__name__)

MOST_BYTES = 32 * 2**20
"""The longest message, in bytes. A full report of 16,384 devices is shorter."""

MOST_DEPTH = 32
"""How deep objects and lists are nested at most. The deepest message of ours has 6 levels."""

_VERSION, _MESSAGE = "oslo.version", "oslo.message"
_NOT_BRACKETS = bytes(each for each in range(256) if each not in b"[]{}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LONGEST_METHOD = 64
_RPC_VERSION = re.compile(r"\d{1,4}\.\d{1,4}")
_CONTEXT = re.compile(r"_context_[a-z][a-z_]{0,63}")
_REPLY_QUEUE = re.compile(r"reply_[\x21-\x7e]{1,249}")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
ARRIVED = "arrived_from_host"
"""In the context of a message: the host whose user at the broker has sent it. The sender cannot choose it."""

_ARRIVED = "_context_" + ARRIVED
_TAKEN = {"_context_self", "_context_cls", "_context_conf", "_context_msg_id", "_context_reply_q"}
_OWN_ARGUMENTS = {"self", "_context"}


class BadEnvelope(ValueError):
    """The message is none that a client of ours sends."""


def read(body: bytes | str) -> dict[str, Any]:
    """The content of a message. Raises :class:`BadEnvelope`."""
    outer = _parse(body)
    if not isinstance(outer.get(_MESSAGE), str) or not str(outer.get(_VERSION)).startswith("2."):
        raise BadEnvelope("it is not in the envelope 2.0 of oslo.messaging")
    return _parse(outer[_MESSAGE])


def check_call(content: dict[str, Any]) -> None:
    """See that this is a call of a method. Raises :class:`BadEnvelope`."""
    method, arguments = content.get("method"), content.get("args", {})
    if not isinstance(method, str) or len(method) > _LONGEST_METHOD:
        raise BadEnvelope("it names no method")
    if not isinstance(arguments, dict) or not _OWN_ARGUMENTS.isdisjoint(arguments):
        raise BadEnvelope("its arguments are no object")
    version, namespace = content.get("version", "1.0"), content.get("namespace")
    if not isinstance(version, str) or not _RPC_VERSION.fullmatch(version) or namespace is not None:
        raise BadEnvelope("its version or its namespace is none of ours")
    for key, pattern in (("_msg_id", _ID), ("_unique_id", _ID), ("_reply_q", _REPLY_QUEUE)):
        value = content.get(key)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise BadEnvelope(f"its {key} is none of oslo.messaging's")
    for key in content:
        if key.startswith("_context_") and (key in _TAKEN or not _CONTEXT.fullmatch(key)):
            raise BadEnvelope("its context has a key that no client sends")
    # A sender that wants signs of life of its call would get a thread of its own, and no client of ours does.
    content["_timeout"] = None


def without_compression(message: Any) -> None:
    """Have kombu take the body as it is: a short one could be inflated to gigabytes."""
    headers = message.properties.get("application_headers")
    if isinstance(headers, dict):
        headers.pop("compression", None)


def take(self: Any, message: Any) -> None:
    """In place of ``Consumer._callback``, which does the same without any check."""
    is_of_server = isinstance(self.callback, AMQPListener)
    arrivals = getattr(self.callback, "arrivals", None)
    if arrivals is not None and not arrivals.enter(message.delivery_info, len(message.body)):
        self.queue.channel.basic_reject(message.delivery_tag, requeue=False)
        return
    host = None if arrivals is None else sender(message.delivery_info)
    without_compression(message)
    received = self.queue.channel.message_to_python(message)
    try:
        content = read(received.body)
        if is_of_server:
            check_call(content)
            _check_is_new(content, self.callback)
    except BadEnvelope as error:
        queue = "reply" if self.queue_name.startswith("reply_") else self.queue_name.partition(".")[0]
        REFUSALS.note(queue, "bad-envelope", f"host:{host}" if host else "an unknown sender", str(error))
        if arrivals is not None:
            arrivals.leave(host, is_broken=True)
        received.reject()
        return
    content.pop(_ARRIVED, None)
    if host is not None:
        content[_ARRIVED] = host
    before = len(self.callback.incoming) if is_of_server else 0
    try:
        self.callback(_message(received, content))
    except Exception:
        LOG.exception("a message could not be taken")
        received.reject()
    if arrivals is not None and len(self.callback.incoming) == before:
        arrivals.leave(host)


def _check_is_new(content: dict[str, Any], listener: AMQPListener) -> None:
    if content.get("_unique_id") in listener.msg_id_cache.prev_msgids:
        raise BadEnvelope("it has come before")


def _message(received: Any, content: dict[str, Any]) -> Any:
    """The message as oslo.messaging would have made it."""
    made = impl_rabbit.RabbitMessage.__new__(impl_rabbit.RabbitMessage)
    made.update(content)
    made._raw_message = received
    return made


def _parse(text: bytes | str) -> dict[str, Any]:
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if len(body) > MOST_BYTES:
        raise BadEnvelope(f"it has {len(body)} bytes, and the most is {MOST_BYTES}")
    if _is_deep(body) and _is_deep(_STRING.sub(b"", body)):
        raise BadEnvelope(f"it is nested more than {MOST_DEPTH} levels deep")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise BadEnvelope("it is not JSON") from None
    if not isinstance(content, dict):
        raise BadEnvelope("it is no JSON object")
    return content


def _is_deep(body: bytes) -> bool:
    """Whether the brackets of a text are nested too deep, or do not match. Brackets in strings count too."""
    brackets = body.translate(None, _NOT_BRACKETS)
    for _ in range(MOST_DEPTH):
        if not brackets:
            return False
        fewer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(fewer) == len(brackets):
            return True
        brackets = fewer
    return bool(brackets)
