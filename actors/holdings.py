"""What a server holds by its own account: the attempts that it has claimed and neither recorded nor given back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol, TypeAlias
from uuid import UUID

STRANGE_AFTER = 30.0  # seconds, longer than a claim can be under way


class _Attempt(Protocol):
    @property
    def lease(self) -> UUID: ...
    @property
    def id(self) -> UUID: ...


ByLease: TypeAlias = dict[UUID, set[UUID]]


def by_lease(attempts: Iterable[_Attempt]) -> ByLease:
    """The tasks of these attempts by their leases."""
    grouped: ByLease = {}
    for attempt in attempts:
        if (tasks := grouped.get(attempt.lease)) is None:
            tasks = grouped[attempt.lease] = set()
        tasks.add(attempt.id)
    return grouped


class Holdings:
    """The server's own account, to be held against that of the database after a crash or a failover of PostgreSQL.

    Either side may have forgotten something: PostgreSQL a claim, which is committed asynchronously, or, when a standby
    that lagged was promoted, that an attempt has ended.
    """

    def __init__(self) -> None:
        self._open: ByLease = {}
        self._strange: dict[UUID, float] = {}  # leases that nobody here knows, with when they were first seen

    @property
    def doubtful(self) -> bool:
        """Whether a later look may show more."""
        return bool(self._strange)

    def open(self, lease: UUID, tasks: Iterable[UUID]) -> None:
        """These tasks were claimed."""
        self._open.setdefault(lease, set()).update(tasks)

    def full(self, ended: ByLease) -> list[UUID]:
        """The leases that hold nothing else than these attempts."""
        return [lease for lease, tasks in ended.items() if self._open.get(lease, tasks) <= tasks]

    def close(self, ended: ByLease) -> None:
        """These attempts are recorded or given back."""
        for lease, tasks in ended.items():
            if held := self._open.get(lease):
                held -= tasks
                if not held:
                    del self._open[lease]

    def forgotten(self, known: Collection[UUID], ended: ByLease) -> frozenset[UUID]:
        """Leases of which the database knows nothing, though attempts of theirs run here: all but those of `ended`."""
        return frozenset(
            lease for lease, tasks in self._open.items() if lease not in known and not tasks <= ended.get(lease, set())
        )

    def strays(self, known: Mapping[UUID, Iterable[UUID]], now: float) -> list[tuple[UUID, UUID]]:
        """Leases and tasks that the database takes for held, and nobody here holds any more.

        A lease of which nothing is known here may belong to a claim whose answer is on its way: such a one is strange
        when it still is after STRANGE_AFTER seconds. `now` is a reading of a monotonic clock.
        """
        unknown = known.keys() - self._open.keys()
        self._strange = {lease: self._strange.get(lease, now) for lease in unknown}
        ours = {lease for lease in known if lease not in unknown or now - self._strange[lease] >= STRANGE_AFTER}
        return [(lease, id) for lease in ours for id in known[lease] if id not in self._open.get(lease, ())]
