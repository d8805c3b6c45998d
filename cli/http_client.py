"""The scheduler's client over HTTP, for a command line that does not reach the message bus.

It has the methods of :class:`~portclaim.common.rpc.scheduler.SchedulerClient` that commands call, and answers
and raises the same. ``who`` of a method is not sent: the audit names the token. It imports only what Python
has.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit
from uuid import UUID

from pydantic import BaseModel

from portclaim.cli.http_problems import error_of
from portclaim.common.errors import InvalidConfiguration, PortclaimError, ServiceUnavailable
from portclaim.common.rpc.alias_messages import Aliases
from portclaim.common.rpc.batch_messages import Outcomes
from portclaim.common.rpc.candidate_messages import Candidates, CandidatesRequest
from portclaim.common.rpc.claim_messages import (
    Claim,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
)
from portclaim.common.rpc.history_messages import History, HistoryFilter
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.operator_messages import (
    AwaitedSteps,
    ClaimFilter,
    Claims,
    HostFilter,
    Hosts,
    LiveClaims,
    Retried,
    Retry,
    StepFilter,
    WaitingClaims,
    WaitingFilter,
)
from portclaim.common.rpc.refusal_messages import RefusalFilter, Refusals
from portclaim.common.rpc.summary_messages import FleetSummary

M = TypeVar("M", bound=BaseModel)

_ATTEMPTS = 3
_TIMEOUT = 90.0  # seconds; a request may wait for a status for 60
_PAGE = 1000  # the most rows of one answer
_LONGEST_WAIT = 60.0
_NAMES = {"statuses": "status", "hosts": "host"}  # of filters, where a parameter of the query may be repeated


class HttpScheduler:
    """Calls the API at ``url`` with ``token``. Raises :class:`InvalidConfiguration` for another URL."""

    def __init__(self, url: str, token: str) -> None:
        if (parts := _parts(url)) is None:
            raise InvalidConfiguration(f"{shown(url)!r} is not the URL of an API: write http://host:9610")
        if not token:
            raise InvalidConfiguration(
                "the API needs a token: set PORTCLAIM_TOKEN, or PORTCLAIM_TOKEN_FILE to a file that has it"
            )
        self._url = shown(url)
        self._parts = parts
        self._timeout, self._attempts = _TIMEOUT, _ATTEMPTS
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def ping(self) -> None:
        self.json("GET", "/readyz")

    def hurry(self, timeout: float) -> None:
        """From now on wait for an answer only so many seconds, and ask once."""
        self._timeout, self._attempts = timeout, 1

    def claim(self, request: ClaimRequest) -> Claim:
        body = request.model_dump(mode="json", exclude_defaults=True, exclude={"claim_id"})
        return self._ask(Claim, "PUT", f"/v1/claims/{request.claim_id}", body)

    def claim_many(self, requests: Sequence[ClaimRequest]) -> list[Claim | PortclaimError]:
        claims = [each.model_dump(mode="json", exclude_defaults=True) for each in requests]
        return self._ask(Outcomes, "POST", "/v1/claims:batch", {"claims": claims}).results()

    def show(self, claim_id: UUID) -> Claim:
        return self._ask(Claim, "GET", f"/v1/claims/{claim_id}")

    def wait(self, claim_id: UUID, until: str, seconds: float) -> Claim:
        """The claim when it is that far, or cannot be any more, or the time is over: at most a minute."""
        query = urlencode({"wait_for": until, "timeout": min(seconds, _LONGEST_WAIT)})
        return self._ask(Claim, "GET", f"/v1/claims/{claim_id}?{query}")

    def attach(self, claim_id: UUID) -> Claim:
        return self._ask(Claim, "POST", f"/v1/claims/{claim_id}/attach", {})

    def release(self, claim_id: UUID) -> Claim:
        return self._ask(Claim, "DELETE", f"/v1/claims/{claim_id}")

    def release_many(self, claim_ids: Sequence[UUID]) -> list[Claim | PortclaimError]:
        body = {"claim_ids": list(map(str, claim_ids))}
        return self._ask(Outcomes, "POST", "/v1/claims:release", body).results()

    def force_release(self, claim_id: UUID, who: str, reason: str) -> Claim:
        return self._ask(Claim, "POST", f"/v1/claims/{claim_id}/force-release", {"reason": reason})

    def move(self, request: MoveRequest) -> Move:
        body = request.model_dump(mode="json", exclude_defaults=True, exclude={"claim_id", "who"})
        return self._ask(Move, "PUT", f"/v1/moves/{request.claim_id}", body)

    def complete_move(self, claim_id: UUID, *, who: str | None = None, reason: str | None = None) -> Move:
        return self._ask(Move, "POST", f"/v1/moves/{claim_id}/complete", {"reason": reason})

    def revert_move(self, claim_id: UUID, *, who: str | None = None, reason: str | None = None) -> Move:
        return self._ask(Move, "POST", f"/v1/moves/{claim_id}/revert", {"reason": reason})

    def claims(self, wanted: ClaimFilter) -> Claims:
        return self._ask(Claims, "GET", _listed("claims", wanted))

    def waiting(self, wanted: WaitingFilter) -> WaitingClaims:
        return self._ask(WaitingClaims, "GET", _listed("waiting", wanted))

    def refusals(self, wanted: RefusalFilter) -> Refusals:
        return self._ask(Refusals, "GET", _listed("refusals", wanted))

    def devices(self, wanted: DeviceFilter) -> Devices:
        return self._ask(Devices, "GET", _listed("devices", wanted))

    def hosts(self, wanted: HostFilter) -> Hosts:
        return self._ask(Hosts, "GET", _listed("hosts", wanted))

    def awaited_steps(self, wanted: StepFilter) -> AwaitedSteps:
        return self._ask(AwaitedSteps, "GET", _listed("steps", wanted))

    def history(self, wanted: HistoryFilter) -> History:
        of = f"claims/{wanted.claim_id}" if wanted.claim_id else f"hosts/{quote(wanted.host or '')}"
        query = {"limit": wanted.limit} | ({"address": wanted.address} if wanted.address else {})
        return self._ask(History, "GET", f"/v1/{of}/history?{urlencode(query)}")

    def summary(self) -> FleetSummary:
        return self._ask(FleetSummary, "GET", "/v1/summary")

    def explain(self, request: ExplainRequest) -> Explanation:
        body = request.model_dump(mode="json", exclude_defaults=True)
        return self._ask(Explanation, "POST", "/v1/explain", body)

    def candidates(self, request: CandidatesRequest) -> Candidates:
        body = request.model_dump(mode="json", exclude_defaults=True)
        return self._ask(Candidates, "POST", "/v1/candidates", body)

    def aliases(self) -> Aliases:
        return self._ask(Aliases, "GET", "/v1/aliases")

    def drain(self, host: str, reason: str, address: str | None = None, *, who: str | None = None) -> int:
        body = {"reason": reason, "address": address}
        return self._ask(LiveClaims, "POST", f"/v1/hosts/{quote(host)}/drain", body).live_claims

    def undrain(
        self, host: str, address: str | None = None, *, who: str | None = None, reason: str | None = None
    ) -> int:
        body = {"address": address, "reason": reason}
        return self._ask(LiveClaims, "POST", f"/v1/hosts/{quote(host)}/undrain", body).live_claims

    def remove_host(self, host: str, who: str, reason: str, *, force: bool = False) -> int:
        path = f"/v1/hosts/{quote(host)}/remove?force={str(force).lower()}"
        return self._ask(LiveClaims, "POST", path, {"reason": reason}).live_claims

    def renew_device(
        self, host: str, address: str, *, who: str | None = None, reason: str | None = None
    ) -> bool:
        body = {"address": address, "reason": reason}
        return bool(self.json("POST", f"/v1/hosts/{quote(host)}/renew", body)["renewed"])

    def retry(
        self,
        claim_ids: Collection[UUID] | None = None,
        host: str | None = None,
        *,
        who: str | None = None,
        reason: str | None = None,
    ) -> int:
        ids = None if claim_ids is None else list(claim_ids)
        which = Retry(claim_ids=ids, host=host, reason=reason)
        return self._ask(Retried, "POST", "/v1/steps:retry", which.model_dump(mode="json")).steps

    def events(self, path: str = "/v1/events", **wanted: Any) -> Iterator[str]:
        """Events as JSON, as they happen. It connects again and misses nothing meanwhile.

        ``path``: which events; ``wanted`` are parameters of its query. Raises the API's errors when it
        connects first.
        """
        last: dict[str, str] = {}
        while True:
            try:
                connection, response = self._send(
                    "GET", f"{path}?{urlencode(wanted, doseq=True)}", None, last
                )
                with connection:
                    if response.status != 200:
                        raise error_of(response.status, response.read())
                    for line in response:
                        key, _, value = line.decode().rstrip("\n").partition(": ")
                        if key == "id":
                            last = {"Last-Event-ID": value}
                        elif key == "data":
                            yield value
            except (OSError, http.client.HTTPException) as error:
                if not last:
                    raise self._away(error) from error
            time.sleep(1)

    def json(self, method: str, path: str, body: object = None) -> Any:
        """The answer to any request, as JSON. Raises the API's errors and :class:`ServiceUnavailable`."""
        for attempt in range(1, self._attempts + 1):
            try:
                connection, response = self._send(method, path, body, {})
                with connection:
                    said = response.read()
            except (OSError, http.client.HTTPException) as error:
                if attempt == self._attempts:
                    raise self._away(error) from error
                time.sleep(0.2 * attempt)
                continue
            if response.status == 503 and attempt < self._attempts:
                time.sleep(float(response.headers.get("Retry-After") or 1))
                continue
            if response.status >= 400:
                raise error_of(response.status, said)
            return json.loads(said) if said else None
        raise AssertionError

    def _ask(self, kind: type[M], method: str, path: str, body: object = None) -> M:
        return kind.model_validate(self.json(method, path, body), extra="ignore")

    def _send(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[closing[http.client.HTTPConnection], http.client.HTTPResponse]:
        connection = self._connection()
        try:
            connection.request(
                method,
                self._parts.path.rstrip("/") + path,
                None if body is None else json.dumps(body),
                self._headers | headers | ({} if body is None else {"Content-Type": "application/json"}),
            )
            return closing(connection), connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _away(self, error: BaseException) -> ServiceUnavailable:
        return ServiceUnavailable(f"the API at {self._url} does not answer: {error}")


def shown(url: str) -> str:
    """The URL for messages: without what may be a secret. That of the page has a token behind ``#``."""
    before, _, after = re.split("[?#]", url, maxsplit=1)[0].rpartition("@")
    return after if not before else f"{before.partition('//')[0]}//{after}"


def _parts(url: str) -> SplitResult | None:
    """The parts of the URL of an API; None: it is not one."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_one else None


def _listed(path: str, wanted: BaseModel) -> str:
    """The path of a list, with the filter as its query."""
    fields = wanted.model_dump(mode="json", exclude_none=True)
    fields["limit"] = min(fields["limit"], _PAGE)
    query = {_NAMES.get(name, name): _text(value) for name, value in fields.items()}
    return f"/v1/{path}?{urlencode(query, doseq=True)}"


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
