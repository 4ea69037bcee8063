"""Writes docs/performance.md and its charts from the results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .charts import Bar, bars, lines
from .environments import OURS, PEERS, ROOT
from .suite import Results
from .targets import Line, table
from .targets import lines as targets

TEMPLATE = Path(__file__).with_name("performance.md")
PAGE = ROOT / "docs" / "performance.md"
CHARTS = ROOT / "docs" / "performance"

# workload, figure, unit, whether less is better
COMPARED = {
    "drain": ("rate", "tasks/s", False, "Drain, async no-ops"),
    "sync": ("rate", "tasks/s", False, "Drain, sync no-ops"),
    "bulk": ("rate", "tasks/s", False, "Bulk enqueue"),
    "enqueue": ("rate", "tasks/s", False, "Enqueue one by one, 16 clients"),
    "start": ("p50", "ms", True, "Enqueue to start when idle, median"),
    "paced": ("p99", "ms", True, "Enqueue to start at 1,000 tasks/s, 99th percentile"),
}

ROUTES = {"queued": "`tasks.add_task`", "plain": "one INSERT", "empty": "nothing: the limit"}


def publish(written: dict[str, Any], results: Results) -> None:
    """Write the page and its charts."""
    CHARTS.mkdir(exist_ok=True)
    for name, chart in _charts(results):
        (CHARTS / f"{name}.svg").write_text(chart)
    found = targets(results)
    fields = {
        "warning": _warning(written),
        "machine": _machine(written["machine"]),
        "targets": table(found),
        "missed": _missed(found),
        "lost": _lost(results),
        "figures": "\n\n".join(_section(results, workload) for workload in COMPARED if results.cases(workload)),
        "web": _rows(results, "fastapi", ROUTES, "rate", "requests/s"),
        "beside": _rows(results, "beside", {name: name for name in results.cases("beside")}, "rate", "tasks/s"),
        "cost": _cost(results, written["machine"]["cores"]),
        "limits": _limits(results),
        "peers": _peers(written["versions"]),
        "failures": "\n".join(f"- {_short(failure)}" for failure in results.failures) or "Nothing.",
        "command": written["command"].strip(),
    }
    PAGE.write_text(re.sub(r"\{\{(\w+)\}\}", lambda found: fields[found[1]], TEMPLATE.read_text()))


def _charts(results: Results) -> Iterator[tuple[str, str]]:
    for workload, (_, unit, less, title) in COMPARED.items():
        ranked = _ranked(results, workload)
        if ranked:
            rows = [Bar(_title(name), value, f"{_number(value)} {unit}", name == OURS) for name, value in ranked]
            yield workload, bars(title, f"{unit}, {'less' if less else 'more'} is better", rows)
    series = {_title(name): results.tenths("pinned", name) for name in results.cases("pinned")}
    if series and all(series.values()):
        yield (
            "pinned",
            lines(
                "A transaction is left open",
                "tasks/s in each tenth of a drain; of 300,000 tasks, PgQueuer's of 100,000",
                series,
            ),
        )
    beside = [(name, results.median("beside", name)) for name in results.cases("beside")]
    rows = [Bar(name, value, f"{value:,.0f} tasks/s", name == "alone") for name, value in beside if value]
    if rows:
        yield "beside", bars("A drain amid a million other tasks", "tasks/s; what the million are", rows)


def _ranked(results: Results, workload: str) -> list[tuple[str, float]]:
    """The queues with their figures, the best first."""
    key, _, less, _ = COMPARED[workload]
    found = [(name, value) for name in results.cases(workload) if (value := results.median(workload, name, key))]
    return sorted(found, key=lambda entry: entry[1], reverse=not less)


def _section(results: Results, workload: str) -> str:
    key, unit, _, title = COMPARED[workload]
    ranked = _ranked(results, workload)
    rows = [f"| {_title(name)} | {_number(value)} | {_range(results, workload, name, key)} |" for name, value in ranked]
    head = [f"### {title}", "", f"![{title}](performance/{workload}.svg)", "", f"| | {unit}, median | rounds |"]
    return "\n".join([*head, "|---|--:|---|", *rows])


def _range(results: Results, workload: str, name: str, key: str) -> str:
    values = [value for value in results.all(workload, name, key) if isinstance(value, int | float)]
    return ", ".join(_number(value) for value in values)


def _rows(results: Results, workload: str, names: dict[str, str], key: str, unit: str) -> str:
    rows = [
        f"| {title} | {_number(value)} | {_range(results, workload, name, key)} |"
        for name, title in names.items()
        if (value := results.median(workload, name, key))
    ]
    return "\n".join([f"| | {unit}, median | rounds |", "|---|--:|---|", *rows])


def _cost(results: Results, cores: int) -> str:
    """Where the CPU and the WAL of a drain go, a row a queue, and what the cores could do at that price."""
    rows = []
    for name in results.cases("drain"):
        cpu = [results.median("drain", name, f"cpu_{part}_us") or 0 for part in ("database", "started", "children")]
        wal = [results.median("drain", name, key) or 0 for key in ("wal_enqueue", "wal_run")]
        most = cores * 1e6 / sum(cpu) if any(cpu) else 0
        cells = [f"{value:,.1f}" for value in cpu] + [f"{value:,.0f}" for value in (most, *wal)]
        rows.append(f"| {_title(name)} | " + " | ".join(cells) + " |")
    head = (
        "| | database, µs | supervisor (or its workers), µs | workers, µs "
        f"| {cores} cores at most, tasks/s | WAL of the enqueue, bytes | of the rest |"
    )
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|--:|", *rows])


def _limits(results: Results) -> str:
    shown = {
        "fdatasync_us": "an fdatasync of 8 KiB, µs",
        "enqueue_1": "enqueues/s, 1 connection, a commit each",
        "enqueue_16": "enqueues/s, 16 connections, a commit each",
        "enqueue_bulk": "enqueues/s, 2 connections, 1,000 a commit",
        "settle_64": "results/s, 2 connections, 64 a commit",
        "settle_1000": "results/s, 2 connections, 1,000 a commit",
    }
    found = {title: f"{results.median('limits', 'pgbench', key) or 0:,.0f}" for key, title in shown.items()}
    found["insert to start when idle, three processes, ms"] = (
        f"{results.median('limits', 'pgbench', 'start_ms') or 0:.2f}"
    )
    return "\n".join(["| | |", "|---|--:|", *(f"| {title} | {value} |" for title, value in found.items())])


def _missed(found: list[Line]) -> str:
    missed = [f"- {line.what}: {line.reached}; to reach: {line.target}." for line in found if line.ok is False]
    return "\n".join(["Missed:", "", *missed]) if missed else "None of what was measured was missed."


def _lost(results: Results) -> str:
    """The peers that beat us, workload by workload."""
    better = []
    for workload, (_, unit, _, title) in COMPARED.items():
        ranked = _ranked(results, workload)
        names = [name for name, _ in ranked]
        if OURS in names:
            ours = dict(ranked)[OURS]
            better += [
                f"- {title}: {_title(name)} with {_number(value)} {unit}, against our {_number(ours)}."
                for name, value in ranked[: names.index(OURS)]
            ]
    return "\n".join(better) or "- Nowhere in this run."


def _machine(known: dict[str, Any]) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in known["settings"].items())
    return (
        f"{known['cores']} cores ({known['processor']}), {known['memory_gb']} GB, {known['system']}; "
        f"Python {known['python']}; "
        f"PostgreSQL {known['postgresql']} with {settings}, the rest at its defaults. Taken on {known['date']}."
    )


def _peers(versions: dict[str, dict[str, str]]) -> str:
    keys = ("distribution", "version", "python", "configuration", "bulk")
    rows = ["| " + " | ".join([_title(name), *(each[key] for key in keys)]) + " |" for name, each in versions.items()]
    return "\n".join(
        ["| | package | version | runs on | configuration | bulk enqueue |", "|---|---|---|---|---|---|", *rows]
    )


def _warning(written: dict[str, Any]) -> str:
    return (
        "**This was a run of `--quick`: it shows that everything works, its figures mean nothing.**\n\n"
        if written["quick"]
        else ""
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def _title(name: str) -> str:
    return PEERS[name].title


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
