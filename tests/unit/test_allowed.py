"""The allow-list of a worker: whose functions it runs."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from queued_tasks.runtime.functions import (
    AllowList,
    FunctionNotAllowed,
    UnknownFunction,
    resolve,
)


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
