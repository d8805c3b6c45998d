"""RabbitMQ's management API: users and their permissions."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from portclaim.common.errors import InvalidConfiguration, InvalidRequest, ServiceUnavailable
from portclaim.common.rpc.host_exchange import AGENTS, ALL
from portclaim.common.secret_urls import ENCODE
from portclaim.common.trust.broker_rights import Rights

_PATIENCE = 30.0  # seconds
_MOST_CONNECTIONS = 40  # of a host: an agent has some ten
_MOST_CHANNELS = 80  # of a host: a connection of an agent has one or two
_TOPIC = {"type": "topic", "durable": True}
_NOT_A_URL = (
    "PORTCLAIM_BROKER_URL is not the URL of RabbitMQ's management API: write "
    f"https://user:password@host:15671. {ENCODE}"
)


class Management:
    """The management API at ``http(s)://user:password@host:15672``, for one virtual host.

    ``ca_file``: the certificate authority of an https URL; None: the system's. Every method raises
    :class:`ServiceUnavailable` and :class:`InvalidConfiguration`.
    """

    def __init__(self, url: str, virtual_host: str, ca_file: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or 15672
        except ValueError:  # its message may have a part of the password
            raise InvalidConfiguration(_NOT_A_URL) from None
        if parts.scheme not in {"http", "https"} or parts.hostname is None or parts.username is None:
            raise InvalidConfiguration(_NOT_A_URL)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._base = f"{parts.scheme}://{host}:{port}/api/"
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        self._authorization = "Basic " + base64.b64encode(login.encode()).decode()
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._virtual_host = quote(virtual_host, safe="")

    def grant(self, user: str, password: str, rights: Rights) -> None:
        """Make the user, or give it another password, with exactly these rights."""
        name = quote(user, safe="")
        self._call("PUT", f"users/{name}", {"password": password, "tags": ""})
        self._call(
            "PUT",
            f"permissions/{self._virtual_host}/{name}",
            {"configure": rights.configure, "write": rights.write, "read": rights.read},
        )
        for exchange, topic in rights.topics.items():
            self._call(
                "PUT",
                f"topic-permissions/{self._virtual_host}/{name}",
                {"exchange": exchange, "write": topic.write, "read": topic.read},
            )
        if rights.own_exchange is not None:
            for exchange in (AGENTS, rights.own_exchange):
                path = f"exchanges/{self._virtual_host}/{quote(exchange, safe='')}"
                self._call("PUT", path, _TOPIC)
            self.readmit(rights.own_exchange)
            self._call("PUT", f"user-limits/{name}/max-connections", {"value": _MOST_CONNECTIONS})
            self._call("PUT", f"user-limits/{name}/max-channels", {"value": _MOST_CHANNELS})

    def readmit(self, exchange: str) -> None:
        """Bind a host's exchange to that of all agents. Raises :class:`InvalidRequest` if there is none."""
        path = f"bindings/{self._virtual_host}/e/{quote(exchange, safe='')}/e/{AGENTS}"
        if self._call("POST", path, {"routing_key": ALL}, missing=True) is _MISSING:
            raise InvalidRequest(
                f"RabbitMQ has no exchange {exchange}: `portclaim broker grant HOST` makes it for a host"
            )

    def bound_exchanges(self) -> set[str]:
        """The exchanges of the hosts that are not cut off."""
        path = f"exchanges/{self._virtual_host}/{AGENTS}/bindings/destination"
        found = self._call("GET", path, missing=True)
        return set() if found is _MISSING else {str(each["source"]) for each in found}

    def revoke(self, user: str, exchange: str | None = None) -> None:
        """Delete the user and close its connections. Raises :class:`InvalidRequest` if there is none.

        ``exchange``: the one that only this user can publish to.
        """
        if self._call("DELETE", f"users/{quote(user, safe='')}", missing=True) is _MISSING:
            raise InvalidRequest(f"RabbitMQ has no user {user}: `portclaim broker list` shows them")
        if exchange is not None:
            path = f"exchanges/{self._virtual_host}/{quote(exchange, safe='')}"
            self._call("DELETE", path, missing=True)
        for connection in self._call("GET", "connections"):
            if connection.get("user") == user:  # RabbitMQ may be closing it already, and then answers 500
                with suppress(ServiceUnavailable):
                    self._call("DELETE", f"connections/{quote(connection['name'], safe='')}", missing=True)

    def permissions(self) -> list[dict[str, Any]]:
        """The users of the virtual host with ``configure``, ``write`` and ``read``."""
        found = self._call("GET", f"vhosts/{self._virtual_host}/permissions")
        return sorted(found, key=lambda each: str(each["user"]))

    def _call(self, method: str, path: str, body: object = None, *, missing: bool = False) -> Any:
        request = urllib.request.Request(self._base + path, method=method)  # noqa: S310 - checked above
        request.add_header("Authorization", self._authorization)
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(  # noqa: S310 - checked above
                request, data, timeout=_PATIENCE, context=self._tls
            ) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND and missing:
                return _MISSING
            if error.code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise InvalidConfiguration(
                    "RabbitMQ refuses the user of PORTCLAIM_BROKER_URL: it needs the tag administrator"
                ) from None
            raise ServiceUnavailable(f"RabbitMQ answers {error.code} to {method} {path}") from None
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(f"RabbitMQ's management API does not answer: {error}") from None
        return json.loads(text) if text else None


def definitions(virtual_host: str, exchange: str) -> dict[str, Any]:
    """What `rabbitmqctl import_definitions` makes for a host: its exchange, bound to that of all agents."""
    fixed = {"vhost": virtual_host, "type": "topic", "durable": True, "auto_delete": False, "internal": False}
    return {
        "exchanges": [{"name": name, "arguments": {}, **fixed} for name in (AGENTS, exchange)],
        "bindings": [
            {
                "source": exchange,
                "vhost": virtual_host,
                "destination": AGENTS,
                "destination_type": "exchange",
                "routing_key": ALL,
                "arguments": {},
            }
        ],
    }


_MISSING = object()
