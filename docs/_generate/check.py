"""What must be true of the built site besides zensical's own checks of links and anchors."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class _Page(HTMLParser):
    """Collects what a page loads, where it links to, and its anchors."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if loaded := found.get(_LOADS.get(tag, "")):
            self.loads.append(loaded)
        if tag == "a" and (link := found.get("href")):
            self.links.append(link)
        if anchor := found.get("id"):
            self.anchors.add(anchor)


def faults(site: Path) -> Iterator[str]:
    """What is wrong: loads from elsewhere, broken links and anchors, malformed links to elsewhere."""
    pages = {file: _Page(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}
    for file, page in pages.items():
        name = file.relative_to(site)
        for url in page.loads:
            if urlsplit(url).scheme not in {"", "data"} or url.startswith("//"):
                yield f"{name} loads {url} from elsewhere: put a copy into docs/assets/vendor/"
            elif not urlsplit(url).scheme and not _target(file, url).is_file():
                yield f"{name} loads {url}, which is not there"
        for url in page.links:
            parts = urlsplit(url)
            if parts.scheme:
                if not (parts.netloc if parts.scheme in {"http", "https"} else parts.scheme == "mailto"):
                    yield f"{name} has the malformed link {url}"
                continue
            target = _target(file, url)
            if not target.is_file():
                yield f"{name} links to {url}, which is not there"
            elif parts.fragment and unquote(parts.fragment) not in pages.get(target, page).anchors:
                yield f"{name} links to {url}, which has no such anchor"


def not_in_navigation(docs: Path, config: Path) -> Iterator[str]:
    """Pages that nobody finds."""
    named = set(_pages(tomllib.loads(config.read_text())["project"]["nav"]))
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    for page in sorted(there ^ named):
        yield f"{page} is {'not in nav of' if page in there else 'missing, but in nav of'} {config.name}"


def _pages(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _pages(part)


def _target(page: Path, url: str) -> Path:
    path = unquote(urlsplit(url).path)
    target = (page.parent / path).resolve() if path else page
    return target / "index.html" if target.is_dir() else target
