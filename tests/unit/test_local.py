"""Functions by value."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queued_tasks import InvalidTask, Settings, task
from queued_tasks.runtime.callables import Functions
from queued_tasks.runtime.enqueue import new_task
from queued_tasks.runtime.functions import AllowList
from queued_tasks.runtime.hooks import HookTask
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.local import TAG, constants_of, dump, load
from queued_tasks.runtime.task import NewTask


def row(func: Callable[..., object], *args: object, signs: bool = True, **options: object) -> NewTask:
    return new_task(func, args, {}, options, settings=Settings(), id=new_id(), signs=signs)


def again(text: str, **options: Any) -> Callable[..., Any]:
    return load(text, **{"only_decorated": False, **options})


def test_a_lambda_comes_back() -> None:
    assert again(dump(lambda x: x + 1))(2) == 3


def test_a_closure_comes_back_with_what_it_captures() -> None:
    factor = 3

    async def multiply(x: int) -> int:
        return x * factor

    assert again(dump(multiply)).__qualname__.endswith("multiply")


def test_its_name_is_that_of_the_function() -> None:
    def send() -> None: ...

    task = row(send)
    assert task.name == "test_its_name_is_that_of_the_function.<locals>.send"
    assert task.reference == f"<local>:{task.name}"


def test_hooks_are_not_given_its_pickle() -> None:
    assert HookTask.of(row(lambda: None)).function.endswith("<lambda>")


def test_what_it_declares_counts() -> None:
    @task(priority=7)
    def urgent() -> None: ...

    assert row(urgent).priority == 7


def test_two_functions_of_one_name_are_two_unique_tasks() -> None:
    assert row(lambda: 1, unique=True).unique_key != row(lambda: 2, unique=True).unique_key


def test_without_a_key_it_is_refused_with_the_cure() -> None:
    with pytest.raises(InvalidTask, match="QUEUE_SECRET_KEY"):
        row(lambda: None, signs=False)


def test_what_can_t_be_pickled_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(InvalidTask, match="can't be serialized"):
        row(lambda: lock)


def test_what_captures_too_much_is_refused_with_its_size() -> None:
    ballast = bytes(300 * 1024)
    with pytest.raises(InvalidTask, match="300 KiB with all that it captures, more than 256 KiB"):
        row(lambda: ballast)


def test_another_version_s_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    text = f"<local>:f:cpython-399.9999:{base64.b85encode(_trap(tmp_path)).decode()}"
    with pytest.raises(InvalidTask, match=r"made by cpython-399\.9999, and this worker is cpython-3"):
        again(text)
    assert not (tmp_path / "sprung").exists()


def test_one_in_a_task_that_was_not_verified_is_never_unpickled(tmp_path: Path) -> None:
    text = f"<local>:f:{TAG}:{base64.b85encode(_trap(tmp_path)).decode()}"
    functions = Functions(AllowList(folder=Path("/")), lambda: None)
    with pytest.raises(InvalidTask, match="set QUEUE_SECRET_KEY for this server"):
        functions.get(text)
    assert not (tmp_path / "sprung").exists()


def test_the_trap_of_these_tests_springs(tmp_path: Path) -> None:
    again(f"<local>:f:{TAG}:{base64.b85encode(_trap(tmp_path)).decode()}")
    assert (tmp_path / "sprung").exists()


def test_one_that_misses_a_module_is_refused() -> None:
    broken = pickle.dumps(pickle.Unpickler).replace(b"_pickle", b"_pickl_")
    with pytest.raises(InvalidTask, match="deploy the modules that it uses"):
        again(f"<local>:f:{TAG}:{base64.b85encode(broken).decode()}")


def test_where_only_decorated_functions_run_it_has_to_be_one() -> None:
    with pytest.raises(InvalidTask, match="put @task on it"):
        again(dump(lambda: None), only_decorated=True)
    assert again(dump(task(lambda: 3)), only_decorated=True)() == 3


class _Trap:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "sprung"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def _trap(folder: Path) -> bytes:
    return pickle.dumps(_Trap(folder))


_DUMPED = """
from queued_tasks.runtime.local import constants_of, dump

def closure(names, kept):
    return lambda x: x in {"a", "b", "c"} and (names, kept, x in {"d", "e", "f"})

print(constants_of(dump(closure(["a", "z"], {"a", "b", "c"}))))
"""


def test_processes_agree_on_what_a_function_is_made_of_though_sets_have_another_order_in_each() -> None:
    def printed(seed: int) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", _DUMPED]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert len({printed(seed) for seed in range(1, 5)}) == 1
    assert "'z'" in printed(1)


def test_functions_that_capture_other_values_are_made_of_something_else() -> None:
    def made(factor: int) -> list[str]:
        return constants_of(dump(lambda x: x * factor))

    assert made(2) == made(2) != made(3)
