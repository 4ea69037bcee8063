"""The face of `queued-tasks servers`: its options. What a command does is imported when it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

servers = typer.Typer(help="The servers: state, workers, load, last beat. Drain, resume, stop and scale them.")

Name = Annotated[str, typer.Argument(help="The name of a server, or of several, or an id.")]


@servers.callback(invoke_without_command=True)
def show_servers(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until q or Ctrl-C.")] = False,
) -> None:
    if as_json and watch:
        raise typer.BadParameter("--json prints one document, which --watch never ends")
    if context.invoked_subcommand is None:
        from .membership import show_servers

        _run(show_servers(as_json=as_json, watch=watch))


@servers.command("drain")
def drain_servers(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Return once nothing runs there any more.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Let a server finish what runs and take nothing new. It stays up, until it is resumed or stopped."""
    from .control import drain

    _run(drain(name, wait=wait, yes=yes))


@servers.command("resume")
def resume_servers(name: Name) -> None:
    """Let a drained server take tasks again."""
    from .control import resume

    _run(resume(name))


@servers.command("stop")
def stop_servers(name: Name) -> None:
    """Let a server leave as after SIGTERM: what runs may finish within the grace, the rest is handed back."""
    from .control import stop

    _run(stop(name))


@servers.command("scale")
def scale_servers(
    name: Name,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Worker processes, as for `start`.")],
) -> None:
    """Give a server more workers, or fewer: those that are too many leave once what they run has ended."""
    from .control import scale

    _run(scale(name, workers))


def _run(deed: Coroutine[Any, Any, int | None]) -> None:
    raise typer.Exit(asyncio.run(deed) or 0)
