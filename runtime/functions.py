"""Which function a row means: references, and who may resolve them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType

from .errors import InvalidTask
from .options import UNDECLARED, TaskOptions, describe, executor_of, is_generator, options_of, task

__all__ = [
    "AllowList",
    "FunctionNotAllowed",
    "TaskOptions",
    "UnknownFunction",
    "executor_of",
    "is_local",
    "options_of",
    "reference",
    "resolve",
    "task",
]

_MAIN = ("__main__", "__mp_main__")
_INSTALLED = {"site-packages", "dist-packages"}
_LONGEST = 500  # characters of a reference: it is a key in the database


class UnknownFunction(InvalidTask):
    """A stored reference names nothing that can be imported here; another server, or another version, may know it."""


class FunctionNotAllowed(InvalidTask):
    """A stored reference names what a worker must not run, or is malformed."""


@dataclass(frozen=True)
class AllowList:
    """Which modules a worker may import for a task: by prefix, or by lying under the application's folder.

    The prefix `a.b` allows `a.b` and `a.b.c`, not `a.bc`. What is installed below `folder` (site-packages, the
    standard library) is not part of the application. With `only_decorated` a function also needs @task.
    """

    prefixes: tuple[str, ...] = ()
    folder: Path | None = None
    only_decorated: bool = False

    def allows(self, module_name: str) -> bool:
        """Decide without running any code of the module or its parents."""
        if any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in self.prefixes):
            return True
        if self.folder is None:
            return False
        spec = _deciding_spec(module_name)
        if spec is None or spec.origin is None or not spec.has_location:
            return False
        return _belongs_to(Path(spec.origin).resolve(), self.folder.resolve())


def reference(func: Callable[..., object]) -> str:
    """`module:qualname` of an importable function, static or class method; of `__main__`, under its importable name.

    Raises:
        InvalidTask: resolving it would not give `func` back; the text says why, and the cure.
    """
    try:
        return _reference(func)
    except TypeError:  # unhashable, so no function: only the refusal is left to be made
        return _reference.__wrapped__(func)


def is_local(func: Callable[..., object]) -> bool:
    """Whether `func` is a lambda, a closure or another function without a name to import it by.

    `reference` refuses these and they could only be serialized; whatever else it refuses can't become a task at all.
    """
    return isinstance(func, FunctionType) and not is_generator(func) and "<" in func.__qualname__


def resolve(reference: str, allowed: AllowList) -> Callable[..., object]:
    """The function that a row's reference names; imported once, then remembered.

    The object found is looked at, not only the text: what an allowed module imported from elsewhere is refused.

    Raises:
        UnknownFunction: allowed, but no such module or function is here; an error of the import is its cause.
        FunctionNotAllowed: outside the allow-list, or no function that could have been added as a task.
        InvalidTask: too long for any function.
    """
    known = _resolved.get(reference)
    if known is None or known[0] is not allowed:
        known = _resolved[reference] = allowed, _resolve(reference, allowed)
    return known[1]


_resolved: dict[str, tuple[AllowList, Callable[..., object]]] = {}


@functools.lru_cache(maxsize=4096)
def _reference(func: Callable[..., object]) -> str:
    refusal = _refusal(func)
    if refusal:
        raise InvalidTask(f"{describe(func)} {refusal}")
    home, qualname = _own_name(func)
    module_name = _main_module_name() if home in _MAIN else home
    try:
        _split(f"{module_name}:{qualname}")
        found = _walk(sys.modules.get(home) or importlib.import_module(home), qualname)
    except (ImportError, AttributeError, ValueError, InvalidTask) as error:
        raise InvalidTask(f"{describe(func)} can't be imported by its name: {error}") from error
    if not (found is func or (inspect.ismethod(found) and found == func)):
        raise InvalidTask(
            f"{describe(func)} is not what {module_name}:{qualname} names: "
            "use functools.wraps in its decorator, or bind it to its own name"
        )
    return f"{module_name}:{qualname}"


def _resolve(reference: str, allowed: AllowList) -> Callable[..., object]:
    module_name, qualname = _split(reference)
    _require_module(reference, module_name, allowed)
    module = _import(module_name)
    try:
        found = _walk(module, qualname)
    except AttributeError:
        raise UnknownFunction(
            f"module {module_name!r} has no {qualname!r} here: deploy the version that has it, or correct the name"
        ) from None
    refusal = _refusal(found)
    if refusal or not callable(found):
        raise FunctionNotAllowed(f"{reference!r} {refusal}")
    own = ":".join(_own_name(found))
    if own != reference:
        raise FunctionNotAllowed(f"{reference!r} is really {own!r}: a task names a function by its own module and name")
    _require_module(reference, str(inspect.unwrap(found).__module__), allowed)
    if allowed.only_decorated and options_of(found) is UNDECLARED:
        raise FunctionNotAllowed(f"{reference!r} is not decorated: put @task on it, or unset QUEUE_ONLY_DECORATED")
    return found


def _require_module(reference: str, module_name: str, allowed: AllowList) -> None:
    if allowed.allows(module_name):
        return
    if allowed.folder is not None and _deciding_spec(module_name) is None:
        raise UnknownFunction(f"no module {module_name!r} is here: deploy the version that has it, or check --app-dir")
    raise FunctionNotAllowed(
        f"{reference!r} runs code of {module_name!r}, which is not allowed: add it to QUEUE_ALLOWED_MODULES"
    )


def _refusal(func: object) -> str | None:
    """Why `func` can't be named in a row, and the cure; None when it may be."""
    plain = getattr(func, "__func__", func) if inspect.ismethod(func) else func
    if inspect.iscoroutine(func):
        return "is a call, not a function: pass the function and its arguments apart, add_task(fn, arg)"
    if isinstance(func, functools.partial):
        return "is a functools.partial: pass the function itself, and the partial's arguments to add_task"
    if inspect.isclass(func):
        return "is a class: give a function that makes the object and uses it"
    if not callable(func):
        return "is not callable: give a function"
    if inspect.isroutine(plain) and not isinstance(plain, FunctionType):
        return "is built in: call it in a function of your own"
    if inspect.ismethod(func) and not inspect.isclass(func.__self__):
        return (
            "is bound to an instance, which can't travel to the worker: make it a static or class method, "
            "or pass the object's id to a function that loads it"
        )
    if not isinstance(plain, FunctionType):
        return "is a callable object: give a function that calls it"
    if is_generator(plain):
        return "is a generator: give a function that runs through it"
    if is_local(plain):
        return (
            "is a local function or lambda, without a name to import it by: move it to module level "
            "(functools.wraps in a decorator), or set QUEUE_SECRET_KEY so that it can be serialized and signed"
        )
    if inspect.ismethod(func) and "<" in getattr(func.__self__, "__qualname__", ""):
        return "belongs to a class inside a function: move the class to module level"
    return None


