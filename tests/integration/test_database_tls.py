"""TLS to PostgreSQL as docs/how-to/secure-a-fleet.md says: ``sslmode=verify-full`` and the operator's CA."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from portclaim.cli.embedded import INITDB_OPTIONS
from portclaim.cli.main import main
from portclaim.cli.supervisor import supervise
from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import ServiceUnavailable
from tests.support.certificates import Authority
from tests.support.engines import run_owner, skip_without
from tests.support.rabbitmq import free_ports
from tests.support.services import as_ini

NOT_IN_THE_CERTIFICATE = "127.0.0.2"
ONLY_TLS = "hostssl all all 127.0.0.0/8 trust\n"


class Site(NamedTuple):
    """A server that speaks TLS only; its certificate is for localhost and 127.0.0.1."""

    port: int
    ca: Path
    directory: Path

    def url(self, host: str = "localhost", ca: Path | None = None, mode: str = "verify-full") -> str:
        words = f"sslmode={mode}&sslrootcert={ca or self.ca}"
        return f"postgresql+psycopg2://postgres@{host}:{self.port}/postgres?{words}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # The server that the demo brings knows no TLS.
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        skip_without("a PostgreSQL with TLS", "as root: apt-get install postgresql")
    directory = Path(tempfile.mkdtemp(prefix="portclaim-postgresql-"))  # its user cannot enter pytest's
    authority = Authority(directory)
    certificate, key = authority.issue("server")
    user = "nobody" if os.geteuid() == 0 else None
    key.chmod(0o600)
    if user is not None:
        for path in (directory, certificate, key):
            shutil.chown(path, user)
    data = directory / "data"
    initdb = [str(programs[-1].with_name("initdb")), f"--pgdata={data}", *INITDB_OPTIONS]
    subprocess.run(initdb, check=True, user=user, cwd=directory, stdout=subprocess.DEVNULL)
    (data / "pg_hba.conf").write_text(ONLY_TLS)
    [port] = free_ports(1)
    server = supervise(
        *(programs[-1], "-D", data, "-k", directory, "-p", str(port), "--fsync=off"),
        f"--listen_addresses=127.0.0.1,{NOT_IN_THE_CERTIFICATE}",
        *("--ssl=on", f"--ssl_cert_file={certificate}", f"--ssl_key_file={key}"),
        ready="ready to accept connections",
        log=directory / "log",
        directory=directory,  # removed with the server
        stop_signal=signal.SIGINT,
        user=user,
        owner=run_owner(),
    )
    yield Site(port, authority.ca, directory)
    server.stop()


def is_encrypted(url: str) -> bool:
    engine = connect(url, 2)
    try:
        query = sa.text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return in_transaction(engine, lambda connection: bool(connection.scalar(query)))
    finally:
        engine.dispose()


def refusal(url: str) -> str:
    """What PostgreSQL's client says, where the service says that the database does not answer."""
    with pytest.raises(ServiceUnavailable) as caught:
        is_encrypted(url)
    return str(caught.value.__cause__)


def test_the_right_ca_and_the_right_name_are_let_in(site: Site) -> None:
    assert is_encrypted(site.url())
    file = site.directory / "portclaim.conf"
    file.write_text(as_ini({"database": {"connection": site.url()}}))
    done = CliRunner().invoke(main, ["--config-file", str(file), "db", "upgrade"])
    assert done.exit_code == 0, done.output


def test_another_name_than_the_certificates_is_refused(site: Site) -> None:
    assert "does not match host name" in refusal(site.url(NOT_IN_THE_CERTIFICATE))
    assert is_encrypted(site.url(NOT_IN_THE_CERTIFICATE, mode="verify-ca"))  # the name alone was wrong


def test_a_server_of_another_ca_is_refused(site: Site, tmp_path: Path) -> None:
    assert "certificate verify failed" in refusal(site.url(ca=Authority(tmp_path, "stranger").ca))


def test_nothing_is_sent_in_plain_text(site: Site) -> None:
    assert "no encryption" in refusal(site.url(mode="disable"))
