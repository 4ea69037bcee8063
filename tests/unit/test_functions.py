"""Function references, and the allow-list of a worker."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import sysconfig
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
    UnknownFunction,
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


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = "") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


def test_a_prefix_allows_a_package_and_what_is_below_it() -> None:
    allowed = AllowList(prefixes=("a.b",))
    names = ["a.b", "a.b.c", "a.b.c.d", "a", "a.bc", "a.c", "b", "", "a.b_c"]
    assert [name for name in names if allowed.allows(name)] == ["a.b", "a.b.c", "a.b.c.d"]


def test_an_empty_list_allows_nothing() -> None:
    assert not any(AllowList().allows(name) for name in ("os", "", "app", "queued_tasks"))


def test_the_folder_allows_what_lies_in_it(application: Path) -> None:
    write(application, "app_one.py")
    write(application, "app_pack/__init__.py")
    write(application, "app_space/deep/module.py")
    allowed = AllowList(folder=application)
    names = ["app_one", "app_pack", "app_pack.new", "app_space.deep.module", "app_space", "os", "json.tool", "pydantic"]
    assert [allowed.allows(name) for name in names] == [True, True, True, True, False, False, False, False]


@pytest.mark.parametrize("installed", ["site-packages", ".venv/lib/python3.11/site-packages", "dist-packages"])
def test_what_is_installed_below_the_folder_is_not_allowed(
    application: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    write(application / installed, "app_installed.py")
    monkeypatch.syspath_prepend(str(application / installed))
    assert not AllowList(folder=application).allows("app_installed")


def test_a_folder_of_installed_packages_allows_none_of_them(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(application / "site-packages", "app_neighbour.py")
    monkeypatch.syspath_prepend(str(application / "site-packages"))
    assert not AllowList(folder=application / "site-packages").allows("app_neighbour")


def test_the_standard_library_below_the_folder_is_not_allowed() -> None:
    assert not AllowList(folder=Path(sysconfig.get_path("stdlib")).parent).allows("json")


def test_a_folder_reached_through_a_link_is_the_same_folder(application: Path) -> None:
    write(application, "real/app_linked.py")
    (application / "link").symlink_to(application / "real")
    sys.path.insert(0, str(application / "real"))  # undone with syspath_prepend of the fixture
    assert AllowList(folder=application / "link").allows("app_linked")


def test_deciding_imports_nothing(application: Path) -> None:
    write(application, "app_trap/__init__.py", "raise RuntimeError('imported')")
    write(application, "app_trap/inner.py", "raise RuntimeError('imported')")
    AllowList(folder=application).allows("app_trap.inner")
    assert "app_trap" not in sys.modules


def test_a_module_that_is_not_allowed_is_not_imported(application: Path) -> None:
    write(application, "app_outside.py", "raise RuntimeError('imported')")
    with pytest.raises(
        FunctionNotAllowed, match="'app_outside', which is not allowed: add it to QUEUE_ALLOWED_MODULES"
    ):
        resolve("app_outside:job", AllowList(prefixes=("app",)))


@pytest.mark.parametrize(
    "text",
    ["app", "", ":", "app:", ":job", "app:a..b", "app:__init__", "app:job.__globals__", "app.__main__:job", "os;x:y",
     "app:<lambda>", "app:f.<locals>.g", "../app:job", "app:job:more", "app :job"],
)  # fmt: skip
def test_a_malformed_reference_is_not_allowed(text: str) -> None:
    with pytest.raises(FunctionNotAllowed, match="is no reference: write module:qualname, without dunder names"):
        resolve(text, AllowList(prefixes=("app",)))


def test_what_an_allowed_module_imported_is_not_allowed(application: Path) -> None:
    source = """
        import functools, os, subprocess
        from os import system
        from subprocess import run
        from json import dumps
        cached = functools.lru_cache(dumps)
        wrapped = functools.wraps(dumps)(lambda: None)
        value = 3
        def job(): ...
        alias = job
        class Own:
            go = staticmethod(dumps)
            bound = classmethod(dumps)
        maker = Own().__init__
    """
    write(application, "app_main.py", source)
    allowed = AllowList(prefixes=("app_main",))
    names = ["os.system", "system", "run", "dumps", "cached", "wrapped", "value", "alias", "Own", "Own.go", "Own.bound",
             "subprocess.Popen", "Own.mro", "functools.partial", "job.real", "maker"]  # fmt: skip
    for name in names:
        with pytest.raises(FunctionNotAllowed):
            resolve(f"app_main:{name}", allowed)
    assert resolve("app_main:job", allowed).__name__ == "job"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("os.system", "goes through <module 'os'.*only classes may hold a task function"),
        ("system", "is built in"),
        ("dumps", "is really 'json:dumps': a task names a function by its own module and name"),
    ],
)
def test_the_refusal_says_what_the_name_really_is(application: Path, name: str, text: str) -> None:
    write(application, "app_main.py", "import os\nfrom os import system\nfrom json import dumps")
    with pytest.raises(FunctionNotAllowed, match=text):
        resolve(f"app_main:{name}", AllowList(folder=application))


def test_a_class_method_inherited_from_a_module_that_is_not_allowed_is_refused(application: Path) -> None:
    write(application, "app_base.py", "class Base:\n    @classmethod\n    def build(cls): ...")
    write(application, "app_sub.py", "from app_base import Base\nclass Sub(Base): ...")
    with pytest.raises(FunctionNotAllowed, match="runs code of 'app_base', which is not allowed"):
        resolve("app_sub:Sub.build", AllowList(prefixes=("app_sub",)))
    assert callable(resolve("app_sub:Sub.build", AllowList(prefixes=("app_sub", "app_base"))))


def test_an_unknown_attribute_is_told_from_what_is_not_allowed(application: Path) -> None:
    write(application, "app_main.py")
    with pytest.raises(UnknownFunction, match="'app_main' has no 'job' here: deploy the version that has it"):
        resolve("app_main:job", AllowList(prefixes=("app_main",)))


@pytest.mark.parametrize("name", ["app_absent", "app_absent.inner", "app_space.absent"])
def test_a_module_that_the_next_deploy_may_bring_is_unknown(application: Path, name: str) -> None:
    (application / "app_space").mkdir()
    with pytest.raises(UnknownFunction, match=f"no module '{name}' is here: deploy .*--app-dir"):
        resolve(f"{name}:job", AllowList(folder=application))


def test_an_allowed_module_that_is_absent_is_unknown() -> None:
    with pytest.raises(UnknownFunction, match=r"'app_absent\.x' can't be imported .*deploy the version that has it"):
        resolve("app_absent.x:job", AllowList(prefixes=("app_absent",)))


@pytest.mark.parametrize(
    ("source", "cause"),
    [("import app_missing_dependency", ModuleNotFoundError), ("from os import nothing", ImportError),
     ("1 / 0", ZeroDivisionError), ("def (", SyntaxError), ("raise SystemExit(3)", SystemExit)],
)  # fmt: skip
def test_an_error_inside_the_module_is_the_cause(application: Path, source: str, cause: type[BaseException]) -> None:
    write(application, "app_broken.py", source)
    with pytest.raises(UnknownFunction, match=f"{cause.__name__}: .*its own code fails, correct that") as caught:
        resolve("app_broken:job", AllowList(folder=application))
    assert isinstance(caught.value.__cause__, cause)


def test_only_decorated_functions_when_asked_for(application: Path) -> None:
    source = """
        from queued_tasks.runtime.functions import task
        @task
        def yes(): ...
        def no(): ...
    """
    write(application, "app_main.py", source)
    allowed = AllowList(folder=application, only_decorated=True)
    assert resolve("app_main:yes", allowed).__name__ == "yes"
    with pytest.raises(FunctionNotAllowed, match="not decorated: put @task on it, or unset QUEUE_ONLY_DECORATED"):
        resolve("app_main:no", allowed)


def test_a_resolved_function_is_not_given_to_a_stricter_list() -> None:
    resolve(f"{HERE}:plain", HERE_ALLOWED)
    with pytest.raises(FunctionNotAllowed):
        resolve(f"{HERE}:plain", AllowList())
    with pytest.raises(FunctionNotAllowed):
        resolve(f"{HERE}:plain", replace(HERE_ALLOWED, only_decorated=True))
