"""The released versions: the code that each was made of."""

import io
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support.engines import skip_without

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "common/db/migrations/versions"


@dataclass(frozen=True)
class Release:
    """A released version. ``migrations``: the SHA-256 of each file that came with it."""

    version: str
    commit: str
    migrations: dict[str, str]

    def unpack(self, directory: Path) -> Path:
        """Put the tree of this release into a directory of its own; answer the directory."""
        tree = directory / self.version
        git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
        archive = subprocess.run([*git, "archive", self.commit], capture_output=True, check=False)
        if archive.returncode != 0:
            skip_without(f"the history of git with the release {self.version}", "clone without --depth")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="tar")
        return tree


def releases() -> list[Release]:
    """All of them, oldest first."""
    listed = tomllib.loads((Path(__file__).with_name("releases.toml")).read_text())
    return [Release(version, **facts) for version, facts in listed.items()]


def run_in(tree: Path, program: str, *arguments: str) -> None:
    """Run a Python program with the code of a tree."""
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True, timeout=60)


UPGRADE = "import sys; from portclaim.common.db import migrate; migrate.upgrade(sys.argv[1])"
"""A program that upgrades the database whose URL is its argument."""
