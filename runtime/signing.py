"""Sign what an enqueuer decides, so that a row that was altered, or made by hand, is found out. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from .errors import ConfigurationError
from .settings import Settings
from .task import Claimed, NewTask

_VERSION = b"queued-tasks 1\0"
_UNSIGNED = (
    "the task is not signed: it was written by hand, or by a process without QUEUE_SECRET_KEY; give that process the "
    "key, or list the function in QUEUE_ALLOW_UNSIGNED"
)
_ALTERED = (
    "the task does not match its signature: its row was altered, or it was signed with a key that is not in "
    "QUEUE_SECRET_KEY here"
)
_EPOCH = datetime.fromtimestamp(0, UTC)
_FIELDS = tuple(name for name in NewTask.__struct_fields__ if name != "signature")


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


class Seals:
    """Decides by its signature whether a stored task may run. `allow_unsigned`: functions whose tasks need none."""

    def __init__(self, signer: Signer, allow_unsigned: Collection[str] = ()) -> None:
        self._signer = signer
        self._allow_unsigned = frozenset(allow_unsigned)

    @classmethod
    def of(cls, settings: Settings) -> Seals | None:
        """Those of these settings; None without a key, when nothing is checked."""
        signer = signer_of(settings)
        return None if signer is None else cls(signer, settings.allow_unsigned)

    def flaw(self, claimed: Claimed) -> str | None:
        """Why a claimed task must not run; None when it may."""
        if claimed.signature is not None:
            try:
                return self.flaw_of(claimed.as_written())
            except (ValueError, TypeError, AttributeError):  # what somebody wrote by hand is not even of the right kind
                return _ALTERED
        return None if claimed.function in self._allow_unsigned else _UNSIGNED

    def flaw_of(self, task: NewTask) -> str | None:
        """The same for a row as it was written."""
        if task.signature is None:
            return None if task.function in self._allow_unsigned else _UNSIGNED
        return None if self._signer.accepts(task) else _ALTERED


def signer_of(settings: Settings) -> Signer | None:
    """The signer with the keys of QUEUE_SECRET_KEY; None without one.

    Raises:
        ConfigurationError: a key is empty.
    """
    return None if settings.secret_key is None else Signer.of(settings.secret_key.get_secret_value())


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, _VERSION + message, hashlib.sha256)


def _message(task: NewTask) -> bytes:
    # a JSON array: no two different tasks have the same one, whatever their texts hold
    return msgspec.json.encode([_plain(getattr(task, name)) for name in _FIELDS])


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)  # asyncpg reads infinity as a naive datetime.max
        return (aware - _EPOCH) // timedelta(microseconds=1)  # as PostgreSQL keeps it
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, UUID) else value
