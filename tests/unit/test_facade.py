"""The public names: complete, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import queued_tasks


@pytest.mark.parametrize("name", queued_tasks.__all__)
def test_every_public_name_is_there_under_its_own_name(name: str) -> None:
    public = getattr(queued_tasks, name)
    assert getattr(public, "__name__", getattr(public, "name", None)) == name


def test_the_names_are_all_that_is_offered() -> None:
    assert sorted(queued_tasks._HOME_OF) == queued_tasks.__all__


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TaskRunner'"):
        _ = queued_tasks.TaskRunner  # type: ignore[attr-defined]  # the lack of it is the point


def test_the_import_alone_loads_nothing_heavy() -> None:
    code = "import queued_tasks, sys; print({'asyncpg', 'fastapi', 'pydantic', 'loguru'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_takes_connections_of_the_user_needs_none_of_their_drivers() -> None:
    code = (
        "import sys; sys.modules.update({'sqlalchemy': None, 'psycopg': None});"
        "from queued_tasks.runtime.connections import post_over; print(callable(post_over))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_decorator_is_not_hidden_by_the_module_of_the_same_name() -> None:
    code = "import queued_tasks.runtime.task, queued_tasks; print(callable(queued_tasks.task))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
