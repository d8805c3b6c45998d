"""The API service: how a worker starts and stops."""

from __future__ import annotations

from oslo_config import cfg

from portclaim.common import config_faults, secret_urls
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.api import options
from portclaim.services.api.app import create_app
from portclaim.services.api.backend import Backend, connect, database_url
from portclaim.services.api.keystone import KeystoneTokens
from portclaim.services.api.server import Server, listen

_SPARE_CONNECTIONS = 4  # of the database: two for events, one for the map, and one for what comes


class Api:
    """One worker: answers requests over HTTP."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        register(conf, options.OPTIONS, options.GROUP)
        try:
            url = database_url(conf)
        except config_faults.MISSING_NAMES:
            raise InvalidConfiguration(f"[api] connection {config_faults.DOLLAR}") from None
        if not url:
            raise InvalidConfiguration("[api] connection is not set: the API needs the database")
        secret_urls.check_database(url, "[api] connection")
        self._keystone = KeystoneTokens(conf) if conf.api.auth == "keystone" else None
        self._conf = conf
        self._server: Server | None = None
        self.address = ""

    def start(self) -> None:
        conf = self._conf
        listener = listen(conf.api.listen, conf.api.port)
        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._bus = transport(conf, makes_exchange=False)
        engine = connect(
            database_url(conf) or "", conf.api.threads + _SPARE_CONNECTIONS, conf.database.answer_within
        )
        self._backend = Backend(
            SchedulerClient(self._bus, conf),
            engine,
            conf.api,
            conf.conductor.agent_down_after,
            self._keystone,
        )
        self._server = Server(create_app(self._backend), self._backend, listener)
        self._server.start()

    def reload(self, conf: cfg.ConfigOpts) -> None:
        """Do nothing: the API does not read ``[pci]``."""

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.stop()
        self._backend.close()
        self._bus.cleanup()
