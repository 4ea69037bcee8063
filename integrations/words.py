"""Values in words, as people read them at a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

STYLES = {
    "enqueued": "blue",
    "waiting": "dim",
    "doing": "cyan",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "stopped": "magenta",
    "running": "green",
    "starting": "cyan",
    "draining": "yellow",
    "drained": "yellow",
    "blocked": "red",
    "lost": "red",
}


def state(name: str) -> Text:
    """The name of a state in its colour."""
    return Text(name, style=STYLES.get(name, ""))


def visible(text: str) -> str:
    """`text` without what a terminal would obey: stored text may come from anybody."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def ago(instant: datetime) -> str:
    """How far `instant` is from now, in words: "3 s ago", "in 5 min"."""
    seconds = (datetime.now(UTC) - instant).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A duration to about two digits: "0.25 s", "12 s", "5 min", "3 h", "2 d"."""
    if seconds < 1:
        return f"{seconds:.2g} s" if seconds >= 0.001 else "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    unit, size = next(unit for unit in _UNITS if seconds >= unit[1])
    return f"{seconds / size:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
