"""Homes for embedded servers, and who uses them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.embedded_users import Users


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users()
    yield users
    users.close()


@pytest.fixture(scope="module")
def passable() -> Iterator[Path]:
    """A folder that every user can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="queued-tasks-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def empty(passable: Path, users: Users) -> Iterator[Path]:
    """The place of a home that is not there yet."""
    folder = passable / uuid4().hex
    yield folder / "home"
    users.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def used_home(passable: Path) -> Path:
    users = Users()
    users.join(passable / "used")
    users.close()
    return passable / "used"


@pytest.fixture
def home(used_home: Path, empty: Path) -> Path:
    """A home whose server has run before: a start takes a tenth of the first one's time."""
    empty.parent.mkdir(0o711)
    subprocess.run(["cp", "-a", used_home, empty], check=True)
    return empty
