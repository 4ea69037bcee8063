"""Worker processes: start one, talk to it, notice its death; and what the child owes its parent."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import inspect
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, get_context, resource_tracker
from multiprocessing.connection import Connection
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import msgspec
import uvloop
from aiomultiprocess.core import Process
from aiomultiprocess.types import Unit

from .framing import FrameReader, Mailbox
from .stacks import QUESTION, Account, answer_questions, read

A = TypeVar("A")
T = TypeVar("T")

AsyncEntry: TypeAlias = Callable[[socket.socket, A], Coroutine[Any, Any, None]]
BlockingEntry: TypeAlias = Callable[[socket.socket, A], None]

_GROUP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG: Final = 1
_LAST_WORDS: Final = 1.0  # seconds in which a dead child's socket must end, even if a grandchild holds it open
_UNKNOWN: Final = 255  # the exit code of a child that something else in this process reaped
_READ_SIZE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory in bytes, and the seconds that a CPU has worked."""

    memory: int
    cpu_seconds: float


class WorkerProcess(Process):  # type: ignore[misc]  # aiomultiprocess ships no types
    """A child process that runs `entry(socket, argument)`, with a mailbox at this end of the socket.

    An `async def` entry runs on a uvloop event loop, a plain one on the main thread without any. Both are importable
    by name and the argument is picklable and small: it is written to the child before the child reads.

    The child is started anew (spawn), with this process's sys.path but without its main module. It dies with this
    process, and with the thread that calls `spawn`: do so on the main thread.
    """

    def __init__(self, entry: AsyncEntry[A] | BlockingEntry[A], argument: A) -> None:
        # The inherited constructor would start a manager process, whose death bars any new worker.
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._entry = entry
        self._argument = argument
        self._pid: int | None = None
        self._exit_code: int | None = None
        self._mailbox: Mailbox[Any]
        self._answers: Connection
        self._said = b""

    async def spawn(
        self,
        decoder: msgspec.msgpack.Decoder[T],
        on_message: Callable[[T], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        """Start the child and connect its mailbox; messages may come before this returns. Once per object.

        Blocks the loop for the few milliseconds that a process takes to start.
        """
        mine, theirs = socket.socketpair()
        self._answers, answers = Pipe(duplex=False)
        os.set_blocking(self._answers.fileno(), False)
        self._mailbox = Mailbox(decoder, on_message, lambda error: self._hung_up(error, on_closed))
        try:
            with theirs, answers:
                self._start(theirs, answers)
            self._watch()
            await self._mailbox.connect(mine)
        except BaseException:
            mine.close()
            self._answers.close()
            self._mailbox.abort()
            self.kill()
            raise

    def send(self, message: object) -> None:
        """Send to the child; see `Mailbox.send`. To a dead one it says nothing."""
        self._mailbox.send(message)

    @property
    def exited(self) -> asyncio.Future[int]:
        """The exit code to be (negative: the signal); to give up waiting for it harms nobody.

        It is there within milliseconds of the child's death, after `on_closed` and all messages that the child had
        written and this process could still read.
        """
        return asyncio.shield(self._exited)

    @property
    def write_paused(self) -> bool:
        """Whether the child reads more slowly than this process sends."""
        return self._mailbox.write_paused

    @property
    def pid(self) -> int | None:
        """The process id, kept after death; None before `spawn`."""
        return self._pid

    def kill(self) -> None:
        """End the child by SIGKILL; nothing happens if it is dead already."""
        if self._pid is not None and self._exit_code is None:
            self.aio_process.kill()

    def ask(self) -> None:
        """Let the child say what its main thread is doing, however busy that is; see `account`."""
        self.account()  # what is left of an earlier answer
        self._said = b""
        if self._pid is not None and self._exit_code is None:
            os.kill(self._pid, QUESTION)

    def account(self) -> Account | None:
        """What the child has said by now; None: nothing, not even its kernel let it answer."""
        with suppress(BlockingIOError):
            while self._exit_code is None and (said := os.read(self._answers.fileno(), _READ_SIZE)):
                self._said += said
        return read(self._said.decode(errors="replace"))

    def usage(self) -> Usage:
        """What the child takes now, its own children not counted; nothing when it is dead."""
        import psutil  # only now: a child, which imports this module, too, has no use for it

        with suppress(psutil.Error):
            if self._exit_code is None:
                child = psutil.Process(self._pid)
                times = child.cpu_times()
                return Usage(child.memory_info().rss, times.user + times.system)
        return Usage(0, 0.0)

    def _start(self, theirs: socket.socket, answers: Connection) -> None:
        arguments = (self._entry, theirs, answers, os.getpid(), self._argument)
        context = get_context("spawn")
        if inspect.iscoroutinefunction(self._entry):
            unit = Unit(child_main, arguments, {}, None, loop_initializer=uvloop.new_event_loop)
            self.aio_process = context.Process(target=Process.run_async, args=(unit,))
        else:
            self.aio_process = context.Process(target=run_child_blocking, args=arguments)
        resource_tracker.ensure_running()  # unblocks the signals when it starts, so before they are blocked
        with _group_signals_blocked(), _without_main_module():
            self.aio_process.start()
        self._pid = self.aio_process.pid
        # At exit multiprocessing waits for its children, for ever if they ignore its SIGTERM. This runs before.
        atexit.register(self.kill)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        death = _death_of(self.aio_process.pid, self.aio_process.sentinel)

        def died() -> None:
            loop.remove_reader(death)
            os.close(death)
            self._buried()

        loop.add_reader(death, died)

    def _buried(self) -> None:
        # Without a timeout: that one would wait for the sentinel, which a grandchild may hold open. The sentinel also
        # fires a moment before the exit code is there.
        self.aio_process.join()
        code = self.aio_process.exitcode
        atexit.unregister(self.kill)
        self._answers.close()
        self._exit_code = _UNKNOWN if code is None else code
        if code is not None:
            self.aio_process.close()
        if self._mailbox.closed:
            self._report()
        else:
            asyncio.get_running_loop().call_later(_LAST_WORDS, self._mailbox.abort)

    def _hung_up(self, error: Exception | None, on_closed: Callable[[Exception | None], None]) -> None:
        try:
            on_closed(error)
        finally:
            self._report()

    def _report(self) -> None:
        if self._exit_code is not None and not self._exited.done():
            self._exited.set_result(self._exit_code)


async def child_main(entry: AsyncEntry[A], sock: socket.socket, answers: Connection, parent: int, argument: A) -> None:
    """Run `entry` in the child of process `parent`, on the loop that is running."""
    _grow_up(sock, answers, parent)
    await entry(sock, argument)


def run_child_blocking(
    entry: BlockingEntry[A], sock: socket.socket, answers: Connection, parent: int, argument: A
) -> None:
    """Run `entry` in the child of process `parent`, on the main thread and without an event loop.

    A signal handler that raises can interrupt what the main thread runs; a thread that `entry` starts reads
    `messages_from_parent`.
    """
    _grow_up(sock, answers, parent)
    entry(sock, argument)


def _grow_up(sock: socket.socket, answers: Connection, parent: int) -> None:
    adopt_parent(parent)
    sock.set_inheritable(False)
    answer_questions(answers)


def adopt_parent(parent: int) -> None:
    """Leave SIGINT and SIGTERM to process `parent`, and die when it dies, however busy this process is.

    Call it on the main thread. Where the kernel doesn't tell a child of its parent's death (not Linux), only the end
    of the socket does: see `open_parent_mailbox` and `messages_from_parent`.
    """
    # Not SIG_IGN, which programs that a task starts would inherit: their terminate() would do nothing.
    for number in _GROUP_SIGNALS:
        signal.signal(number, _leave_to_parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _orphaned()  # it died before the line above


async def open_parent_mailbox(
    sock: socket.socket, decoder: msgspec.msgpack.Decoder[T], on_message: Callable[[T], None]
) -> Mailbox[T]:
    """Connect the child's end of the mailbox; its loss (not its `close`) ends this process, with exit code 1."""

    def lost(error: Exception | None) -> None:
        if not mailbox.closing:
            _orphaned(error)

    mailbox = Mailbox(decoder, on_message, lost)
    await mailbox.connect(sock)
    return mailbox


def messages_from_parent(sock: socket.socket, decoder: msgspec.msgpack.Decoder[T]) -> Iterator[T]:
    """Yield the parent's messages, blocking; the loss of `sock` ends this process at once, with exit code 1."""
    reader = FrameReader(decoder)
    with suppress(ConnectionError):
        while received := sock.recv(_READ_SIZE):
            yield from reader.feed(received)
    _orphaned()


def _orphaned(error: Exception | None = None) -> NoReturn:
    if error is not None and not isinstance(error, ConnectionError):
        traceback.print_exception(error)
        sys.stderr.flush()
    os._exit(1)


def _leave_to_parent(_number: int, _frame: FrameType | None) -> None:
    """What the whole process group is told, the parent is told, too; it decides."""


def _death_of(pid: int | None, sentinel: int) -> int:
    """A file descriptor that becomes readable when the child is dead; the caller closes it."""
    assert pid is not None
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a container that forbids it
        return os.dup(sentinel)


@contextmanager
def _group_signals_blocked() -> Iterator[None]:
    """The child inherits the block, so that no Ctrl-C can end it before it has its handlers; here they wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Spawn runs the parent's main script again in each child; a worker needs none of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
