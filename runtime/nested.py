"""A nested dictionary of JSON, reached by dotted paths, that knows what of it is still to be sent."""

from __future__ import annotations

import copy
import json
from threading import Lock
from typing import Final, cast

from .codec import MAX_RESULT_BYTES, encode_json
from .errors import InvalidState, SerializationError
from .task import Json

MAX_CONTEXT: Final = MAX_RESULT_BYTES  # characters of JSON
_ABSENT: Final = object()


class Context:
    """A nested dictionary of JSON values; safe to use from several threads.

    A change is committed when it is to be sent soon. One that is not stays here until a later one is: what is due is
    then kept as it was before.
    """

    __slots__ = ("_due", "_lock", "_reported", "_size", "_unsent", "_values")

    def __init__(self, stored: str | None = None) -> None:
        values = {} if stored is None else json.loads(stored)
        self._values: dict[str, Json] = values if isinstance(values, dict) else {}
        self._size = len(stored or "")  # at least the characters of its JSON
        self._unsent = False  # something has changed since it was taken
        self._reported = False  # a committed change is to be sent
        self._due: str | None = None  # what is to be sent, where that is not all
        self._lock = Lock()

    def get(self, path: str, default: Json = None) -> Json:
        found: Json = self._values
        for part in path.split("."):
            found = found.get(part, _ABSENT) if isinstance(found, dict) else _ABSENT
            if found is _ABSENT:
                return default
        return copy.deepcopy(found)

    def copy(self) -> dict[str, Json]:
        with self._lock:
            return copy.deepcopy(self._values)

    def set(self, path: str, value: object, *, commit: bool = True) -> bool:
        """Keep `value` at `path`; whether there is something to send now, and was not before."""
        *parents, last = _parts(path)
        text = encode_json({last: value})
        with self._lock:
            self._keep_due(commit)
            holder, made = self._holder(parents, path)
            before = holder.get(last, _ABSENT)
            holder[last] = json.loads(text)[last]
            try:
                self._grow(len(text) + len(path) + 8 * len(parents))
            except SerializationError:
                _put_back(holder, last, before)
                if made:
                    made[0].pop(made[1], None)
                raise
            return self._changed(commit)

    def replace(self, values: object, *, commit: bool = True) -> bool:
        """Keep `values` instead of all; whether there is something to send now, and was not before."""
        if not isinstance(values, dict):
            raise SerializationError(f"a context is a dictionary, not {values!r:.60}: give a dict")
        text = encode_json(values)
        with self._lock:
            self._keep_due(commit)
            self._values, self._size = json.loads(text), len(text)
            return self._changed(commit)

    def take(self) -> str | None:
        """The whole as JSON, if it changed since it was taken last."""
        if not self._unsent:
            return None
        with self._lock:
            return self._take_all()

    def take_committed(self) -> str | None:
        """The same without what is to stay here."""
        with self._lock:
            if self._due is None:
                return self._take_all() if self._reported else None
            text, self._due, self._reported = self._due, None, False
            return text

    def _holder(self, parents: list[str], path: str) -> tuple[dict[str, Json], tuple[dict[str, Json], str] | None]:
        """The dictionary that holds the end of `path`, and where the first one that had to be made for it stands."""
        holder, made = self._values, None
        for part in parents:
            inner = holder.get(part, _ABSENT)
            if inner is _ABSENT:
                made = made or (holder, part)
                inner = holder[part] = {}
            if not isinstance(inner, dict):
                raise InvalidState(
                    f"{part!r} of the path {path!r} holds {inner!r:.60}, not a dictionary: set that to a dict first"
                )
            holder = inner
        return holder, made

    def _grow(self, characters: int) -> None:
        size = self._size + characters
        if size > MAX_CONTEXT:
            size = len(encode_json(self._values))
        self._size = size

    def _take_all(self) -> str:
        self._unsent, self._reported, self._due = False, False, None
        text = encode_json(self._values)
        self._size = len(text)
        return text

    def _keep_due(self, commit: bool) -> None:
        if commit or not self._reported or self._due is not None:
            return
        self._due = encode_json(self._values)

    def _changed(self, commit: bool) -> bool:
        self._unsent = True
        if not commit:
            return False
        first, self._reported, self._due = not self._reported, True, None
        return first


def _parts(path: object) -> list[str]:
    if not isinstance(path, str) or not all(path.split(".")):
        raise SerializationError(f"{path!r:.60} is no path: give names with dots between them, like 'import.page'")
    encode_json(path)
    return path.split(".")


def _put_back(holder: dict[str, Json], key: str, before: object) -> None:
    if before is _ABSENT:
        del holder[key]
    else:
        holder[key] = cast("Json", before)
