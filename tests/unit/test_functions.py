"""Function references: what can be one, and how it is named."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import pytest

from queued_tasks.runtime.errors import InvalidTask
from queued_tasks.runtime.functions import (
    AllowList,
    FunctionNotAllowed,
    is_local,
    reference,
    resolve,
)

ROOT = Path(__file__).parents[2]
Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


def wrapping(func: F) -> F:
    @functools.wraps(func)
    def wrapper(*args: object, **kwargs: object) -> object:
        return func(*args, **kwargs)

    return wrapper  # type: ignore[return-value]  # stands in for `func`


def bare(func: Function) -> Function:
    def inner() -> object:
        return func()

    return inner


def plain() -> str:
    return "plain"


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@wrapping
def wrapped() -> None: ...


@wrapping
async def wrapped_coroutine() -> None: ...


@bare
def badly_wrapped() -> None: ...


renamed = wrapping(plain)
anonymous = lambda: None  # noqa: E731  # the subject of a test


class Base:
    @classmethod
    def build(cls) -> str:
        return cls.__name__

    @classmethod
    async def fetch(cls) -> None: ...

    @staticmethod
    def static() -> None: ...

    def method(self) -> None: ...

    def __call__(self) -> None: ...

    class Inner:
        @staticmethod
        def deep() -> None: ...


class Sub(Base): ...


class Unhashable(Base):
    __hash__ = None  # type: ignore[assignment]  # what a dataclass with eq does


HERE = __name__
HERE_ALLOWED = AllowList(prefixes=(HERE,))
IMPORTABLE: list[tuple[Function, str]] = [
    (plain, "plain"),
    (coroutine, "coroutine"),
    (wrapped, "wrapped"),
    (wrapped_coroutine, "wrapped_coroutine"),
    (Base.build, "Base.build"),
    (Sub.build, "Sub.build"),
    (Base.static, "Base.static"),
    (Sub.static, "Base.static"),
    (Base.method, "Base.method"),
    (Base.Inner.deep, "Base.Inner.deep"),
]


@pytest.mark.parametrize(("func", "name"), IMPORTABLE)
def test_a_function_is_named_by_its_module_and_qualname(func: Function, name: str) -> None:
    assert f"{HERE}:{name}" == reference(func)


@pytest.mark.parametrize(("func", "name"), IMPORTABLE)
def test_a_reference_resolves_to_the_same_function(func: Function, name: str) -> None:
    assert resolve(reference(func), HERE_ALLOWED) == func


def test_an_inherited_class_method_is_bound_to_the_subclass() -> None:
    assert resolve(reference(Sub.build), HERE_ALLOWED)() == "Sub"


def local_function() -> Function:
    def inside() -> None: ...

    return inside


def local_class_method() -> Function:
    class Local(Base): ...

    return Local.build


REFUSED: list[tuple[object, str]] = [
    (local_function(), "local function or lambda.*move it to module level.*QUEUE_SECRET_KEY"),
    (lambda: None, "local function or lambda.*QUEUE_SECRET_KEY"),
    (anonymous, "local function or lambda.*QUEUE_SECRET_KEY"),
    (badly_wrapped, r"local function or lambda.*functools\.wraps"),
    (local_class_method(), "class inside a function: move the class to module level"),
    (Base().method, "bound to an instance.*static or class method.*object's id"),
    (Unhashable().method, "bound to an instance"),
    (functools.partial(plain), r"functools\.partial: pass the function itself"),
    (Base(), "^a Base is a callable object: give a function"),
    (Unhashable(), "callable object"),
    (generator, "is a generator: give a function that runs through it"),
    (async_generator, "is a generator"),
    (Base, "is a class: give a function"),
    (len, "built in: call it in a function of your own"),
    (os.getcwd, "built in"),
    (str.upper, "built in"),
    ("app:job", "^a str is not callable: give a function"),
    (None, "not callable"),
    (renamed, r"is not what .*:plain names: use functools\.wraps.*its own name"),
    (Base.__init_subclass__, "built in"),
    (Base.__call__, "without dunder names"),
]


@pytest.mark.parametrize(("func", "text"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_a_worker_could_not_import_is_refused_with_the_cure(func: Any, text: str) -> None:
    with pytest.raises(InvalidTask, match=text):
        reference(func)


def test_a_call_instead_of_a_function_is_explained() -> None:
    with contextlib.closing(coroutine()) as call, pytest.raises(InvalidTask, match=r"is a call.*add_task\(fn, arg\)"):
        reference(call)  # type: ignore[arg-type]  # the mistake is the point


def test_a_function_whose_module_is_gone_is_refused() -> None:
    scope: dict[str, Any] = {"__name__": "no_such_module"}
    exec("def job(): ...", scope)
    with pytest.raises(InvalidTask, match="can't be imported by its name: No module named 'no_such_module'"):
        reference(scope["job"])


def test_a_function_that_was_removed_from_its_module_is_refused() -> None:
    def lost() -> None: ...

    lost.__qualname__ = "lost"
    with pytest.raises(InvalidTask, match="has no attribute 'lost'"):
        reference(lost)


@pytest.mark.parametrize("func", [local_function(), lambda: None, anonymous, badly_wrapped])
def test_a_function_without_a_name_is_local(func: Function) -> None:
    assert is_local(func)


@pytest.mark.parametrize("func", [plain, wrapped, Base.build, Base().method, functools.partial(plain), Base, len])
def test_what_has_a_name_or_is_no_function_is_not_local(func: Function) -> None:
    assert not is_local(func)


def test_a_local_generator_is_not_local_but_refused() -> None:
    assert not is_local(lambda: (yield))


SCRIPT = """
from queued_tasks.runtime.functions import reference

