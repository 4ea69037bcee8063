"""Visitors of the demo's application: real HTTP requests, a mix of them, until cancelled."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

_NAMES = ("ann", "bo", "cleo", "dan", "eve", "fay", "gus", "hana", "ivo", "joy")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
_EVERY = {"signups": 0.8, "orders": 4.0, "images": 2.5, "reports": 7.0}  # seconds, on average


class Traffic:
    """Counts the requests that were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answered = 0
        self._orders = 1000

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            for path, pause in _EVERY.items():
                group.create_task(self._visit(path, pause))

    async def _visit(self, path: str, pause: float) -> None:
        await asyncio.sleep(random.uniform(0, 0.5))  # noqa: S311  # the look of traffic, no secret
        while True:
            with suppress(OSError, URLError):  # the application is ending
                await asyncio.to_thread(self._post, self._request(path))
                self.answered += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)  # noqa: S311

    def _request(self, path: str) -> str:
        match path:
            case "signups":
                return f"signups?email={quote(random.choice(_NAMES))}@example.com"  # noqa: S311
            case "orders":
                self._orders += 1
                return f"orders?number={self._orders}"
            case "images":
                return f"images?width={random.choice((320, 640, 1280))}"  # noqa: S311
            case _:
                return f"reports?month={random.choice(_MONTHS)}"  # noqa: S311

    def _post(self, request: str) -> None:
        with urlopen(Request(f"{self._url}/{request}", method="POST"), timeout=10):  # noqa: S310  # our own URL
            pass
