"""Lists that are answered page by page: the fields of their messages, and how a caller reads all pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Protocol, TypeVar

from pydantic import Field

from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.versions import Since

Limit = Annotated[int, Field(ge=1, le=100_000)]
After = Annotated[
    Annotated[str, Field(max_length=2000)] | None,
    Since("1.1"),
    Field(description="`after` of the last answer to the same request: the next page. Null: the first page."),
]
Next = Annotated[
    str | None, Field(description="Give it to the next call to get the next page. Null: there is none.")
]
OlderThan = Annotated[Annotated[int, Field(ge=0, lt=2**31)] | None, Since("1.1")]


class Page(Protocol):
    """An answer with one page of a list."""

    @property
    def after(self) -> str | None: ...


W = TypeVar("W", bound=Message)
A = TypeVar("A", bound=Page)


def pages(ask: Callable[[W], A], wanted: W) -> Iterator[A]:
    """Read a list page by page, each with up to ``limit`` rows of ``wanted``.

    A row that is in the list all the time is answered once, whatever is inserted or deleted between two
    calls. A claim that is served from its queue meanwhile gets younger by that, and may be answered again.
    Raises what the call raises.

    Example::

        for page in pages(scheduler.devices, DeviceFilter(status="available", limit=1000)):
            for device in page.devices:
                print(device.host, device.address)
    """
    while True:
        page = ask(wanted)
        yield page
        if page.after is None:
            return
        wanted = wanted.model_copy(update={"after": page.after})
