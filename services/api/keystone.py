"""Tokens of OpenStack Keystone in place of Portclaim's own: who has one, and which role it gives.

keystonemiddleware validates them, as in every API server of OpenStack. It is WSGI middleware, so each token
that is not known yet goes through it in a request of its own, in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args
from wsgiref.util import setup_testing_defaults

from oslo_config import cfg

from portclaim.common.db.tokens import Holder, Role
from portclaim.common.errors import InvalidConfiguration, ServiceUnavailable
from portclaim.services.api.keystone_options import SECTION, Fault, faults
from portclaim.services.api.problems import Forbidden, Unauthorized

LOG = logging.getLogger(__name__)

_STRONGEST_FIRST: tuple[Role, ...] = ("operator", "claimer", "reader")


class InvalidSection(InvalidConfiguration):
    """``[keystone_authtoken]`` has faults, with which every request would fail."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


class KeystoneTokens:
    """Validates tokens with Keystone. ``[keystone_authtoken]`` says where it is and who asks it.

    Raises :class:`InvalidConfiguration` if keystonemiddleware is not installed, for an unknown role, and for
    a value that cannot be one; :class:`InvalidSection` if an option is wrong or missing.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._roles: Mapping[str, str] = conf.api.keystone_roles
        if unknown := sorted(set(self._roles.values()) - set(get_args(Role))):
            raise InvalidConfiguration(
                f"[api] keystone_roles: {', '.join(unknown)}: the roles are reader, claimer and operator"
            )
        try:
            from keystoneauth1.exceptions import ClientException  # noqa: PLC0415 - it is optional
            from keystonemiddleware.auth_token import AuthProtocol  # noqa: PLC0415
        except ImportError as error:
            raise InvalidConfiguration(
                "[api] auth = keystone needs keystonemiddleware: pip install 'portclaim[keystone]'"
            ) from error
        if found := list(faults(conf)):
            raise InvalidSection(found)
        # Its cache would keep a token that was revoked for minutes. The API itself remembers it for seconds.
        try:
            self._validate = AuthProtocol(_valid, {"oslo_config_config": conf, "token_cache_time": "-1"})
        except (ClientException, cfg.Error) as error:
            raise InvalidConfiguration(f"[{SECTION}]: {error}") from error
        self._cannot_be_asked = ClientException

    def holder(self, token: str, method: str, path: str) -> tuple[Holder, bool]:
        """Who has the token; and whether that holds for other requests too.

        Raises :class:`Unauthorized`, :class:`Forbidden` and :class:`ServiceUnavailable`.
        """
        facts: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_X_AUTH_TOKEN": token}
        setup_testing_defaults(facts)  # the rest of a WSGI request
        statuses: list[str] = []
        try:
            list(self._validate(facts, lambda status, *_: statuses.append(status)))
        except self._cannot_be_asked as error:
            LOG.warning("Keystone cannot be asked: look at [keystone_authtoken]: %s", error)
            raise ServiceUnavailable("Keystone cannot be asked: the log of the API says why") from error
        if statuses[0].startswith("401"):
            raise Unauthorized("Keystone does not know the token, or it was revoked or has expired")
        if not statuses[0].startswith("204"):
            raise ServiceUnavailable("Keystone does not answer: repeat the request later")
        of = facts["keystone.token_info"]["token"]
        is_restricted = "access_rules" in of.get("application_credential", {})
        return self._holder(facts, of), not is_restricted

    def _holder(self, facts: Mapping[str, str], of: Mapping[str, Any]) -> Holder:
        role = self._role(facts.get("HTTP_X_ROLES", "").split(","))
        name = f"{facts.get('HTTP_X_USER_NAME')}@{facts.get('HTTP_X_USER_DOMAIN_NAME')}"
        project = facts.get("HTTP_X_PROJECT_ID")
        if role == "operator" or (role == "reader" and "system" in of):
            return Holder(name, role, None)
        if not project:
            raise Forbidden("the token is for no project: ask Keystone for one with a project as its scope")
        return Holder(name, role, project)

    def _role(self, theirs: Iterable[str]) -> Role:
        """The strongest role that one of Keystone's gives. Raises :class:`Forbidden`."""
        found = {self._roles.get(name.strip()) for name in theirs}
        for role in _STRONGEST_FIRST:
            if role in found:
                return role
        raise Forbidden(
            f"none of the token's roles allows anything here: one of {', '.join(sorted(self._roles))} does"
        )


def _valid(_environ: object, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []
