"""The command `why`: what keeps a task from running, and what to do about it."""

from __future__ import annotations

from uuid import UUID

from rich.text import Text

from ...runtime.errors import TaskNotFound
from ...runtime.store.inquiry import inquire
from ..words import state, visible
from .desk import desk
from .output import document, say
from .reasons import reason


async def show_why(id: UUID, *, as_json: bool) -> None:
    """Print why a task runs or doesn't.

    Raises:
        TaskNotFound: there is no such task; the text says whether there was.
    """
    async with desk() as at:
        seen = await inquire(at.link, id, lease_ttl=at.settings.lease_ttl)
        if seen is None:
            raise TaskNotFound(_absent(id, removed=await at.reads.was_written(id)))
    found = reason(seen)
    task = seen.task
    if as_json:
        document(
            {
                "id": task.id,
                "name": task.name,
                "state": task.state,
                "reason": found.word,
                "sentence": found.sentence,
                "cure": found.cure or None,
                "facts": found.facts,
            }
        )
        return
    say(Text.assemble((visible(task.name), "bold"), " is ", state(task.state), f". {visible(found.sentence)}"))
    if found.cure:
        say(Text(visible(found.cure), style="cyan"))


def _absent(id: UUID, *, removed: bool) -> str:
    if removed:
        return f"Task {id} is gone: it was removed within the hour, after its end or by `queued-tasks clear`."
    return (
        f"There is no task {id}: it was never written, or was removed when it had ended. A unique task whose key was "
        "taken is not written: `ref.id` is then that of the other one."
    )
