"""The site's Markdown: the pages of ``docs/``, those made from the code, and the papers of the repository."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from . import PAGES, ROOT

DOCS = ROOT / "docs"
PAPERS = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/licence.md": "LICENSE",
}
"""Files at the top of the repository that are pages of the site."""

_NOT_SITE = shutil.ignore_patterns("_generate", "overrides", "__pycache__", "vendor")
_LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")
_FENCE = re.compile(r"^( *```\w+) +[^\n{]+$", re.MULTILINE)


def write(to: Path) -> None:
    """Write all sources into an empty directory."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(DOCS, to, ignore=_NOT_SITE)
    vendored = [file for file in (DOCS / "assets/vendor").iterdir() if file.name != "README.md"]
    (to / "assets/vendor").mkdir()
    for file in vendored:
        shutil.copy(file, to / "assets/vendor")
    for place, page in PAGES.items():
        _write(to / place, page())
    for place, name in PAPERS.items():
        _write(to / place, _paper(name))
    for file in sorted(to.rglob("*.md")):
        file.write_text(_for_the_site(file.read_text(), file.relative_to(to), to))


def _write(page: Path, text: str) -> None:
    page.parent.mkdir(exist_ok=True)
    page.write_text(text)


def _paper(name: str) -> str:
    """A paper as a page. Its links begin at the top of the repository."""
    text = (ROOT / name).read_text()
    if not name.endswith(".md"):
        return f"# Licence\n\n```text\n{text.strip()}\n```\n"
    pages = {paper: f"../{place}" for place, paper in PAPERS.items()}
    return _LINK.sub(
        lambda link: link[1] + pages.get(link[2], link[2].replace("docs/", "../", 1)) + link[3], text
    )


def _for_the_site(text: str, place: Path, to: Path) -> str:
    """Drop the words behind a fence that only tests read, and bring linked files from outside ``docs/``."""

    def brought(link: re.Match[str]) -> str:
        target = (DOCS / place.parent / link[2]).resolve()
        if urlsplit(link[2]).scheme or target.is_relative_to(DOCS) or not target.is_file():
            return link[0]
        copy = Path("repository", target.relative_to(ROOT))
        (to / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, to / copy)
        return f"{link[1]}{'../' * (len(place.parts) - 1)}{copy}{link[3]}"

    return _LINK.sub(brought, _FENCE.sub(r"\1", text))
