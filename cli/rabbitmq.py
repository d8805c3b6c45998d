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
from portclaim.common.trust.broker_rights import Rights

_PATIENCE = 30.0  # seconds
_MOST_CONNECTIONS = 40  # of a host: an agent has some ten


class Management:
    """The management API at ``http(s)://user:password@host:15672``, for one virtual host.

    ``ca_file``: the certificate authority of an https URL; None: the system's. Every method raises
    :class:`ServiceUnavailable` and :class:`InvalidConfiguration`.
    """

    def __init__(self, url: str, virtual_host: str, ca_file: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None or parts.username is None:
            raise InvalidConfiguration(
                "PORTCLAIM_BROKER_URL is not the URL of RabbitMQ's management API: write "
                "https://user:password@host:15671"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._base = f"{parts.scheme}://{host}:{parts.port or 15672}/api/"
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        self._authorization = "Basic " + base64.b64encode(login.encode()).decode()
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._virtual_host = quote(virtual_host, safe="")

    def grant(self, user: str, password: str, rights: Rights, *, is_host: bool) -> None:
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
        if is_host:
            self._call("PUT", f"user-limits/{name}/max-connections", {"value": _MOST_CONNECTIONS})

    def revoke(self, user: str) -> None:
        """Delete the user and close its connections. Raises :class:`InvalidRequest` if there is none."""
        if self._call("DELETE", f"users/{quote(user, safe='')}", missing=True) is _MISSING:
            raise InvalidRequest(f"RabbitMQ has no user {user}: `portclaim broker list` shows them")
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


_MISSING = object()
