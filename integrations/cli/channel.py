"""The face of `queued-tasks channels`: its options. What a command does is in channels.py, imported when called."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ...runtime.errors import ConfigurationError

channels = typer.Typer(help="Look at channels, and set their limits, pause or resume one.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="The name of a channel.")]


@channels.callback()
def list_channels(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """The channels: their limits, what runs and waits in them. Commands change one for all servers, at once."""
    if context.invoked_subcommand is None:
        from .channels import list_channels

        asyncio.run(list_channels(as_json=as_json))


@channels.command("set")
def set_channel(
    name: Name,
    limits: Annotated[
        str,
        typer.Argument(
            help="CAP[/server][/key:N][@COUNT/PERIOD]: 10, 4/server, 20/key:2, 10@100/min, @5/s; 0 pauses; none lifts."
        ),
    ],
) -> None:
    """Set the limits of a channel. What runs goes on, and counts."""
    from ...runtime.gates import parse_limits
    from .channels import set_channel

    try:
        wanted = parse_limits(name, limits)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None
    asyncio.run(set_channel(wanted))


@channels.command("pause")
def pause_channel(name: Name) -> None:
    """Let nothing of a channel start, on any server. What runs goes on."""
    from .channels import pause_channel

    asyncio.run(pause_channel(name))


@channels.command("resume")
def resume_channel(name: Name) -> None:
    """Let the tasks of a paused channel start again."""
    from .channels import resume_channel

    asyncio.run(resume_channel(name))
