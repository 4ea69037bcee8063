"""Where the queues meet: the server, the contestants, the sizes of the work, and what a workload has to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .contestant import Contestant
from .environments import OURS, PEERS, Failed
from .postgres import Postgres

Figures = dict[str, float | list[float]]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 3
    drain: int = 100_000
    sync: int = 50_000
    bulk: int = 50_000
    single: int = 4_000
    requests: int = 10_000
    calm: int = 110
    paced: int = 5_000
    shallow: int = 20_000
    deep: int = 500_000
    pinned: int = 300_000
    beside: int = 1_000_000
    rest: int = 50_000
    naps: int = 50_000
    idle_seconds: int = 15
    limit_seconds: int = 3


QUICK = Sizes(
    rounds=1,
    drain=5_000,
    sync=2_000,
    bulk=5_000,
    single=400,
    requests=500,
    calm=20,
    paced=1_000,
    shallow=5_000,
    deep=20_000,
    pinned=10_000,
    beside=20_000,
    rest=5_000,
    naps=5_000,
    idle_seconds=3,
    limit_seconds=1,
)


@dataclass(frozen=True)
class Case:
    """One column of a workload: a queue, or this one under a condition. `rounds` counts less for a slow comparison."""

    name: str
    measure: Callable[[], Figures]
    rounds: int | None = None


class Arena:
    """The server and who takes part."""

    def __init__(self, postgres: Postgres, scratch: Path, sizes: Sizes, peers: list[str]) -> None:
        self.postgres, self.scratch, self.sizes, self.peers = postgres, scratch, sizes, peers
        self._known: dict[str, Contestant] = {}
        self._missing: dict[str, str] = {}

    def contestant(self, name: str) -> Contestant:
        """A contestant, made ready when it is first asked for.

        Raises:
            Failed: it can't be installed or set up.
        """
        if name in self._missing:
            raise Failed(self._missing[name])
        if name not in self._known:
            try:
                self._known[name] = Contestant(name, self.postgres, self.scratch)
            except Failed as error:
                self._missing[name] = str(error)
                raise
        return self._known[name]

    @property
    def ours(self) -> Contestant:
        """This project."""
        return self.contestant(OURS)

    def present(self) -> dict[str, Contestant]:
        """Who took part so far."""
        return dict(self._known)

    def share(self, name: str, n: int) -> int:
        """How many of `n` tasks a peer gets, so that it is through in time."""
        return max(1000, round(n * PEERS[name].backlog))

    def forget(self) -> None:
        """Drop the filled templates of all."""
        for contestant in self._known.values():
            contestant.forget()
