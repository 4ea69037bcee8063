"""What commands print: one JSON document, or tables and sentences that fit the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..words import visible

PIPE_WIDTH = 200  # columns where no terminal says how wide it is

_LEAST = 12  # characters that a column keeps that gives way
_APART = 2  # characters between two columns


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: hidden where there is less room than `room` columns; `gives` way when it is tight.

    With `spare` it is hidden when the lines don't fit, the one with the highest number first.
    """

    title: str
    room: int = 0
    gives: bool = False
    right: bool = False
    spare: int = 0


def say(text: str | Text = "") -> None:
    """Print a sentence to stdout, unbroken: the terminal wraps it."""
    console().print(text, soft_wrap=True)


def complain(text: str) -> None:
    """Print what went wrong to stderr."""
    print(f"queued-tasks: {visible(text)}", file=sys.stderr, flush=True)


def console() -> Console:
    """A console that takes text as it is: no markup, no guessed colours."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def document(value: object) -> None:
    """Print `value` as the one JSON document of a command: durations in seconds, instants in ISO 8601."""
    print(json.dumps(value, indent=2, default=_encode))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table whose lines don't break at the width of the terminal."""
    out = console()
    out.print(grid(columns, rows, out.width))


def grid(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], width: int) -> Table:
    """A table of the columns for which there is room in `width`; its lines don't break."""
    drawn = Table(box=None, pad_edge=False, padding=(0, _APART, 0, 0), header_style="bold")
    lines = [[_cell(value) for value in row] for row in rows]
    lengths = [max((line[place].cell_len for line in lines), default=0) for place in range(len(columns))]
    shown = _fitting(columns, lengths, width)
    for place in shown:
        column, longest = columns[place], lengths[place]
        drawn.add_column(
            Text(column.title, no_wrap=True),
            no_wrap=not column.gives,  # what may wrap is what rich makes narrower
            min_width=min(longest, _LEAST) if column.gives else None,
            justify="right" if column.right else "left",
        )
    for line in lines:
        drawn.add_row(*(line[place] for place in shown))
    return drawn


def _fitting(columns: Sequence[Column], lengths: Sequence[int], width: int) -> list[int]:
    """The places of the columns that are shown."""
    shown = [place for place, column in enumerate(columns) if width >= column.room]
    needs = [
        max(len(column.title), min(length, 2 * _LEAST) if column.gives else length) + _APART
        for column, length in zip(columns, lengths, strict=True)
    ]
    for place in sorted(shown, key=lambda place: -columns[place].spare):
        if columns[place].spare and sum(needs[other] for other in shown) - _APART > width:
            shown.remove(place)
    return shown


def facts(rows: Iterable[tuple[str, str | Text]]) -> None:
    """Print names and values, one a line, the values in line."""
    known = list(rows)
    width = max(len(name) for name, _ in known) + 2
    for name, value in known:
        line = Text(name.ljust(width), style="bold")
        shown = Text(visible(value)) if isinstance(value, str) else value
        line.append_text(Text("\n" + " " * width, style="not bold").join(shown.split("\n")))
        say(Text.assemble(line))


def _cell(value: str | Text) -> Text:
    cell = Text(visible(value)) if isinstance(value, str) else value.copy()
    cell.no_wrap = True
    cell.overflow = "ellipsis"
    return cell


def _encode(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__qualname__} has no place in a JSON document")
