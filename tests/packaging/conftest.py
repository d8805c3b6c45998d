"""What is built once for all tests of the packages, and an environment into which they are installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import empty_database_url, rabbit_url

__all__ = ["empty_database_url", "rabbit_url"]

ROOT = Path(__file__).parents[2]
STRANGERS = ("common", "services", "cli")
STRANGER = 'raise ImportError("this package belongs to another project")\n'

_BUILD = """
import sys
from setuptools import build_meta
target = sys.argv[1]  # setuptools writes to sys.argv
build_meta.build_sdist(target)
build_meta.build_wheel(target)
"""


@dataclass(frozen=True)
class Packages:
    """The two files that a release consists of."""

    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel and its locked dependencies, and nothing else."""

    root: Path

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def site_packages(self) -> Path:
        (found,) = self.root.glob("lib/python3*/site-packages")
        return found

    def run(self, program: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, where nothing of the source tree can be imported."""
        return run(self.bin / program, *args, cwd=self.root)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Two dozen programs start in the environment: what the first one compiles is kept.
    left_out = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def checked(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: Path) -> Packages:
    """Build both packages from a source tree, with the setuptools that is here: no network is needed."""
    target.mkdir()
    checked(sys.executable, "-W", "ignore", "-c", _BUILD, target, cwd=source)
    (sdist,) = target.glob("*.tar.gz")
    (wheel,) = target.glob("*.whl")
    return Packages(sdist, wheel)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Built from a copy of what is tracked, as a clean clone has it."""
    directory = tmp_path_factory.mktemp("packages")
    source = directory / "source"
    source.mkdir()
    git = ["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z"]
    for name in checked(*git, cwd=ROOT).rstrip("\0").split("\0"):
        if (ROOT / name).exists():  # else it is deleted, and that is not committed yet
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    return build(source, directory / "dist")


@pytest.fixture(scope="session")
def environment(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Beside three packages of another project, which must neither be imported nor overwritten."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    checked(sys.executable, "-m", "venv", "--without-pip", environment.root, cwd=environment.root)
    for name in STRANGERS:
        (environment.site_packages / name).mkdir()
        (environment.site_packages / name / "__init__.py").write_text(STRANGER)
    python = environment.bin / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    install = [*pip, "install", "--quiet", "--no-compile"]
    checked(*install, "--require-hashes", "-r", ROOT / "requirements.txt", cwd=environment.root)
    checked(*install, "--no-deps", "--no-index", packages.wheel, cwd=environment.root)
    checked(*pip, "check", cwd=environment.root)
    yield environment
    shutil.rmtree(environment.root)
