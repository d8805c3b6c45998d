"""sbom.py PYTHON REQUIREMENTS DIRECTORY: what the services are made of, and under which licences.

``make sbom`` runs it in the environment of requirements-sbom.txt. PYTHON is the interpreter of the
environment in which REQUIREMENTS are installed. It writes two files to DIRECTORY: sbom.json (CycloneDX), and
licences.txt with a line for each package. It fails if a package has no licence, or is in the list of known
vulnerabilities that the package safety-db brings. That list needs no network, and is as old as the package.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def required(requirements: Path) -> set[str]:
    """The names of the packages in a locked file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==", requirements.read_text(), re.MULTILINE)
    return {canonicalize_name(name) for name in found}


def bill(python: str, names: set[str]) -> dict[str, Any]:
    """The bill of the environment's packages with these names, and of what each of them needs."""
    words = ["environment", python, "--output-reproducible", "--no-validate", "--spec-version", "1.6"]
    command = [sys.executable, "-m", "cyclonedx_py", *words, "--output-file", "-"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own words
    made: dict[str, Any] = json.loads(done.stdout)
    kept = [part for part in made["components"] if canonicalize_name(part["name"]) in names]
    lost = names - {canonicalize_name(part["name"]) for part in kept}
    if lost:
        sys.exit(f"not installed, although required: {', '.join(sorted(lost))}. Run: make setup")
    references = {part["bom-ref"] for part in kept}
    made["components"] = kept
    made["dependencies"] = [
        each
        | (
            {"dependsOn": [ref for ref in each["dependsOn"] if ref in references]}
            if "dependsOn" in each
            else {}
        )
        for each in made.get("dependencies", [])
        if each["ref"] in references
    ]
    fault = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6).validate_str(json.dumps(made))
    if fault is not None:
        sys.exit(f"this is not CycloneDX 1.6: {fault}")
    return made


def licence(part: dict[str, Any]) -> str:
    """The licences of a package in few words; empty: it names none."""
    names = []
    for each in part.get("licenses", []):
        known = each.get("license", {})
        names.append(each.get("expression") or known.get("id") or known.get("name") or "")
    short = {name for name in names if name and len(name) < 100 and "\n" not in name}
    declared = {name for name in short if not name.startswith("declared license of")}
    return " / ".join(sorted(declared))


def vulnerable(parts: list[dict[str, Any]]) -> list[str]:
    """The packages that the list of known vulnerabilities names, in these versions."""
    # To import the package fails: it opens a file that only its authors have.
    file = metadata.distribution("safety-db").locate_file("safety_db/insecure_full.json")
    listed = json.loads(Path(str(file)).read_text())
    known = {canonicalize_name(name): faults for name, faults in listed.items() if not name.startswith("$")}
    return [
        f"{part['name']} {part['version']}: {fault['id']} {fault['cve'] or ''}"
        for part in parts
        for fault in known.get(canonicalize_name(part["name"]), [])
        for specs in fault["specs"]
        if SpecifierSet(specs).contains(part["version"], prereleases=True)
    ]


def main(python: str, requirements: Path, directory: Path) -> None:
    made = bill(python, required(requirements))
    parts = sorted(made["components"], key=lambda part: canonicalize_name(part["name"]))
    lines = [f"{part['name']} {part['version']}: {licence(part) or 'NONE'}" for part in parts]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sbom.json").write_text(json.dumps(made, indent=1) + "\n")
    (directory / "licences.txt").write_text("\n".join(lines) + "\n")
    without = [line for line in lines if line.endswith(": NONE")]
    faults = vulnerable(parts)
    sys.stdout.write(f"{len(parts)} packages: {directory}/sbom.json, {directory}/licences.txt\n")
    sys.stdout.write(
        f"known vulnerabilities, as of safety-db {metadata.version('safety-db')}: {len(faults)}\n"
    )
    if without or faults:
        sys.exit("\n".join([*(f"no licence: {line}" for line in without), *faults]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
