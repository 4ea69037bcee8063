"""Whole graphs of tasks, as sugar over `parent`: chains, groups, and groups with a task that follows on all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from .errors import InvalidTask
from .refs import TaskRef
from .task import TaskSpec

# adds a task, from its function, arguments, keyword arguments and options
Add: TypeAlias = Callable[
    [Callable[..., object], Sequence[object], Mapping[str, object], Mapping[str, object]], TaskRef
]


class TaskRefs(list[TaskRef]):
    """The references of a graph, in the order in which its tasks were given. Awaiting it writes all of them."""

    def __await__(self) -> Generator[Any, None, TaskRefs]:
        return self._written().__await__()

    async def _written(self) -> TaskRefs:
        for ref in self:
            await ref
        return self


def chain(add: Add, specs: Iterable[TaskSpec]) -> TaskRefs:
    """See `QueuedTasks.chain`."""
    refs = TaskRefs()
    for spec in _checked("chain", specs):
        refs.append(_added(add, spec, refs[-1:]))
    return refs


def group(add: Add, specs: Iterable[TaskSpec]) -> TaskRefs:
    """See `QueuedTasks.group`."""
    return TaskRefs(_added(add, spec, []) for spec in _checked("group", specs))


def chord(add: Add, specs: Iterable[TaskSpec], callback: TaskSpec) -> TaskRefs:
    """See `QueuedTasks.chord`."""
    *header, last = _checked("chord", [*specs, callback])
    refs = group(add, header)
    refs.append(_added(add, last, refs[:]))
    return refs


def checked(verb: str, spec: object) -> TaskSpec:
    """`spec` itself. Raises InvalidTask when it is something else."""
    if isinstance(spec, TaskSpec):
        return spec
    raise InvalidTask(f"{verb} got {spec!r:.60}: give TaskSpec(func, args, kwargs, **options)")


def _checked(verb: str, specs: Iterable[TaskSpec]) -> list[TaskSpec]:
    return [checked(verb, spec) for spec in specs]


def _added(add: Add, spec: TaskSpec, before: list[TaskRef]) -> TaskRef:
    """Add the task of `spec` behind those of `before` and behind the parents of its own."""
    given = spec.options.get("parent")
    own = [] if given is None else [given] if not isinstance(given, list | tuple) else [*given]
    options = {**spec.options, "parent": [*before, *own]} if before else spec.options
    return add(spec.func, spec.args, spec.kwargs, options)