def _own_name(func: Callable[..., object]) -> tuple[str, str]:
    """The module and the qualified name that `func` has by itself, or through the class that it is bound to."""
    plain = inspect.unwrap(func)
    if inspect.ismethod(func) and inspect.isclass(func.__self__):
        return func.__self__.__module__, f"{func.__self__.__qualname__}.{getattr(plain, '__name__', '?')}"
    return str(plain.__module__), getattr(plain, "__qualname__", "?")


def _main_module_name() -> str:
    """The name by which another process imports what runs here as __main__."""
    main = sys.modules["__main__"]
    spec: ModuleSpec | None = getattr(main, "__spec__", None)
    if spec is not None and spec.name.endswith(".__main__"):
        raise InvalidTask(f"{spec.name} would run when imported: move its functions to another module of the package")
    if spec is not None and spec.name not in _MAIN:
        return spec.name
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        raise InvalidTask("a worker can't import what was typed or piped into Python: put the function into a module")
    found = _deciding_spec(Path(file).stem)
    if found is None or found.origin is None or Path(found.origin).resolve() != Path(file).resolve():
        raise InvalidTask(f"{file} can't be imported as {Path(file).stem!r}: move the function to a module of its own")
    return found.name


def _split(reference: str) -> tuple[str, str]:
    module_name, _, qualname = reference.partition(":")
    if len(reference) > _LONGEST:
        raise InvalidTask(f"{reference[:60]!r}... is longer than {_LONGEST} characters: give it a shorter name")
    for part in (*module_name.split("."), *qualname.split(".")):
        if not part.isidentifier() or (part.startswith("__") and part.endswith("__")):
            raise FunctionNotAllowed(f"{reference!r} is no reference: write module:qualname, without dunder names")
    return module_name, qualname


def _walk(module: ModuleType, qualname: str) -> object:
    found: object = module
    for part in qualname.split("."):
        if not (found is module or inspect.isclass(found)):
            raise FunctionNotAllowed(f"{qualname!r} goes through {found!r:.60}: only classes may hold a task function")
        found = getattr(found, part)
    return found


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        reason = "deploy the version that has it" if absent else "its own code fails, correct that"
        raise UnknownFunction(
            f"module {module_name!r} can't be imported ({type(error).__name__}: {error}): {reason}"
        ) from error


def _deciding_spec(module_name: str) -> ModuleSpec | None:
    """The outermost package or module with a file: all below it lies where it lies, and nothing of it has to run."""
    top, *rest = module_name.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for part in rest:
            if spec is None or spec.origin is not None:
                break
            spec = importlib.util.find_spec(f"{spec.name}.{part}")  # imports namespace packages alone: no code
    except (ImportError, ValueError):  # ValueError: a module made by hand, without a spec
        return None
    return spec


def _belongs_to(file: Path, folder: Path) -> bool:
    if not file.is_relative_to(folder):
        return False
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    if standard.is_relative_to(folder) and file.is_relative_to(standard):
        return False
    return _INSTALLED.isdisjoint(file.relative_to(folder.parent).parts)
