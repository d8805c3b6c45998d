"""A rolling upgrade of services that call each other: old and new versions of an interface side by side.

The interface is the scheduler's, as it might be two minor versions later.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import pytest
from oslo_config import cfg
from pydantic import Field

from portclaim.common import config
from portclaim.common.errors import InvalidConfiguration, InvalidMessage, UnsupportedVersion
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.endpoint import Endpoint, exposed, finish, server
from portclaim.common.rpc.fields import Message, Nothing
from portclaim.common.rpc.transport import transport
from portclaim.common.rpc.versions import Since
from tests.support.services import as_ini

C = TypeVar("C", bound=Client)


class OldPort(Message):
    name: str


class OldRequest(Message):
    ports: list[OldPort]


class OldAnswer(Message):
    said: dict[str, Any]


class OldEndpoint(Endpoint):
    """What version 1.0 answers."""

    def __init__(self) -> None:
        self.came: list[Message] = []

    @exposed(OldRequest)
    def ask(self, request: OldRequest) -> OldAnswer:
        self.came.append(request)
        return OldAnswer(said=request.model_dump())


class NewPort(Message):
    name: str
    speed: Annotated[int | None, Since("1.1")] = None


class NewRequest(Message):
    ports: list[NewPort]
    urgent: Annotated[bool, Since("1.2")] = False


class Detail(Message):
    text: str


class NewAnswer(Message):
    said: dict[str, Any]
    details: list[Detail] = Field(default=[])


class NewEndpoint(Endpoint):
    """What version 1.2 answers: there are new fields, and a method came with 1.1."""

    @exposed(NewRequest)
    def ask(self, request: NewRequest) -> NewAnswer:
        return NewAnswer(said=request.model_dump(), details=[Detail(text="new")])

    @exposed(Nothing)
    def count(self, _nothing: Nothing) -> OldAnswer:
        return OldAnswer(said={"count": 1})


class OldClient(Client):
    topic = "scheduler"

    def ask(self, request: OldRequest) -> OldAnswer:
        return self._call("ask", request, OldAnswer)


class NewClient(Client):
    topic = "scheduler"

    def ask(self, request: NewRequest) -> NewAnswer:
        return self._call("ask", request, NewAnswer)

    def count(self) -> OldAnswer:
        return self._call("count", Nothing(), OldAnswer, since="1.1")

    def tell(self, request: NewRequest) -> None:
        self._cast("ask", request)


PLAIN = NewRequest(ports=[NewPort(name="p0"), NewPort(name="p1")])
WITH_SPEED = NewRequest(ports=[NewPort(name="p0"), NewPort(name="p1", speed=25)])
URGENT = NewRequest(ports=[NewPort(name="p0")], urgent=True)


class Site:
    """A bus with one scheduler, and callers. Each has a connection of its own."""

    def __init__(self, transport_url: str, directory: Path) -> None:
        self._url = transport_url
        self._directory = directory
        self._server = ExitStack()
        self._callers = ExitStack()

    def serve(self, endpoint: Endpoint, version: str) -> None:
        """Start a scheduler that speaks this version, in place of the one before."""
        self._server.close()
        bus = transport(self._configured({}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(versions.SPOKEN, "scheduler", version)
            started = server(bus, "scheduler", "h1", endpoint)
        started.start()
        self._server.callback(bus.cleanup)
        self._server.callback(finish, started)

    def caller(self, kind: type[C], pin: str | None = None) -> C:
        conf = self._configured({} if pin is None else {"upgrade_levels": {"scheduler": pin}})
        bus = transport(conf)
        self._callers.callback(bus.cleanup)
        return kind(bus, conf)

    def close(self) -> None:
        self._callers.close()
        self._server.close()

    def _configured(self, sections: dict[str, Any]) -> cfg.ConfigOpts:
        file = self._directory / f"{uuid4()}.conf"
        every = {"DEFAULT": {"transport_url": self._url}, "rpc": {"timeout": 20.0, "attempts": 1}}
        file.write_text(as_ini({**every, **sections}))
        return config.load(["--config-file", str(file)], "test")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site("fake://", tmp_path)
    yield site
    site.close()


class TestOldService:
    """The caller was upgraded first."""

    @pytest.fixture(autouse=True)
    def _old_service(self, site: Site) -> None:
        self.endpoint = OldEndpoint()
        site.serve(self.endpoint, "1.0")

    def test_an_old_service_answers_a_new_caller_that_uses_no_new_fields(self, site: Site) -> None:
        answer = site.caller(NewClient).ask(PLAIN)
        assert answer.said == {"ports": [{"name": "p0"}, {"name": "p1"}]}

    @pytest.mark.parametrize(("request_", "needed"), [(WITH_SPEED, "1.1"), (URGENT, "1.2")])
    def test_an_old_service_refuses_a_new_field_and_says_what_to_do(
        self, site: Site, request_: NewRequest, needed: str
    ) -> None:
        with pytest.raises(UnsupportedVersion) as refused:
            site.caller(NewClient).ask(request_)
        assert type(refused.value) is UnsupportedVersion
        assert refused.value.kwargs == {"method": "ask", "needed": needed, "spoken": "1.0"}
        assert refused.value.message == (
            f"this scheduler speaks version 1.0 of its interface, but the call of ask needs version {needed}"
            ". Upgrade the service scheduler first. Until then, set [upgrade_levels] scheduler = 1.0 in the "
            "caller's configuration"
        )
        assert self.endpoint.came == []

    def test_an_old_service_refuses_a_new_method(self, site: Site) -> None:
        with pytest.raises(UnsupportedVersion, match="count needs version 1\\.1"):
            site.caller(NewClient).count()

    def test_an_old_service_drops_a_message_that_is_too_new_and_goes_on(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        caller = site.caller(NewClient)
        caller.tell(WITH_SPEED)
        caller.ask(PLAIN)
        assert len(self.endpoint.came) == 1
        assert "refused a message: this scheduler speaks version 1.0" in caplog.text

    def test_the_same_caller_needs_no_restart_after_the_service_was_upgraded(self, site: Site) -> None:
        caller = site.caller(NewClient)
        with pytest.raises(UnsupportedVersion):
            caller.ask(URGENT)
        site.serve(NewEndpoint(), "1.2")
        assert caller.ask(URGENT).said["urgent"] is True


class TestNewService:
    """The service was upgraded first."""

    @pytest.fixture(autouse=True)
    def _new_service(self, site: Site) -> None:
        site.serve(NewEndpoint(), "1.2")

    def test_a_new_service_answers_an_old_caller_which_ignores_new_fields(self, site: Site) -> None:
        answer = site.caller(OldClient).ask(OldRequest(ports=[OldPort(name="p0")]))
        assert answer.said["ports"] == [{"name": "p0", "speed": None}]

    def test_a_new_service_answers_a_new_caller(self, site: Site) -> None:
        answer = site.caller(NewClient).ask(WITH_SPEED)
        assert answer.said["ports"][1] == {"name": "p1", "speed": 25}
        assert answer.details == [Detail(text="new")]

    def test_a_new_service_still_refuses_unknown_fields(self, site: Site) -> None:
        class Unknown(NewRequest):
            colour: str = "red"

        with pytest.raises(InvalidMessage, match="colour"):
            site.caller(NewClient).ask(Unknown(ports=[]))


class TestPin:
    """``[upgrade_levels] scheduler`` of a caller, while schedulers of both versions run."""

    @pytest.fixture(autouse=True)
    def _service(self, site: Site) -> None:
        site.serve(NewEndpoint(), "1.2")

    def test_a_pinned_caller_speaks_the_old_version(self, site: Site) -> None:
        caller = site.caller(NewClient, pin="1.0")
        assert caller.ask(PLAIN).said["ports"] == [
            {"name": "p0", "speed": None},
            {"name": "p1", "speed": None},
        ]
        assert caller.can_send("1.0")
        assert not caller.can_send("1.1")

    def test_a_pinned_caller_sends_nothing_newer(self, site: Site) -> None:
        caller = site.caller(NewClient, pin="1.1")
        assert caller.count().said == {"count": 1}
        for send in (caller.ask, caller.tell, caller.at("h1").ask):
            with pytest.raises(UnsupportedVersion) as refused:
                send(URGENT)
            assert refused.value.kwargs == {"method": "ask", "needed": "1.2", "spoken": "1.1"}
            assert (
                "Remove that option after all instances of the service scheduler have been upgraded"
                in str(refused.value)
            )

    def test_a_caller_without_a_pin_may_send_new_fields(self, site: Site) -> None:
        assert site.caller(NewClient).can_send("1.2")


def test_versions_work_the_same_over_rabbitmq(rabbit_url: str, tmp_path: Path) -> None:
    with closing(Site(rabbit_url, tmp_path)) as site:
        old = OldEndpoint()
        site.serve(old, "1.0")
        caller = site.caller(NewClient)
        with pytest.raises(UnsupportedVersion) as refused:
            caller.ask(WITH_SPEED)
        assert type(refused.value) is UnsupportedVersion
        assert refused.value.kwargs == {"method": "ask", "needed": "1.1", "spoken": "1.0"}
        caller.tell(URGENT)
        assert caller.ask(PLAIN).said == {"ports": [{"name": "p0"}, {"name": "p1"}]}
        assert len(old.came) == 1
        site.serve(NewEndpoint(), "1.2")
        assert caller.ask(URGENT).said["urgent"] is True
        answer = site.caller(OldClient).ask(OldRequest(ports=[OldPort(name="p0")]))
        assert answer.said["ports"] == [{"name": "p0", "speed": None}]


@pytest.mark.parametrize("pin", ["auto", "1", "2.0", "1.0.1", ""])
def test_an_invalid_pin_is_refused(pin: str, tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text(as_ini({"upgrade_levels": {"conductor": pin}}))
    with pytest.raises(InvalidConfiguration, match="conductor"):
        config.load(["--config-file", str(file)], "test")


def test_versions_are_compared_as_numbers() -> None:
    assert versions.newest("1.9", "1.10", "1.0") == "1.10"


def test_a_caller_reads_a_status_of_a_claim_that_it_does_not_know() -> None:
    known = Claim(
        claim_id=uuid4(),
        instance_id=uuid4(),
        host="compute-7",
        status="claimed",
        reason=None,
        step=1,
        created_at="2026-03-02T09:00:00+00:00",
        updated_at="2026-03-02T09:00:00+00:00",
        devices=[],
    )
    newer = {**known.model_dump(mode="json"), "status": "suspended"}
    assert Claim.model_validate(newer, extra="ignore").status == "suspended"
