"""What an application declares to run by the clock: the decorators, and the registry that they fill."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints
from uuid import UUID
from zoneinfo import ZoneInfo

from .cron import Cron
from .errors import ConfigurationError, InvalidTask
from .functions import reference
from .options import SCHEDULE, as_flag, as_text, as_whole, describe, is_generator
from .task import NewTask

if TYPE_CHECKING:
    import click

    from .settings import Settings

F = TypeVar("F", bound=Callable[..., object])

_OPTIONS = "__queued_schedule_options__"
_NAME = re.compile(r"[^\s\-]\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """A function that runs by the clock. `channel` and `priority` None: what its @task says."""

    name: str
    cron: str
    timezone: str
    catch_up: bool
    channel: str | None
    priority: int | None
    func: Callable[..., object]
    options: tuple[click.Option, ...]

    @property
    def reference(self) -> str:
        """`module:qualname` of the function. Raises InvalidTask when it can't be imported by that."""
        return reference(self.func)

    @property
    def command(self) -> click.Command:
        """The command line that the function declares with @option."""
        import click

        doc = inspect.getdoc(self.func)
        return click.Command(self.name, params=list(self.options), help=doc)

    def arguments(self, line: Sequence[str] = ()) -> dict[str, object]:
        """The keyword arguments that a command line means; an empty one, which a fire has, the defaults.

        An option without a value is left to the function's own default, if it has one.

        Raises:
            click.ClickException: the line can't be understood.
        """
        parameters = inspect.signature(self.func).parameters
        values = self.command.make_context(f"queued-tasks scheduler run {self.name}", list(line)).params
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in parameters or parameters[name].default is inspect.Parameter.empty
        }

    def task(self, settings: Settings) -> NewTask:
        """The task that a fire adds, but for its id.

        Raises:
            InvalidTask, SerializationError: the function can't be a task, or can't be called with its defaults.
        """
        from .enqueue import new_task  # loads pydantic, which an application without schedules may not need

        given = {"channel": self.channel, "priority": self.priority}
        return new_task(self.func, (), self.fitting(self.arguments()), given, settings=settings, id=UUID(int=0))

    def fitting(self, arguments: dict[str, object]) -> dict[str, object]:
        """The same arguments as the types that the function annotates: a date for the text of one.

        What doesn't fit stays as it is, to be refused when the task is added.
        """
        hints = get_type_hints(self.func, include_extras=True)
        return {name: _fit(hints[name], value) if name in hints else value for name, value in arguments.items()}


def scheduled_task(
    *,
    cron: str,
    name: str | None = None,
    timezone: str | ZoneInfo = "UTC",
    catch_up: bool = False,
    channel: str | None = None,
    priority: int | None = None,
) -> Callable[[F], F]:
    """Let a function run by the clock: one task for each time that `cron` (five fields) is due in `timezone`.

    A time that is due while the previous run is still active (enqueued, running, waiting for a retry) is skipped, and
    so are times that no server was there for, but for the last minute; both are recorded. With `catch_up` nothing is
    skipped: missed times, the last 1,000 at most, are made up for in order, one run after the other. The task finds
    what it is for at `get_context("schedule.due_at")`, an instant in ISO 8601. `name` is the function's, with dashes,
    by default.

    Servers run the schedules of the application that they were started with. The function gets the defaults of its
    @option declarations, which stand below this decorator.

    Raises:
        ConfigurationError: the expression, the zone, another option or the function itself can't be; the text names
            the function.
    """
    zone = timezone.key if isinstance(timezone, ZoneInfo) else timezone

    def declare(func: F) -> F:
        if not isinstance(func, FunctionType) or is_generator(func):
            raise _refused(func, "is for functions: put it on a def or an async def")
        try:
            Cron(cron, zone)
            spec = ScheduleSpec(
                name=_schedule_name(func.__name__.replace("_", "-") if name is None else name),
                cron=cron,
                timezone=zone,
                catch_up=as_flag("catch_up", catch_up) or False,
                channel=as_text("channel", channel, 100),
                priority=as_whole("priority", priority, -32_768, 32_767),
                func=func,
                options=tuple(getattr(func, _OPTIONS, ())),
            )
        except (ConfigurationError, InvalidTask) as error:
            raise _refused(func, str(error)) from None
        _check_call(spec)
        _register(spec)
        setattr(func, SCHEDULE, spec)
        return func

    return declare


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """Declare an option of a scheduled function's command line; the arguments are those of `click.option`.

    Its value goes to the parameter of the same name: `--date` to `date`. Stands below `@scheduled_task`.

    Raises:
        ConfigurationError: click refuses the arguments, the default is a function, or the decorator stands above.
    """
    if names and callable(names[0]):
        raise ConfigurationError(f'@option on {describe(names[0])}: write it with the name, @option("--date")')

    def declare(func: F) -> F:
        import click  # only now: most applications have no use for it

        if hasattr(func, SCHEDULE):
            raise _refused(func, f"stands below @option({names[0]!r}): put it on top", "@scheduled_task")
        if callable(attributes.get("default")):
            raise _refused(
                func, "has a function for a default, which fires would not call: compute it in the task", "@option"
            )
        try:
            declared = click.Option(names, **attributes)
        except (TypeError, ValueError, AttributeError) as error:
            raise _refused(func, f"{', '.join(map(str, names)) or 'has no name'}: {error}", "@option") from None
        setattr(func, _OPTIONS, [declared, *getattr(func, _OPTIONS, ())])
        return func

    return declare


def declared_schedules() -> tuple[ScheduleSpec, ...]:
    """What the modules imported so far have declared, by name."""
    return tuple(_declared[name] for name in sorted(_declared))


_declared: dict[str, ScheduleSpec] = {}


def _schedule_name(name: object) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name) and as_text("name", name, 100):
        return name
    raise ConfigurationError(f"name is {name!r:.60}: give 1 to 100 characters without spaces, the first no dash")


def _fit(hint: Any, value: object) -> object:
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        fitted: object = TypeAdapter(hint).validate_python(value)
    except (ValidationError, PydanticSchemaGenerationError):
        return value
    return fitted


def _check_call(spec: ScheduleSpec) -> None:
    import click

    try:
        arguments = spec.arguments()
    except click.ClickException as error:
        raise _refused(spec.func, f"{error.format_message()} A fire gives no options: add a default") from None
    try:
        inspect.signature(spec.func).bind(**arguments)
    except TypeError as error:
        raise _refused(
            spec.func, f"a fire can't call it ({error}): give each parameter a default, or an @option of that name"
        ) from None


def _register(spec: ScheduleSpec) -> None:
    other = _declared.get(spec.name)
    if other is not None and _place(other.func) != _place(spec.func):
        raise _refused(spec.func, f"{describe(other.func)} is called {spec.name!r} as well: give one of them a name")
    _declared[spec.name] = spec


def _place(func: Callable[..., object]) -> tuple[str | None, str]:
    """What stays the same when a module is imported again, or once more as __main__."""
    return inspect.getsourcefile(func), func.__qualname__


def _refused(func: object, why: str, decorator: str = "@scheduled_task") -> ConfigurationError:
    return ConfigurationError(f"{decorator} on {describe(func)}: {why}.")
