"""Migrations that were released stay what they were, and the code knows the newest one."""

import hashlib

from alembic.config import Config
from alembic.script import ScriptDirectory

from portclaim.common.db import schema_version
from tests.upgrade.releases import MIGRATIONS, releases


def test_a_released_migration_never_changes() -> None:
    for release in releases():
        for name, digest in release.migrations.items():
            assert hashlib.sha256((MIGRATIONS / name).read_bytes()).hexdigest() == digest, (
                f"{name} was released with {release.version}: write a new migration instead"
            )


def test_the_code_names_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS.parent))
    assert ScriptDirectory.from_config(config).get_heads() == [schema_version.HEAD]
