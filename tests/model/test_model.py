"""Search all runs of the two models: the right ones keep every promise, each faulty one breaks the expected one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOOLS = ("spin", "gcc")
DEPTH = 10_000  # steps of a run; a longer one makes the search incomplete, which fails the test
MEMORY = 2_000  # MB

# What goes wrong at once is limited so that each search ends within seconds: see README.md.
ENGINES = {
    "a server is lost, attempts are retried": "FAULTS=1 RETRIES=1",
    "two servers are lost": "FAULTS=2 RETRIES=0 SLOTS=1",
    "a server is lost under tasks that may not lose another": "FAULTS=1 RETRIES=1 LAST=2",
    "PostgreSQL crashes, attempts are retried": "FAULTS=0 RETRIES=1 CRASHES=1",
    "PostgreSQL crashes, a server is lost, attempts are retried": "FAULTS=1 RETRIES=1 CRASHES=1 SLOTS=1",
    "answers are lost, attempts are given back, PostgreSQL crashes": "FAULTS=0 RETRIES=0 CRASHES=1 CUTS=1 RETURNS=1",
    "answers are lost, attempts are given back, a server is lost": "FAULTS=1 RETRIES=0 CUTS=1 RETURNS=1",
}
FAMILIES = {
    "the child is cancelled": "CANCELS=1",
    "PostgreSQL crashes": "CANCELS=0 CRASHES=1",
}
RIGHT = [("engine", name, switches) for name, switches in ENGINES.items()]
RIGHT += [("family", name, switches) for name, switches in FAMILIES.items()]

FAULTY = [
    ("engine", "ONE_STATEMENT_RESCUE", "FAULTS=1 RETRIES=0", "no_orphan"),
    ("engine", "REUSED_LEASE_NUMBER", "FAULTS=0 RETRIES=1 CRASHES=1", "one_outcome_per_attempt"),
    ("engine", "LEAVE_DURING_CLAIM", "FAULTS=1 RETRIES=0", "no_orphan"),
    ("family", "ONE_STATEMENT_RELEASE", "CANCELS=0", "every_task_ended"),
    ("family", "NO_PLACEHOLDER", "CANCELS=0", "every_task_ended"),
]


@dataclass(frozen=True)
class Search:
    """What became of a search: the promise that a run breaks, if any, that run in words, and what pan printed."""

    violated: str | None
    run: str
    output: str

    @property
    def complete(self) -> bool:
        """Whether every run was looked at to its end."""
        return (
            "errors: 0" in self.output
            and "Search not completed" not in self.output
            and "max search depth too small" not in self.output
            and "out of memory" not in self.output
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a search may leave its files. Without SPIN there is none: an error in CI, where it has to be."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        cure = f"the models need {' and '.join(missing)}: apt-get install {' '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(cure)
        pytest.skip(cure)
    return tmp_path


def search(folder: Path, model: str, switches: str) -> Search:
    """Let SPIN look for a run of the model that breaks a promise."""
    shutil.copy(HERE / f"{model}.pml", folder)
    defined = [f"-D{switch}" for switch in switches.split()]
    _call(folder, "spin", *defined, "-a", f"{model}.pml")
    options = ["-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=512", f"-DMEMLIM={MEMORY}"]
    _call(folder, "gcc", *options, "-o", "pan", "pan.c")
    output = _call(folder, "./pan", f"-m{DEPTH}")
    found = re.search(r"pan:\d+: (?:assertion violated )?\(?(.+?)\)? \(at depth \d+\)", output)
    if found is None:
        return Search(None, "", output)
    told = _call(folder, "spin", *defined, "-t", f"{model}.pml")
    return Search(found[1], told.partition("spin: ")[0], output)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or command[0] in ("spin", "./pan"), done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("model", "name", "switches"), RIGHT, ids=[f"{model}: {name}" for model, name, _ in RIGHT])
def test_no_run_breaks_a_promise(folder: Path, model: str, name: str, switches: str) -> None:
    found = search(folder, model, switches)
    assert found.violated is None, found.run
    assert found.complete, found.output


@pytest.mark.parametrize(("model", "fault", "switches", "promise"), FAULTY, ids=[fault for _, fault, _, _ in FAULTY])
def test_a_fault_is_found(folder: Path, model: str, fault: str, switches: str, promise: str) -> None:
    found = search(folder, model, f"{fault} {switches}")
    assert found.violated == promise, found.output


def test_a_search_that_is_cut_off_is_not_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.DEPTH", 50)
    assert not search(folder, "family", "CANCELS=0").complete
