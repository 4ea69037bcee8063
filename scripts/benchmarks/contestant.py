"""A queue in the benchmark: its databases, its processes, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .environments import ROOT, Failed, command, install, variables
from .postgres import Postgres, cpu_of
from .recorder import Records, Runs

SETTLED = 30.0  # seconds without a start after which a drain is given up


@dataclass(frozen=True)
class Trial:
    """A database of its own and a folder for the records of one measurement."""

    database: str
    records: Path
    slots: int


@dataclass(frozen=True)
class Filled:
    """A template with tasks in it: its name, how many, and what adding them cost."""

    name: str
    n: int
    wal: int
    done: int


class Contestant:
    """One queue, `name` in `environments.PEERS`."""

    def __init__(self, name: str, postgres: Postgres, scratch: Path) -> None:
        install(name)
        self.name = name
        self.postgres = postgres
        self._scratch = scratch
        self._templates: dict[str, Filled] = {}
        self.described = self.call(None, "describe")
        self.postgres.create(self._empty)
        self.call(Trial(self._empty, scratch, 1), "setup")

    @property
    def _empty(self) -> str:
        return f"{self.name}_empty"

    def call(self, trial: Trial | None, *arguments: object, patience: float = 300) -> dict[str, Any]:
        """What a command of the adapter answers."""
        done = subprocess.run(
            [*command(self.name), *map(str, arguments)],
            env=self._variables(trial, workers=1),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
        for line in reversed(done.stdout.splitlines()):
            if line.startswith("ANSWER "):
                answer: dict[str, Any] = json.loads(line.removeprefix("ANSWER "))
                return answer
        raise Failed(f"{self.name} {arguments}: {done.stderr[-1500:]}")

    def filled(self, n: int, kind: str = "noop", beside: Sequence[str] = ()) -> Filled:
        """A template in which `n` tasks are queued by the batch API, after the statements of `beside` were run."""
        key = f"{self.name}_{n}_{kind}_{len(self._templates)}"
        known = f"{n} {kind} {beside}"
        if known not in self._templates:
            self.postgres.create(key, self._empty)
            for statement in beside:
                self.postgres.execute(statement, key)
            before = self.done(key)
            start = self.postgres.wal()
            self.call(Trial(key, self._scratch, n), "bulk", "--n", n, "--kind", kind)
            wal = self.postgres.wal() - start
            self.postgres.execute("vacuum (analyze)", key)
            self._templates[known] = Filled(key, n, wal, before)
        return self._templates[known]

    def forget(self) -> None:
        """Drop the filled templates, which may be large."""
        for template in self._templates.values():
            self.postgres.drop(template.name)
        self._templates.clear()

    @contextmanager
    def trial(self, slots: int, template: Filled | None = None) -> Iterator[Trial]:
        """A fresh database with room for the records of `slots` tasks."""
        name = f"{self.name}_trial"
        self.postgres.create(name, template.name if template else self._empty)
        records = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield Trial(name, records, slots)
        finally:
            self.postgres.drop(name)
            shutil.rmtree(records, ignore_errors=True)

    @contextmanager
    def workers(self, trial: Trial, n: int, concurrency: int = 100) -> Iterator[list[psutil.Process]]:
        """`n` worker processes, for the length of a `with` block; yields what was started, for us the supervisor."""
        supervised = bool(self.described["supervised"])
        asked = [*command(self.name), "worker", "--concurrency", str(concurrency)]
        started = []
        try:
            for _ in range(1 if supervised else n):
                log = (trial.records / "log").open("a")
                running = subprocess.Popen(
                    asked,
                    env=self._variables(trial, workers=n),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                started.append(running)
            yield [psutil.Process(each.pid) for each in started]
        finally:
            stop(started)

    def drain(self, trial: Trial, records: Records, n: int, patience: float) -> float:
        """Wait until `n` tasks have started and all that started is finished in the database; that moment.

        Raises:
            Failed: it stands still, or takes longer than `patience` seconds.
        """
        began = moved = time.monotonic()
        seen = 0
        with self.postgres.connect(trial.database) as connection:
            while True:
                started, now = records.started(), time.monotonic()
                if started > seen:
                    seen, moved = started, now
                if started >= n:
                    row = connection.execute(self.described["pending"].encode()).fetchone()
                    assert row
                    if not row[0]:
                        return time.monotonic()
                if now - began > patience or now - moved > SETTLED:
                    said = (trial.records / "log").read_text(errors="replace")[-600:]
                    raise Failed(f"{self.name}: only {started} of {n} tasks in {now - began:.0f} s. {said}")
                time.sleep(0.01)

    def verify(self, trial: Trial, records: Records, n: int, before: int = 0) -> None:
        """Make sure, from the records and from the database, that all `n` tasks ran, and only once.

        Raises:
            Failed: they did not.
        """
        runs = records.runs()
        if runs != Runs(ran=n, twice=0):
            raise Failed(f"{self.name}: of {n} tasks {runs.ran} ran and {runs.twice} ran twice.")
        done = self.done(trial.database) - before
        if self.described["done"] and done != n:
            raise Failed(f"{self.name}: {done} of {n} tasks are done in the database.")

    def done(self, database: str) -> int:
        """How many tasks succeeded by what the database says; 0 for a peer that deletes them."""
        return int(self.postgres.ask(self.described["done"], database)) if self.described["done"] else 0

    def _variables(self, trial: Trial | None, workers: int) -> dict[str, str]:
        own = variables(self.name) | {"BENCH_WORKERS": str(workers)}
        if trial is not None:
            own |= {
                "BENCH_DSN": self.postgres.dsn(trial.database),
                "BENCH_RECORDS": str(trial.records),
                "BENCH_SLOTS": str(trial.slots),
            }
        return own


def cpu_by_part(started: Sequence[psutil.Process]) -> dict[str, float]:
    """Seconds of CPU of what was started (a supervisor) and of what that started (its workers)."""
    return {
        "started": sum(cpu_of(process) for process in started),
        "children": sum(cpu_of(child) for process in started for child in process.children(recursive=True)),
    }


def stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and what they started, in some five seconds."""
    for process in started:
        process.terminate()
    deadline = time.monotonic() + 5
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.05, deadline - time.monotonic()))
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
