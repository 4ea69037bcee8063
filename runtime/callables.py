"""The functions that a worker process runs for tasks: found by their references, looked for once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from .codec import Decoder, decoder_of
from .errors import InvalidTask
from .functions import AllowList, FunctionNotAllowed, UnknownFunction, executor_of, options_of, resolve
from .lifecycle import message_of
from .task import LOCAL, Executor, Stance

_LOCAL: Final = f"{LOCAL}:"
_MOST_STRANGE: Final = 10_000


class Function:
    """A task function and what it declared."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.is_async = executor_of(call) is Executor.ASYNC
        self.options = options_of(call)

    @cached_property
    def decode(self) -> Decoder:
        """What makes the arguments to call it with of those that are stored."""
        return decoder_of(self.call)


class NotRunHere(Exception):
    """A task's function can't be run in this process; another server, or another version, may know it."""

    def __init__(self, stance: Stance) -> None:
        self.stance = stance


class Functions:
    """The task functions of this process. `imported` is called after each new one: its module may have just run.

    What can't be found is looked for once: its module may take long to fail.
    """

    def __init__(self, allowed: AllowList, imported: Callable[[], None]) -> None:
        self._allowed = allowed
        self._imported = imported
        self._known: dict[str, Function] = {}
        self._strange: dict[str, Stance] = {}

    def get(self, reference: str, *, verified: bool = False) -> Function:
        """The function that `reference` names, or holds, which is looked at only in a `verified` task.

        Raises:
            NotRunHere: it is unknown here, or not allowed.
            InvalidTask: it can't be run anywhere.
        """
        known = self._known.get(reference)
        if known is None and reference.startswith(_LOCAL):
            return Function(self._loaded(reference, verified))
        if known is None:
            known = self._known[reference] = Function(self._resolved(reference))
            self._imported()
        return known

    def stance(self, reference: str) -> Stance:
        """Whether the function that `reference` names can be run here."""
        try:
            self.get(reference)
        except NotRunHere as error:
            return error.stance
        return Stance(reference, "known")

    def _resolved(self, reference: str) -> Callable[..., Any]:
        if stance := self._strange.get(reference):
            raise NotRunHere(stance)
        try:
            return resolve(reference, self._allowed)
        except UnknownFunction as error:
            stance = Stance(reference, "unknown", message_of(error))
        except FunctionNotAllowed as error:
            stance = Stance(reference, "refused", message_of(error))
        if len(self._strange) >= _MOST_STRANGE:
            self._strange.clear()
        self._strange[reference] = stance
        raise NotRunHere(stance)

    def _loaded(self, reference: str, verified: bool) -> Callable[..., Any]:
        from .local import load  # only now: few need it

        if not verified:
            raise InvalidTask(
                "a local function runs only in a task whose signature was checked: set QUEUE_SECRET_KEY for this server"
            )
        return load(reference, only_decorated=self._allowed.only_decorated)
