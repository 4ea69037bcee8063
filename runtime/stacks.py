"""What a worker's main thread is doing: asked by a signal, answered even while it is held up in C code.

The answer is written to a pipe, in two parts. The first is a dump by faulthandler, from within the handler
in C. The second comes from Python, as soon as it gets its turn, and names the attempt on whose behalf the thread runs;
code in C that keeps the interpreter to itself delays it for as long as it takes. For such a case the dump has a mark:
the frame that an attempt runs in is named after its number.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, Final, TypeVar, cast

from .current import get_running

F = TypeVar("F", bound=Callable[..., Any])

# Who has no handler for it ignores it, and it doesn't pile up while a process is frozen.
QUESTION: Final = signal.SIGURG
MARKS: Final = 64  # different ones

_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_MARK: Final = re.compile(r"<attempt (\d+)>")
_SAYS: Final = re.compile(r"^attempt (\d*);$", re.MULTILINE)
_EXECUTE: Final = str(Path(__file__).with_name("execute.py"))
_RUNNER: Final = re.compile(r"/(uvloop/__init__|asyncio/runners)\.py$")


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in a program; `line` 0 is unknown."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Account:
    """What a process said. `frames`: those of the user's code, innermost first.

    `told`: Python had its turn; then `attempt` is the number of the attempt that runs, None for what belongs to none.
    `mark`: the attempt's number modulo MARKS, None where the dump shows no attempt.
    """

    frames: tuple[Frame, ...]
    mark: int | None
    told: bool
    attempt: int | None

    def points_at(self, attempt: int) -> bool:
        """Whether this may be what the attempt of that number does."""
        return attempt == self.attempt if self.attempt is not None else attempt % MARKS == self.mark

    @property
    def place(self) -> str:
        """Where it is, for people; empty where it doesn't tell."""
        if not self.frames:
            return ""
        frame = self.frames[0]
        return f"{frame.file}:{frame.line} in {frame.function}"

    @property
    def traceback(self) -> str | None:
        """The same as a traceback shows it."""
        lines = [f'  File "{frame.file}", line {frame.line}, in {frame.function}\n' for frame in reversed(self.frames)]
        return "".join(["Stack (most recent call last):\n", *lines]) if lines else None


def read(text: str) -> Account | None:
    """The account that a process gave, as far as it has come; None: it said nothing."""
    says = _SAYS.search(text)
    frames = [Frame(file, int(line), name) for file, line, name in _FRAME.findall(text)]
    if says is None and not frames:
        return None
    marks = [int(found[1]) for frame in frames if (found := _MARK.fullmatch(frame.function))]
    return Account(
        tuple(_of_users(frames)),
        marks[0] if marks else None,
        says is not None,
        int(says[1]) if says and says[1] else None,
    )


def _of_users(frames: list[Frame]) -> Iterator[Frame]:
    """The frames without those around them that call every task."""
    for frame in frames:
        if frame.file == _EXECUTE or _RUNNER.search(frame.file):
            return
        yield frame


def answer_questions(to: Connection) -> None:
    """Let this process answer on `to`, the end of a pipe. Call it on the main thread."""
    file = to.fileno()
    os.set_inheritable(file, False)
    os.set_blocking(file, False)  # an answer that nobody reads must not hold this process up

    def tell(_number: int, _frame: FrameType | None) -> None:
        running = get_running()
        with suppress(OSError):
            os.write(file, f"\nattempt {'' if running is None else running.attempt.no};\n".encode())

    signal.signal(QUESTION, tell)
    faulthandler.register(QUESTION, file=file, all_threads=False, chain=True)


def marked(function: F) -> list[F]:
    """The twins of a plain function, by mark: their frames carry the mark in their name."""
    original = cast("FunctionType", function)

    def twin(mark: int) -> F:
        name = f"<attempt {mark}>"
        code = original.__code__.replace(co_name=name, co_qualname=name)
        return cast("F", FunctionType(code, original.__globals__, name, original.__defaults__, original.__closure__))

    return [twin(mark) for mark in range(MARKS)]
