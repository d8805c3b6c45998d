"""Build the site: ``python -m docs._generate``. Exits with 1 if anything is wrong with it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import ROOT, check, sources

BUILD = ROOT / "build"


def main() -> None:
    site = BUILD / "site"
    shutil.rmtree(site, ignore_errors=True)
    sources.write(BUILD / "docs")
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run(
        [zensical, "build", "--clean", "--strict"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        said = built.stdout + built.stderr.partition("Traceback")[0]
        sys.exit(re.sub(r"\x1b\[[\d;]*m", "", said))
    if faults := [*check.faults(site), *check.not_in_navigation(BUILD / "docs", ROOT / "zensical.toml")]:
        sys.exit("\n".join(faults))
    pages = len(list(site.rglob("*.html")))
    print(f"{pages} pages: open {(site / 'index.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
