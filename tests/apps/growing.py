"""Task functions that keep memory for good."""

from __future__ import annotations

import os

from tests.apps.work import hold

kept: list[bytearray] = []


def _keep(mib: int) -> None:
    kept.append(bytearray(os.urandom(1024) * 1024 * mib))


async def leak(mib: int) -> int:
    """The process in which it ran."""
    _keep(mib)
    return os.getpid()


def leak_plainly(mib: int) -> int:
    _keep(mib)
    return os.getpid()


async def leak_and_hold(mib: int, folder: str) -> int:
    _keep(mib)
    return await hold(folder)
