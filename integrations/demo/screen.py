"""The demo's screen, drawn from a scene; everything fits 80 columns and 24 lines, and more room shows more."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...runtime.task import Task, TaskState
from ..words import plural, span, state
from .app import PAGES
from .scene import Scene, Server

_CHROME = 11  # lines of titles, borders and counts
_LABEL = 10  # columns before what a line of the footer says
_REPORTS = 3  # reports shown at most
_RARE = ("cancelled", "stopped")  # states that are shown only when a task is in them


@dataclass(frozen=True, slots=True)
class Stage:
    """What stays the same while the demo runs."""

    url: str
    environ: str  # what a second terminal needs in front of its commands


def draw(scene: Scene, stage: Stage, *, answered: int, elapsed: float, height: int, width: int) -> RenderableType:
    """The whole screen."""
    reports = scene.reports[: _REPORTS if height >= 24 else 1]
    footer = _footer(scene, stage, width)
    taken = _CHROME + len(footer) + max(len(reports), 1) + max(len(scene.servers), 1)
    return Group(
        _title(scene, stage, elapsed, width),
        Text(headline(scene, answered), style="italic", no_wrap=True, overflow="ellipsis"),
        _panel("Servers", _servers(scene)),
        _panel("Tasks", _counts(scene)),
        _panel("Reports being built", _bars(reports)),
        _panel("Just ended", _ended(scene, max(height - taken, 1))),
        *footer,
    )


def headline(scene: Scene, answered: int) -> str:
    """What is going on, in one sentence."""
    if scene.servers and all(server.state == "draining" for server in scene.servers):
        return "Stopping: what runs is finished, or handed back for next time."
    counts = scene.counts
    parts = [f"{plural(answered, 'request')} answered", f"{plural(counts['doing'], 'task')} running"]
    waiting = counts["enqueued"] + counts["waiting"] - len(scene.retrying)
    if waiting > 0:
        parts.append(f"{waiting:,} in line")
    if scene.retrying:
        soonest = (scene.retrying[0].run_at or scene.at) - scene.at
        wait = f"in {span(max(soonest.total_seconds(), 0))}"
        parts.append(f"{len(scene.retrying)} tried again {wait}")
    return f"{', '.join(parts)}."


def _title(scene: Scene, stage: Stage, elapsed: float, width: int) -> Text:
    minutes, seconds = divmod(int(elapsed), 60)
    left = Text.assemble(("Queued Tasks", "bold cyan"), "  a FastAPI app on ", (stage.url, "underline"))
    right = f"PostgreSQL {scene.seen.version}  {minutes}:{seconds:02}"
    left.append(" " * max(width - left.cell_len - len(right), 2) + right, style="dim")
    return left


def _servers(scene: Scene) -> RenderableType:
    if not scene.servers:
        return Text("The server is starting: its workers import the app ...", style="dim")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for ratio in (None, None, 1, None, None):
        grid.add_column(ratio=ratio, no_wrap=True)
    for server in scene.servers:
        grid.add_row(*_server(server))
    return grid


def _server(server: Server) -> tuple[RenderableType, ...]:
    busy = ProgressBar(total=max(server.slots, 1), completed=server.busy, complete_style="cyan", finished_style="red")
    return (
        Text(server.name, style="bold"),
        state(server.state),
        busy,
        Text(f"{server.busy} of {server.slots} slots busy"),
        Text(plural(server.workers, "worker"), style="dim"),
    )


def _counts(scene: Scene) -> Text:
    shown = {name: count for name, count in scene.counts.items() if count or name not in _RARE}
    line = Text("   ").join(Text.assemble((f"{count:,} ", "bold"), state(name)) for name, count in shown.items())
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _bars(reports: tuple[Task, ...]) -> RenderableType:
    if not reports:
        return Text("None at the moment.", style="dim")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for ratio in (None, 1, None):
        grid.add_column(ratio=ratio, no_wrap=True)
    for report in reports:
        page = int(report.context.get("page", 0))
        bar = ProgressBar(total=PAGES, completed=page, complete_style="magenta", finished_style="green")
        attempt = f", attempt {report.attempt}" if report.attempt > 1 else ""
        grid.add_row(Text(str(report.args[0])), bar, Text(f"page {page:2} of {PAGES}{attempt}"))
    return grid


def _ended(scene: Scene, room: int) -> RenderableType:
    if not scene.ended:
        return Text("Nothing yet.", style="dim")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for ratio in (None, None, None, 1):
        grid.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    for task in scene.ended[:room]:
        took = task.execution_time.total_seconds() if task.execution_time is not None else 0
        grid.add_row(
            state(task.state), Text(task.name), Text(f"{took:.2f} s", style="dim", justify="right"), said(task)
        )
    return grid


def said(task: Task) -> Text:
    """What a task ended with, on one line."""
    if task.state is TaskState.FAILED:
        return Text(f"{task.exception_name}: {task.exception_message}", style="red")
    line = Text(task.result if isinstance(task.result, str) else json.dumps(task.result))
    if task.attempt > 1:
        line.append(f"  (attempt {task.attempt})", style="yellow")
    return line


def _footer(scene: Scene, stage: Stage, width: int) -> list[Text]:
    workers = [pid for server in scene.servers for pid in server.pids]
    lines = [("Join in", f"curl -X POST {stage.url}/reports")]
    if workers:
        lines.append(("Break it", f"kill -9 {workers[0]}   (a worker: what it ran is run again at once)"))
    look = f"{stage.environ} queued-tasks tasks list"
    if len(look) <= width - _LABEL:  # half of a command is of no use
        lines.append(("Look", look))
    return [
        *(Text.assemble((f"{name:{_LABEL}}", "bold"), text, no_wrap=True, overflow="ellipsis") for name, text in lines),
        Text("Ctrl-C ends the demo.", style="dim"),
    ]


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim", padding=(0, 1))
