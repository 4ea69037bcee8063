"""What is built from this folder holds all of it, and the facade says what it exports."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import queued_tasks

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "actors", "integrations")
UNBUILT = shutil.ignore_patterns(".*", "__pycache__", "dist", "build")


def expected_files() -> set[str]:
    """What a wheel must hold, by the names that it has there."""
    sources = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sql"}}
    return {f"queued_tasks/{path.relative_to(ROOT)}" for path in sources} | {
        "queued_tasks/__init__.py",
        "queued_tasks/py.typed",
    }


def build(target: str, tree: Path) -> Path:
    """Build `tree` as it would be for an upload; `target` is wheel or sdist."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", "built"],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (built,) = (tree / "built").iterdir()
    return built


def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the checkout, links kept."""
    return shutil.copytree(ROOT, tmp_path / "checkout", symlinks=True, ignore=UNBUILT)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_links_to_the_folder_by_a_relative_path(folder: str) -> None:
    assert (ROOT / "queued_tasks" / folder).readlink() == Path("..", folder)


def test_a_wheel_holds_the_modules_and_the_sql_of_the_three_folders(tree: Path) -> None:
    assert expected_files() - wheel_files(build("wheel", tree)) == set()


def test_a_wheel_built_from_the_sdist_holds_them_too(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", build("sdist", tree), "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert expected_files() - wheel_files(build("wheel", unpacked)) == set()


def test_a_wheel_holds_nothing_but_the_package(tree: Path) -> None:
    names = wheel_files(build("wheel", tree))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"queued_tasks"}


def exported() -> list[str]:
    return list(getattr(queued_tasks, "__all__", []))


def test_each_name_in_all_resolves() -> None:
    assert [name for name in exported() if not hasattr(queued_tasks, name)] == []


def test_all_names_every_public_symbol_that_the_package_defines() -> None:
    own = {name for name, value in vars(queued_tasks).items() if _is_ours(value) and not name.startswith("_")}
    assert own - set(exported()) == set()


def test_all_names_nothing_twice() -> None:
    assert len(exported()) == len(set(exported()))


def _is_ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).split(".")[0] == "queued_tasks"
