"""From a function, its arguments and the options given to the row that is written; every refusal names its option."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from .codec import BatchEncoder, Encoder, batch_encoder_of, encode_json, encoder_of
from .entry import Entry
from .errors import InvalidTask
from .functions import AllowList, is_local, reference, resolve
from .options import as_flag, as_text, as_timeout, as_whole, executor_of, options_of
from .refs import Ref
from .settings import Settings
from .task import DEFAULT_CHANNEL, NewTask, Task, TaskState

_NO_ID = UUID(int=0)
_LONGEST_NAME = 200  # characters
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # a moment later asyncpg writes infinity, and reads no time zone
_ON_PARENT_FAILURE = ("cascade", "run", "cancel")


def new_task(
    func: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    options: Mapping[str, object],
    *,
    settings: Settings,
    id: UUID,
    signs: bool = False,
) -> NewTask:
    """The row of a task. What `options`, those of add_task, leave open is up to @task, then `settings`.

    A local function goes along by value where the task gets signed (`signs`).

    Raises:
        InvalidTask: the function can't be a task, can't be called like this, or an option is wrong.
        SerializationError: an argument can't be kept.
    """
    return form_of(func, settings=settings, signs=signs).task(id, args, kwargs, options)


@dataclass(frozen=True, slots=True)
class Form:
    """What all tasks of a function have in common unless their options say otherwise."""

    _func: Callable[..., object]
    _plain: NewTask
    _unique: bool | str | None
    _encode: Encoder
    _encode_batch: BatchEncoder

    def task(
        self, id: UUID, args: Sequence[object], kwargs: Mapping[str, object], options: Mapping[str, object]
    ) -> NewTask:
        """The row of one of them. See `new_task`."""
        fields = _checked(options) if options else {}
        encoded, named = self._encode(args, kwargs)
        if not fields and not self._unique:
            return replace(self._plain, id=id, args=encoded, kwargs=named)
        unique = fields.pop("unique", self._unique)
        if unique:
            name = fields.get("name") or options_of(self._func).name or self._plain.function
            fields["unique_key"] = _key_of(self._func, name, encoded, named) if unique is True else unique
        return replace(self._plain, id=id, args=encoded, kwargs=named, **fields)

    def tasks(self, ids: Iterable[UUID], calls: Sequence[Sequence[object]]) -> list[NewTask]:
        """The rows of many of them, without keyword arguments and options."""
        if self._unique:
            return [self.task(id, args, {}, {}) for id, args in zip(ids, calls, strict=True)]
        texts = self._encode_batch(calls)
        return [replace(self._plain, id=id, args=text) for id, text in zip(ids, texts, strict=True)]


def form_of(func: Callable[..., object], *, settings: Settings, signs: bool = False) -> Form:
    """What is worked out once for many tasks of a function: see `new_task`.

    A local function goes along as it is now.

    Raises:
        InvalidTask: the function can't be a task.
    """
    local = signs and is_local(func)
    try:
        return (_form_of.__wrapped__ if local else _form_of)(func, settings.max_retries, settings.task_timeout, local)
    except TypeError:
        reference(func)  # it is unhashable, so no function: this says what it is
        raise


@lru_cache(maxsize=4096)
def _form_of(func: Callable[..., object], max_retries: int, timeout: timedelta, local: bool) -> Form:
    declared = options_of(func)
    task = NewTask(
        id=_NO_ID,
        function=_dumped(func) if local else reference(func),
        executor=executor_of(func),
        args="[]",
        name=declared.name or (func.__qualname__[:_LONGEST_NAME] if local else None),
        channel=declared.channel or DEFAULT_CHANNEL,
        priority=declared.priority or 0,
        max_retries=max_retries if declared.max_retries is None else declared.max_retries,
        timeout=(declared.timeout or timeout).total_seconds(),
        auto_remove=declared.auto_remove or False,
    )
    return Form(func, task, declared.unique, encoder_of(func), batch_encoder_of(func))


def arguments_of(
    func: Callable[..., object],
    kwargs: Mapping[str, object],
    task_kwargs: Mapping[str, object] | None,
    options: Mapping[str, object],
) -> Mapping[str, object]:
    """The keyword arguments of the function, told apart from the options.

    Raises:
        InvalidTask: an option given is also a parameter of the function, so it may have been meant as that.
    """
    if options:
        for name in ambiguous_names(func) if isinstance(func, Hashable) else ():
            if name in options and name not in (task_kwargs or ()):
                raise InvalidTask(
                    f"{name!r} is an option of the task and a parameter of the function: give the parameter as "
                    f"task_kwargs={{{name!r}: ...}}, or both, one each way."
                )
    if not task_kwargs:
        return kwargs
    if not isinstance(task_kwargs, Mapping):
        raise InvalidTask(f"task_kwargs is {task_kwargs!r:.60}: give a dict of keyword arguments")
    if twice := kwargs.keys() & task_kwargs.keys():
        raise InvalidTask(f"{min(twice)!r} is given twice: as a keyword and in task_kwargs")
    return {**kwargs, **task_kwargs}


def resolved(func: Callable[..., object] | str) -> Callable[..., object]:
    """The function itself, or the one that a path names: `app.tasks:send` or `app.tasks.send`; its module is imported.

    Raises:
        InvalidTask: the path names nothing, or no function.
    """
    if not isinstance(func, str):
        return func
    path = func if ":" in func else ":".join(func.rsplit(".", 1))
    return resolve(path, AllowList(prefixes=(path.partition(":")[0],)))


def as_added(task: NewTask, id: UUID) -> Task:
    """What a task was when it was added, as `id`, for one that is gone before anybody could look at it."""
    return Task(
        id=id,
        name=task.name or task.function.partition(":")[2],
        function=task.reference,
        state=TaskState.WAITING if task.parents else TaskState.ENQUEUED,
        args=json.loads(task.args),
        kwargs=json.loads(task.kwargs or "{}"),
        context=json.loads(task.context or "{}"),
        result=None,
        channel=task.channel,
        priority=task.priority,
        attempt=0,
        failures=0,
        max_retries=task.max_retries,
        timeout=None if task.timeout is None else timedelta(seconds=task.timeout),
        auto_remove=task.auto_remove,
        unique_key=task.unique_key,
        parents=list(task.parents),
        created_at=datetime.fromtimestamp((id.int >> 80) / 1000, UTC),
        run_at=task.run_at,
        started_at=None,
        ended_at=None,
        execution_time=None,
        server=None,
        exception_name=None,
        exception_message=None,
        exception_traceback=None,
    )


def family_of(parent: object) -> tuple[tuple[UUID, Entry], ...]:
    """Which of the parents given as `parent` may not be written yet, each with the id that it has until then."""
    given = parent if isinstance(parent, Sequence) else (parent,)
    return tuple((ref.id, ref.entry) for ref in given if isinstance(ref, Ref) and not _stands(ref))


def _stands(ref: Ref) -> bool:
    """Whether everybody sees that task by now; one that was added on a connection may not be committed."""
    return ref.created is not None and ref.entry.home.connection is None


@lru_cache(maxsize=4096)
def ambiguous_names(func: Callable[..., object]) -> tuple[str, ...]:
    """The options that are also parameters of `func`."""
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # no function: `reference` says so better
        return ()
    return tuple(name for name in (*_CHECKS, "connection") if name in parameters)


def _dumped(func: Callable[..., object]) -> str:
    from .local import dump  # only now: a worker that never needs it is smaller

    return dump(func)


def _checked(options: Mapping[str, object]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is None:
            raise InvalidTask(
                f"{name!r} is no option of a task, these are: {', '.join(_CHECKS)}. "
                "Arguments of the function go into kwargs."
            )
        if value is not None:
            fields[_FIELDS.get(name, name)] = check(name, value)
    return fields


def _key_of(func: Callable[..., object], name: str, args: str, kwargs: str | None) -> str:
    """One key for one call, however its arguments are spelt: by position or by keyword, in whatever order."""
    bound = inspect.signature(func).bind(*json.loads(args), **json.loads(kwargs or "{}"))
    call = json.dumps(bound.arguments, sort_keys=True)
    return f"{name} {hashlib.sha256(call.encode()).hexdigest()[:32]}"


def _instant(option: str, value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise InvalidTask(
            f"{option} is {value.isoformat()} without a time zone: write datetime.now(UTC) + ..., or give a timedelta"
        )
    try:
        if isinstance(value, timedelta):
            return min(datetime.now(UTC) + value, _LAST)
        if isinstance(value, datetime):
            return min(value.astimezone(UTC), _LAST)
    except OverflowError:
        raise InvalidTask(f"{option} is {value!r:.60}: it must fall into the years 1 to 9999") from None
    raise InvalidTask(f"{option} is {value!r:.60}: give a datetime with a time zone, or a timedelta from now")


def _parents(option: str, value: object) -> tuple[UUID, ...]:
    given = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    return tuple(_parent(option, parent) for parent in given)


def _parent(option: str, value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, Ref | Task):
        return value.id
    raise InvalidTask(f"{option} is {value!r:.60}: give a TaskRef, a Task, a UUID, or a sequence of them")


def _seconds(_: str, value: Any) -> float | None:
    limit = as_timeout(value)
    return None if limit is None else limit.total_seconds()


def _unique(option: str, value: object) -> bool | str | None:
    return value if isinstance(value, bool) else as_text(option, value, 500)


def _on_parent_failure(option: str, value: object) -> object:
    if value not in _ON_PARENT_FAILURE:
        raise InvalidTask(f"{option} is {value!r:.60}: give one of {', '.join(map(repr, _ON_PARENT_FAILURE))}")
    return value


def _context(option: str, value: object) -> str | None:
    if not isinstance(value, dict):
        raise InvalidTask(f"{option} is {value!r:.60}: give a dict that can be kept as JSON")
    return encode_json(value) if value else None


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "parent": _parents,
    "name": lambda option, value: as_text(option, value, _LONGEST_NAME),
    "channel": lambda option, value: as_text(option, value, 100),
    "key": lambda option, value: as_text(option, value, 200),
    "priority": lambda option, value: as_whole(option, value, -32_768, 32_767),
    "max_retries": lambda option, value: as_whole(option, value, 0, 32_767),
    "timeout": _seconds,
    "run_at": _instant,
    "expires_at": _instant,
    "unique": _unique,
    "auto_remove": as_flag,
    "on_parent_failure": _on_parent_failure,
    "context": _context,
}

_FIELDS = {"parent": "parents"}  # of NewTask, where they aren't called like the option
