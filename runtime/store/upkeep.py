"""Upkeep of the tables, in bounded batches."""

from __future__ import annotations

from .link import Link

_FIRST = 1_000  # tasks of a line


class Upkeep:
    """Each duty may be done by any server at any time; two that do it at once do it half each, or one for nothing."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def take(self, duty: str, every: float) -> bool:
        """Whether this server is the one to do what is to be done every so many seconds, by one server at a time."""
        return bool(await self._link.fetch_value("take_duty", duty, every))

    async def promote(self, limit: int) -> tuple[int, float | None]:
        """Let up to `limit` delayed tasks that are due into line: how many, and seconds until the next is due."""
        row = await self._link.fetch_one("promote", limit)
        assert row is not None
        return row["lined"], row["next_in"]

    async def promote_inbox(self, limit: int) -> tuple[int, int]:
        """Give up to `limit` posted tasks their places, and do what SQL wants cancelled: how many, how many may run."""
        row = await self._link.fetch_one("promote_inbox", limit)
        assert row is not None
        if row["cancels"]:
            await self._link.fetch("cancel_posted", limit)
        return row["taken"] + row["cancels"], row["lined"]

    async def sweep_children(self, limit: int) -> int:
        """Let go of children whose parents have all ended, should any have been left; how many were found."""
        return int(await self._link.fetch_value("sweep_children", limit))

    async def add_keys(self, limit: int) -> int:
        """Let up to about `limit` tasks without a key that stood in line before their channel had a limit per key take
        turns, too; how many."""
        return int(await self._link.fetch_value("add_keys", limit))

    async def sweep_tokens(self) -> int:
        """Mend what limited channels hold of tasks that are gone; how many were found."""
        return int(await self._link.fetch_value("sweep_tokens"))

    async def end_refused(self, limit: int) -> tuple[int, int]:
        """End up to `limit` tasks that no server may run, now that others left: how many, how many others may run."""
        row = await self._link.fetch_one("end_refused", limit)
        assert row is not None
        return row["ended"], row["lined"]

    async def prune(self, retention: float, limit: int) -> int:
        """Remove up to `limit` tasks that ended more than `retention` seconds ago; how many."""
        return int(await self._link.fetch_value("prune", retention, limit))

    async def prune_traces(self, retention: float) -> None:
        """Remove what is remembered of removed tasks and of servers that ended `retention` seconds ago."""
        await self._link.fetch("prune_traces", retention)
        await self._link.fetch("prune_waiters")
        await self._link.fetch("prune_functions", _FIRST)

    async def remove_lingering(self, limit: int) -> int:
        """Remove up to `limit` tasks that only stayed for those who waited for their results; how many."""
        return int(await self._link.fetch_value("remove_lingering", limit))
