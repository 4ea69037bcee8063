"""Sign what an enqueuer decides, so that a row that was altered, or made by hand, is found out. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from .errors import ConfigurationError
from .task import NewTask

_VERSION = b"queued-tasks 1\0"
_FIELDS = tuple(name for name in NewTask.__slots__ if name != "signature")


class Signer:
    """HMAC-SHA256 (RFC 2104) with the first of its keys; each of them is accepted, so that keys can be rotated.

    Raises:
        ConfigurationError: a key is empty.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys or not all(keys):
            raise ConfigurationError("QUEUE_SECRET_KEY holds an empty key: separate keys by commas, the newest first.")
        self._keys = [key.encode() for key in keys]

    @classmethod
    def of(cls, secret: str) -> Signer:
        """A signer with the keys of a setting, separated by commas, the newest first."""
        return cls([key.strip() for key in secret.split(",")])

    def sign(self, task: NewTask) -> bytes:
        """The signature of `task`, whatever `task.signature` is: 32 bytes."""
        return _mac(self._keys[0], _message(task))

    def accepts(self, task: NewTask) -> bool:
        """Whether `task.signature` is that of one of the keys over exactly these fields."""
        if task.signature is None:
            return False
        message = _message(task)
        return any(hmac.compare_digest(task.signature, _mac(key, message)) for key in self._keys)


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, _VERSION + message, hashlib.sha256)


def _message(task: NewTask) -> bytes:
    # a JSON array: no two different tasks have the same one, whatever their texts hold
    return msgspec.json.encode([_plain(getattr(task, name)) for name in _FIELDS])


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000_000)  # as PostgreSQL keeps it
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, UUID) else value
