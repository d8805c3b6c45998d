"""``python -m bench.report``: write the figures of the last run into docs/performance.md and scaling.md.

What stands between ``<!-- bench: NAME -->`` and ``<!-- end -->`` in a page is made here, and nothing else has
figures. ``--pictures`` draws the pictures too, for which matplotlib is needed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import replication_table, scaling, signing_table, tables
from bench.results_of import FOLDER, Results

DOCS = Path(__file__).parent.parent / "docs"
PAGES: dict[str, Mapping[str, Callable[[Results], str]]] = {
    "performance.md": {
        **tables.BLOCKS,
        "signing": signing_table.signing,
        "refused-messages": signing_table.refused_messages,
        "replication": replication_table.replication,
    },
    "scaling.md": {**scaling.BLOCKS, "facts": tables.facts},
}
PARTS = (
    *("rpc", "many", "http", "refusals", "placement", "in_process", "bus", "cluster", "nova", "growth"),
    *("soak", "replication", "inventory", "events", "observability", "signing", "postgresql", "packing"),
    *("matching", "refused_messages"),
)
_BLOCK = re.compile(r"(<!-- bench: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, blocks: Mapping[str, Callable[[Results], str]], results: Results) -> str:
    """The page with its blocks made anew. Raises :class:`KeyError` for a block that nobody makes."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found[2]](results)}\n\n{found[3]}", page)


def main() -> None:
    """Write the pages, and with ``--pictures`` the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="the folder to read")
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    results = Results.read(list(PARTS), options.results)
    for name, blocks in PAGES.items():
        page = DOCS / name
        page.write_text(filled(page.read_text(), blocks, results))
    if options.pictures:
        from bench import pictures  # noqa: PLC0415 - it needs matplotlib, which the pages do not

        pictures.draw(results, options.results)


if __name__ == "__main__":
    main()
