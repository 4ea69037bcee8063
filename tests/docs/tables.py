"""The tables of a page, as rows of cells."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the one table of `docs/<page>` whose first column is called `first`."""
    lines = iter((DOCS / page).read_text().splitlines())
    heads = [line for line in lines if line.startswith(f"| {first} |")]
    assert len(heads) == 1, f"{page} has {len(heads)} tables that begin with {first!r}"
    lines = iter((DOCS / page).read_text().splitlines())
    for line in lines:
        if line == heads[0]:
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def code(cell: str) -> str:
    """What stands in backquotes in a cell, the first of it."""
    found = re.search(r"`([^`]*)`", cell)
    assert found, f"no `code` in {cell!r}"
    return found[1]
