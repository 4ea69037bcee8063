"""Functions without a name to import them by, as text: pickled by value, for tasks whose signature is checked."""

from __future__ import annotations

import base64
import importlib.util
import pickle
import pickletools
import sys
from collections.abc import Callable
from typing import Final, cast

from .errors import InvalidTask
from .functions import is_local
from .options import UNDECLARED, describe, options_of
from .task import LOCAL

MAX_BYTES: Final = 256 * 1024  # of the pickled function, what it captures included

# A closure pickled by one version of the bytecode loads on another without complaint, and then ends the interpreter.
TAG: Final = f"{sys.implementation.cache_tag}.{int.from_bytes(importlib.util.MAGIC_NUMBER[:2], 'little')}"

# operations of a pickle whose argument says where something stands, not what it is
_PLACES: Final = {"FRAME", "BINGET", "LONG_BINGET"}

__all__ = ["MAX_BYTES", "TAG", "constants_of", "dump", "is_local", "load"]


def dump(func: Callable[..., object]) -> str:
    """`<local>:qualname:version:base85`: what a worker makes the function from.

    Raises:
        InvalidTask: it captures what can't be pickled, or too much.
    """
    import cloudpickle  # only now: few need it

    try:
        pickled = cast("bytes", cloudpickle.dumps(func, protocol=5))
    except Exception as error:  # pickling runs code of what is captured
        raise InvalidTask(
            f"{describe(func)} can't be serialized ({type(error).__name__}: {error}): let it capture plain values "
            "only, and open connections and files inside it"
        ) from error
    if len(pickled) > MAX_BYTES:
        raise InvalidTask(
            f"{describe(func)} takes {len(pickled) // 1024} KiB with all that it captures, more than "
            f"{MAX_BYTES // 1024} KiB: give large values as arguments, or move the function to module level"
        )
    return f"{LOCAL}:{func.__qualname__}:{TAG}:{base64.b85encode(pickled).decode()}"


def constants_of(text: str) -> list[str]:
    """What the function that `dump` made `text` from consists of: another process that dumps the same one comes to the
    same, while the pickle itself differs by the order of sets.
    """
    pickled = base64.b85decode(text.split(":", 3)[3])
    return sorted({repr(value) for code, value, _ in pickletools.genops(pickled) if code.name not in _PLACES})


def load(text: str, *, only_decorated: bool) -> Callable[..., object]:
    """The function that `dump` made `text` from. To be called only for a task whose signature was verified.

    Raises:
        InvalidTask: another version of Python made it, or what it needs is not here.
    """
    _, qualname, tag, payload = (*text.split(":", 3), "", "", "")[:4]
    if tag != TAG:
        raise InvalidTask(
            f"the local function {qualname} was made by {tag}, and this worker is {TAG}: run the same Python on both "
            "sides, or move the function to module level"
        )
    try:
        func = pickle.loads(base64.b85decode(payload))  # noqa: S301  # signed by a holder of our key
    except Exception as error:  # unpickling runs code of what was captured
        raise InvalidTask(
            f"the local function {qualname} can't be loaded here ({type(error).__name__}: {error}): "
            "deploy the modules that it uses"
        ) from error
    if only_decorated and options_of(func) is UNDECLARED:
        raise InvalidTask(f"the local function {qualname} is not decorated: put @task on it")
    return cast("Callable[..., object]", func)
