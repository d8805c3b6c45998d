"""Rules of the house that no tool checks: which way imports go, and what a tracked file never says."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("portclaim", "bench", "tests")
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/__init__.py"))
# What each package may import of ours; the longest prefix counts. Only the demo runs services in its
# process; `portclaim host` reads the machine with its agent's own eyes.
MAY_IMPORT = {
    "common/": ("portclaim.common",),
    "common/pci/": ("portclaim.common.pci",),
    "services/": (),
    **{f"services/{name}/": ("portclaim.common", f"portclaim.services.{name}") for name in SERVICES},
    "cli/": ("portclaim.common", "portclaim.cli"),
    "cli/demo/": ("portclaim.common", "portclaim.cli", "portclaim.services"),
    "cli/serve/": ("portclaim.common", "portclaim.cli", "portclaim.services"),
    "cli/host/": ("portclaim.common", "portclaim.cli", "portclaim.services.compute_agent"),
    "cli/config_check/": ("portclaim.common", "portclaim.cli", "portclaim.services.compute_agent"),
    "cli/keystone_check/": ("portclaim.common", "portclaim.cli", "portclaim.services.api"),
}


def tracked() -> list[str]:
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


TRACKED = tracked()
MODULES = [
    name for name in TRACKED if name.endswith(".py") and name.startswith(("common/", "services/", "cli/"))
]
TEXTS = [name for name in TRACKED if b"\0" not in (ROOT / name).read_bytes()]


def imports(module: str) -> Iterator[str]:
    """The names of ours that a module imports, wherever in it the import stands."""
    package = module.split("/")[:-1]
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = [*above, node.module] if node.module else above
            names = [".".join([*origin, alias.name]) for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in OURS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    place = module.removesuffix(".py") + "/"
    allowed = MAY_IMPORT[max((prefix for prefix in MAY_IMPORT if place.startswith(prefix)), key=len)]
    wrong = [
        name for name in imports(module) if not f"{name}.".startswith(tuple(f"{each}." for each in allowed))
    ]
    assert not wrong, f"{module} may import {allowed or 'nothing'} of ours, but imports {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    lines = len((ROOT / module).read_text().splitlines())
    assert lines <= 300, f"{module} has {lines} lines"


def test_no_file_names_a_place_on_one_machine() -> None:
    place = re.compile(r"(?<![\w.}])/(?:root|work|home)/\w.*")
    found = {name: match[0] for name in TEXTS if (match := place.search((ROOT / name).read_text()))}
    assert not found


@pytest.mark.parametrize("locked", ["requirements.txt", "requirements-dev.txt", "requirements-docs.txt"])
def test_locked_requirements_are_names_versions_and_hashes_only(locked: str) -> None:
    line = re.compile(r"\s*(#.*)?|[\w.-]+==[\w.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    lines = (ROOT / locked).read_text().splitlines()
    assert [each for each in lines if not line.fullmatch(each)] == []
    assert not any("://" in each for each in lines)


def test_no_lock_file_brings_addresses_of_its_own() -> None:
    lock_files = {
        "uv.lock",
        "poetry.lock",
        "Pipfile.lock",
        "package-lock.json",
        "yarn.lock",
        "pnpm-lock.yaml",
    }
    assert [name for name in TRACKED if Path(name).name in lock_files] == []
