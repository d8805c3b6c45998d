"""TLS to RabbitMQ with client certificates: calls, signs of life and events; others get nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events.stream import EventStream
from portclaim.common.rpc.agent_messages import SignOfLife
from portclaim.common.rpc.collector import Reader, collector
from portclaim.common.rpc.conductor import SIGNS_OF_LIFE, ConductorClient
from portclaim.common.rpc.endpoint import Endpoint, finish, server
from portclaim.common.rpc.insecure import warnings
from portclaim.common.rpc.transport import transport
from tests.support import rabbitmq
from tests.support.certificates import Authority
from tests.support.engines import run_owner, skip_without
from tests.support.services import as_ini

TLS = """
listeners.tcp = none
listeners.ssl.local = 127.0.0.1:{amqp}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class Site:
    """A broker that speaks TLS only, and asks for certificates."""

    def __init__(self, directory: Path, url: str, authority: Authority) -> None:
        self.url = url
        self.authority = authority
        self._directory = directory

    def configured(self, **options: object) -> cfg.ConfigOpts:
        file = self._directory / "tls.conf"
        sections = {
            "DEFAULT": {"transport_url": self.url, "host": "h1"},
            "rpc": {"timeout": 5, "attempts": 1},
            "oslo_messaging_rabbit": {"ssl": True, "ssl_ca_file": self.authority.ca, **options},
        }
        file.touch(mode=0o600)
        file.write_text(as_ini(sections))
        return config.load(["--config-file", str(file)], "test")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if rabbitmq.find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    certificate, key = authority.issue("broker")
    more = TLS.replace("{ca}", str(authority.ca)).replace("{certificate}", str(certificate))
    broker, environment = rabbitmq.prepare_node(directory, more.replace("{key}", str(key)))
    file = directory / "rabbitmq.conf"
    plain = f"listeners.tcp.local = 127.0.0.1:{broker.amqp}\n"
    file.write_text(file.read_text().replace(plain, ""))
    mapper = rabbitmq.start_port_mapper(directory, environment, run_owner())
    node = rabbitmq.start_node(directory / "log", environment, run_owner())
    yield Site(directory, f"rabbit://guest:guest@localhost:{broker.amqp}/", authority)
    node.stop()
    mapper.stop()


def test_calls_signs_of_life_and_events_are_encrypted(site: Site) -> None:
    certificate, key = site.authority.issue("client")
    conf = site.configured(ssl_cert_file=certificate, ssl_key_file=key)
    bus = transport(conf)
    serving = server(bus, "conductor", "h1", Endpoint())
    came = threading.Event()
    signs = collector(bus, conf, SIGNS_OF_LIFE, Reader(SignOfLife, lambda _sign: came.set()))
    serving.start()
    signs.start()
    client = ConductorClient(bus, conf)
    client.ping()
    client.show_life(
        SignOfLife.model_validate(
            {"host": "h1", "agent_id": "00000000-0000-0000-0000-000000000001", "digest": "d"}
        )
    )
    assert came.wait(60)
    with EventStream(conf) as events:
        events.start()
    finish(serving, signs)
    bus.cleanup()
    assert warnings(conf, "conductor") == []


@pytest.mark.parametrize("who", ["nobody", "another authority's", "a broker of another authority"])
def test_others_get_nothing(site: Site, tmp_path: Path, who: str) -> None:
    other = Authority(tmp_path, "other")
    certificate, key = (other if who == "another authority's" else site.authority).issue("client")
    options: dict[str, object] = {}
    if who != "nobody":
        options = {"ssl_cert_file": certificate, "ssl_key_file": key}
    if who.startswith("a broker"):
        options["ssl_ca_file"] = other.ca
    bus = transport(site.configured(**options), makes_exchange=False)
    with pytest.raises(ServiceUnavailable):
        ConductorClient(bus, site.configured(**options)).ping()
    bus.cleanup()
