"""The operators' page. Its files are in the folder ``page_files``. It talks to this API alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter()

_FOLDER = Path(__file__).with_name("page_files")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _File(NamedTuple):
    content: bytes
    headers: dict[str, str]


def _read(path: Path) -> _File:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, {**_HEADERS, "ETag": tag, "Content-Type": _TYPES[path.suffix]})


_FILES = {path.name: _read(path) for path in _FOLDER.iterdir() if path.suffix in _TYPES}

IfNoneMatch = Annotated[str | None, Header()]


@router.get("/", include_in_schema=False)
async def page(if_none_match: IfNoneMatch = None) -> Response:
    """The page."""
    return _answer("index.html", if_none_match)


@router.get("/page/{name}", include_in_schema=False)
async def page_file(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """A file that the page uses."""
    return _answer(name, if_none_match)


def _answer(name: str, if_none_match: str | None) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise HTTPException(404)
    if if_none_match == file.headers["ETag"]:
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
