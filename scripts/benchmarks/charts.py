"""Charts as plain SVG, which every page shows and every reader of a diff can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
LABELS = 190  # room for the names at the left
VALUES = 130  # and for the figures at the right
ROW = 30
TOP = 58
OURS_COLOUR, OTHER_COLOUR = "#2563eb", "#94a3b8"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Bar:
    """One bar; `ours` gives it the colour that is looked for."""

    label: str
    value: float
    shown: str
    ours: bool = False


def bars(title: str, subtitle: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars in the order given, from zero on."""
    longest = max(row.value for row in rows) or 1
    scale = (WIDTH - LABELS - VALUES) / longest
    parts = []
    for place, row in enumerate(rows):
        y, length = TOP + place * ROW, max(1.0, row.value * scale)
        weight = " font-weight='600'" if row.ours else ""
        colour = OURS_COLOUR if row.ours else OTHER_COLOUR
        parts += [
            _text(LABELS - 10, y + 15, row.label, anchor="end", more=weight),
            f"<rect x='{LABELS}' y='{y}' width='{length:.1f}' height='{ROW - 10}' rx='3' fill='{colour}'/>",
            _text(LABELS + length + 8, y + 15, row.shown, more=weight),
        ]
    return _framed(title, subtitle, TOP + len(rows) * ROW + 8, parts)


def lines(title: str, subtitle: str, series: Mapping[str, Sequence[float]], height: int = 240) -> str:
    """A line per series over equal steps, from zero on; the first one is ours."""
    top = max(max(values) for values in series.values()) or 1
    bottom, right = TOP + height, WIDTH - 150
    parts = [mark for part in (0.0, 0.5, 1.0) for mark in _rule(f"{top * part:,.0f}", bottom - height * part, right)]
    for place, (label, values) in enumerate(series.items()):
        colour = OTHER_COLOUR if place else OURS_COLOUR
        step = (right - 80) / max(1, len(values) - 1)
        points = [(70 + at * step, bottom - height * value / top) for at, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='3'/>")
        parts.append(
            _text(points[-1][0] + 8, points[-1][1] + 5, label, more=f" font-weight='600' style='fill:{colour}'")
        )
    return _framed(title, subtitle, bottom + 16, parts)


def _rule(label: str, y: float, right: float) -> tuple[str, str]:
    line = f"<line x1='70' x2='{right - 10}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e2e8f0'/>"
    return line, _text(62, y + 4, label, anchor="end", size=12)


def _framed(title: str, subtitle: str, height: float, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' role='img'>"
    paper = f"<rect width='{WIDTH}' height='{height:.0f}' rx='8' fill='#ffffff'/>"
    named = f"<title>{escape(title)}</title>"
    said = (_text(16, 24, title, size=16, more=" font-weight='600'"), _text(16, 43, subtitle, size=12))
    return "\n".join([head, named, paper, *said, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, more: str = "") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}'"
    return f"<text {place} {FONT} fill='#0f172a'{more}>{escape(text)}</text>"
