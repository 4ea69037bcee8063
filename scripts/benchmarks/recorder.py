"""What ran and when, in a memory-mapped file per process: the truth about starts that no queue's own tables can colour.

A file holds a header of eight doubles (starts, first start, last start, ends), then per task the time of its first
start (a double), how often it started and how often it ended (32 bits each). Times are those of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADER = 64
PER_TASK = 16


class Columns:
    """The columns of one file, over its mapped memory."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        view = memoryview(memory)
        self.header = view[:HEADER].cast("d")
        self.first = view[HEADER : HEADER + slots * 8].cast("d")
        self.runs = view[HEADER + slots * 8 : HEADER + slots * 12].cast("I")
        self.ends = view[HEADER + slots * 12 : HEADER + slots * PER_TASK].cast("I")


class Recorder(Columns):
    """Writes the file of this process."""

    def __init__(self, path: Path, slots: int) -> None:
        with path.open("w+b") as file:
            file.truncate(HEADER + slots * PER_TASK)
            super().__init__(mmap.mmap(file.fileno(), HEADER + slots * PER_TASK), slots)
        self._lock = threading.Lock()

    def start(self, task: int, at: float | None = None) -> None:
        """Note that a task starts, now or `at`."""
        now = time.monotonic() if at is None else at
        with self._lock:
            if not self.runs[task]:
                self.first[task] = now
            self.runs[task] += 1
            self.header[0] += 1
            if not self.header[1]:
                self.header[1] = now
            self.header[2] = now

    def end(self, task: int) -> None:
        """Note that a task has ended."""
        with self._lock:
            self.ends[task] += 1
            self.header[3] += 1


_own: dict[tuple[int, str], Recorder] = {}


def recorder(role: str = "run") -> Recorder:
    """The recorder of this process for starts (`run`) or for enqueues (`enqueue`)."""
    key = (os.getpid(), role)
    if key not in _own:
        path = Path(os.environ["BENCH_RECORDS"], f"{role}-{os.getpid()}.rec")
        _own[key] = Recorder(path, int(os.environ["BENCH_SLOTS"]))
    return _own[key]


@dataclass(frozen=True)
class Runs:
    """How often the tasks of a trial ran."""

    ran: int
    twice: int


class Records:
    """Reads the files of one role in a folder, while they are written."""

    def __init__(self, folder: Path, role: str = "run") -> None:
        self._folder, self._role = folder, role
        self._files: dict[str, Columns] = {}

    def files(self) -> Iterable[Columns]:
        """The files that are there by now."""
        for path in self._folder.glob(f"{self._role}-*.rec"):
            size = path.stat().st_size
            if path.name not in self._files and size > HEADER:
                with path.open("rb") as file:
                    memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
                self._files[path.name] = Columns(memory, (size - HEADER) // PER_TASK)
        return self._files.values()

    def started(self) -> int:
        """How many starts there were."""
        return int(sum(file.header[0] for file in self.files()))

    def first(self) -> float:
        """When the first task started."""
        return min(file.header[1] for file in self.files() if file.header[1])

    def last(self) -> float:
        """When the last task started."""
        return max(file.header[2] for file in self.files())

    def starts(self) -> list[float]:
        """When each process started its first task, in order."""
        return sorted(file.header[1] for file in self.files() if file.header[1])

    def timeline(self) -> list[float]:
        """All first starts, in order."""
        return sorted(at for file in self.files() for at in file.first.tolist() if at)

    def by_task(self) -> dict[int, float]:
        """The first start of each task."""
        found: dict[int, float] = {}
        for file in self.files():
            for task, at in enumerate(file.first.tolist()):
                if at:
                    found[task] = min(at, found.get(task, at))
        return found

    def runs(self) -> Runs:
        """How often the tasks ran."""
        counts = [sum(each) for each in zip(*(file.runs.tolist() for file in self.files()), strict=True)]
        return Runs(ran=sum(1 for count in counts if count), twice=sum(1 for count in counts if count > 1))