def job(): ...

if __name__ == "__main__":
    print(reference(job))
"""


def python(folder: Path, *arguments: str, given: str | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, input=given, capture_output=True, text=True
    )
    return (ran.stdout + ran.stderr).strip().splitlines()[-1]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    for name in ("main.py", "my-app.py", "pack/__init__.py", "pack/main.py", "pack/__main__.py"):
        (tmp_path / name).write_text("" if name.endswith("__init__.py") else SCRIPT)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["main.py"], "main:job"),
        (["pack/main.py"], "main:job"),
        (["-m", "main"], "main:job"),
        (["-m", "pack.main"], "pack.main:job"),
    ],
    ids=["script", "script of a folder", "module", "submodule"],
)
def test_a_function_of_main_gets_its_importable_name(scripts: Path, arguments: list[str], name: str) -> None:
    assert name == python(scripts, *arguments)


def test_a_function_of_main_keeps_its_name_in_a_spawned_process(tmp_path: Path) -> None:
    spawning = """
        import multiprocessing
        from queued_tasks.runtime.functions import reference

        def job(): ...

        def show():
            print(reference(job))

        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=show)
            process.start()
            process.join()
    """
    (tmp_path / "main.py").write_text(dedent(spawning))
    assert python(tmp_path, "main.py") == "main:job"


@pytest.mark.parametrize(
    ("arguments", "given", "text"),
    [
        (["-"], SCRIPT, "typed or piped into Python: put the function into a module"),
        (["-c", SCRIPT], None, "typed or piped into Python"),
        (["my-app.py"], None, "'my-app:job' is no reference"),
        (["-m", "pack"], None, "pack.__main__ would run when imported: move its functions to another module"),
    ],
    ids=["piped", "command", "unimportable name", "package"],
)
def test_a_main_without_an_importable_name_is_explained(
    scripts: Path, arguments: list[str], given: str | None, text: str
) -> None:
    assert text in python(scripts, *arguments, given=given)


def test_a_script_hidden_by_another_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sys.py").write_text(SCRIPT)
    assert "can't be imported as 'sys': move the function to a module of its own" in python(tmp_path, "sys.py")


def test_a_resolved_function_is_not_given_to_a_stricter_list() -> None:
    resolve(f"{HERE}:plain", HERE_ALLOWED)
    with pytest.raises(FunctionNotAllowed):
        resolve(f"{HERE}:plain", AllowList())
    with pytest.raises(FunctionNotAllowed):
        resolve(f"{HERE}:plain", replace(HERE_ALLOWED, only_decorated=True))
