"""Fixtures for all tests: a PostgreSQL server for the run, a database for each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.databases import ensure_template, fresh_database, running_server, template_name

_HOME = "QUEUED_TASKS_TEST_HOME"


def pytest_configure(config: pytest.Config) -> None:
    """Shut out the developer's own settings, and choose the folder of the embedded server for all xdist workers."""
    hypothesis.settings.register_profile("queued_tasks", deadline=None)  # a busy machine is no defect
    hypothesis.settings.load_profile("queued_tasks")
    for name in [*os.environ]:
        if name == "DATABASE_URL" or (name.startswith("QUEUE_") and not name.startswith("QUEUE_TEST_")):
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="queued-tasks-"))
        folder.chmod(0o711)  # under root PostgreSQL runs as another user and must pass through
        os.environ[_HOME] = str(folder / "postgres")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder once the server, which stops when its last user is gone, has left it."""
    if hasattr(config, "workerinput"):
        return
    folder = Path(os.environ.pop(_HOME)).parent
    end = time.monotonic() + 10
    while any(folder.rglob("postmaster.pid")) and time.monotonic() < end:
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a superuser on the server of this run."""
    with running_server(Path(os.environ[_HOME])) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of the migrated database that `database` copies."""
    name = template_name()
    asyncio.run(ensure_template(postgres, name))
    return name


@pytest.fixture
async def database(postgres: str, template: str) -> AsyncIterator[str]:
    """The DSN of a fresh database with the schema."""
    async with fresh_database(postgres, template=template) as dsn:
        yield dsn


@pytest.fixture
async def empty_database(postgres: str) -> AsyncIterator[str]:
    """The DSN of a fresh database that nobody has migrated."""
    async with fresh_database(postgres) as dsn:
        yield dsn


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have told, also those that passed."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "told"]
    if told:
        terminalreporter.section("told by tests")
        for line in sorted({*map(str, told)}):
            terminalreporter.write_line(line)
