"""What JSON, PostgreSQL or a worker could not read back, and the words for it. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Set

from pydantic_core import from_json

_PARSED_FROM = 400  # bytes; the shortest text that may nest deeper, or hold a longer number, than a reader accepts
_SIGNS = re.compile(rb"[\\NI*]")  # one of them is in each flaw that a text can show
_UNKNOWN = re.compile(r"Unable to serialize unknown type: <class '(.+?)'>")
MASK = b"**********"
NAN = "holds NaN or Infinity, which JSON can't keep: pass None or text instead"
_NUL = "holds a NUL character, which PostgreSQL can't keep: remove it, or pass bytes"
DEEP = "is nested too deeply, or holds a number of too many digits: pass it as text"
MASKED = "holds a secret, which JSON masks: let the task read it from where it is kept"


def is_sound(text: bytes) -> bool:
    """Whether nothing in it needs another look; cheap, for it is asked of everything."""
    return len(text) <= _PARSED_FROM and _SIGNS.search(text) is None


def are_sound(texts: Collection[bytes]) -> bool:
    """Whether each of them is."""
    return max(map(len, texts), default=0) <= _PARSED_FROM and _SIGNS.search(b"".join(texts)) is None


def is_readable(text: bytes) -> bool:
    """Whether a reader accepts its nesting and its numbers."""
    if len(text) <= _PARSED_FROM:
        return True
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def may_be_flawed(text: bytes) -> bool:
    """Whether a look inside is due: a string may hold these letters, too."""
    return b"\\u0000" in text or b"NaN" in text or b"Infinity" in text


def _inside(value: object) -> Iterator[object]:
    """`value` and all that it holds, keys too."""
    rest = [value]
    while rest:
        item = rest.pop()
        yield item
        if isinstance(item, Mapping):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            rest += item


def flaw_in(value: object) -> str | None:
    """What can't be kept in `value`, however deep: NUL, NaN or Infinity."""
    for item in _inside(value):
        if isinstance(item, str) and "\0" in item:
            return _NUL
        if isinstance(item, float) and not math.isfinite(item):
            return NAN
    return None


def holds_nan(value: object) -> bool:
    """Whether NaN or Infinity is in `value`: faster than `flaw_in` for much data, without a word on where."""
    try:
        json.dumps(
            value, allow_nan=False, skipkeys=True, default=lambda other: list(other) if isinstance(other, Set) else None
        )
    except ValueError:
        return True
    return False


def holds_secret(value: object) -> bool:
    """Whether a pydantic Secret is in `value`, however deep."""
    return any(hasattr(item, "get_secret_value") for item in _inside(value))


def odd_key(value: object) -> str | None:
    """What is wrong with the keys in `value`, which JSON would turn into text."""
    odd = [key for item in _inside(value) if isinstance(item, Mapping) for key in item if not isinstance(key, str)]
    return f"has the key {odd[0]!r:.60}, which is no text: use str keys" if odd else None


def reason_of(error: Exception) -> str:
    """What pydantic's serializer means, and the cure."""
    text = str(error)
    unknown = _UNKNOWN.search(text)
    if unknown:
        return f"holds a {unknown[1]}, which JSON can't keep: pass plain data, or an id by which the task loads it"
    if "surrogates not allowed" in text:
        return "holds a lone surrogate, which is no text: decode it with its right encoding, or pass bytes"
    if "Circular reference" in text:
        return "contains itself, which JSON can't: pass a tree"
    if "depth" in text:
        return DEEP
    if "utf-8" in text:
        return "holds bytes that are no UTF-8: set ser_json_bytes and val_json_bytes to 'base64' in its model_config"
    return f"can't be kept as JSON: {text.splitlines()[0] if text else type(error).__name__}"
