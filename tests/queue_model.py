"""What the store promises, in plain Python: one task after another, no SQL, no clock.

A verb changes the model as the store has to change, and returns what the store has to answer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias
from uuid import UUID

from queued_tasks.runtime.gates import Gate
from queued_tasks.runtime.task import Claimed, Executor, NewTask, OnParentFailure, ServerId, Settled

LaneName: TypeAlias = tuple[str, int, bool, bool]  # channel, priority, sync, again
Record: TypeAlias = tuple[UUID, int, ServerId, str, bool]  # id, attempt, server, outcome, whether it ended the task

STATES = {"ready": "enqueued", "delayed": "enqueued", "posted": "enqueued", "leased": "doing"}


@dataclass(slots=True)
class Kept:
    """A task. `place` is one of ready, delayed, posted, waiting, leased, stopped, ended."""

    id: UUID
    parents: tuple[UUID, ...]
    on_parent_failure: OnParentFailure
    unique_key: str | None
    auto_remove: bool
    channel: str
    key: str | None
    priority: int
    sync: bool
    later: bool  # its run_at is still to come
    place: str
    next: int = 1  # the attempt that runs, or else comes next
    again: bool = False  # in line among those that were interrupted
    turn: int = 0  # of those in line, who came when
    due: bool = False  # delayed, and its time has come
    lease: UUID | None = None
    end: str | None = None
    end_attempt: int = 0
    complained: bool = False  # it logged an error
    by_parent: bool = False  # it ended because a parent did
    keyless: bool = False  # it had got so far when it lost its key that it was left alone

    @property
    def state(self) -> str:
        return self.end or STATES.get(self.place, self.place)

    @property
    def attempt(self) -> int:
        if self.end:
            return self.end_attempt
        return self.next if self.place == "leased" else self.next - 1

    @property
    def lane(self) -> LaneName:
        return self.channel, self.priority, self.sync, self.again


@dataclass(slots=True)
class Lease:
    server: ServerId
    ids: set[UUID]


class Posted(NamedTuple):
    """A row of the inbox: a new task, or one to be cancelled."""

    id: UUID
    key: str | None = None
    cancel: bool = False


@dataclass(slots=True)
class QueueModel:
    """All tasks, and who holds what. `hands` is what servers believe to hold, which after a rescue they don't."""

    tasks: dict[UUID, Kept] = field(default_factory=dict)
    removed: dict[UUID, None] = field(default_factory=dict)  # in the order in which they were added
    keys: dict[str, UUID] = field(default_factory=dict)
    inbox: list[Posted] = field(default_factory=list)
    gates: dict[str, Gate] = field(default_factory=dict)
    leases: dict[UUID, Lease] = field(default_factory=dict)
    servers: list[ServerId] = field(default_factory=list)
    wishes: dict[UUID, str] = field(default_factory=dict)
    recorded: set[Record] = field(default_factory=set)
    hands: list[tuple[ServerId, Claimed]] = field(default_factory=list)
    doubtful: list[tuple[ServerId, UUID]] = field(default_factory=list)  # claims that were never answered
    turns: int = 0

    def copy(self) -> QueueModel:
        return copy.deepcopy(self)

    def hand(self, server: ServerId) -> list[Claimed]:
        return [claimed for holder, claimed in self.hands if holder == server]

    def unfinished(self) -> list[Kept]:
        return [task for task in self.tasks.values() if not task.end]

    def has_key(self, task: Kept) -> bool:
        """Whether an unfinished task has to hold its unique key; in the inbox it can't yet."""
        return task.unique_key is not None and not task.keyless and Posted(task.id, task.unique_key) not in self.inbox

    # -- adding

    def add(self, tasks: Sequence[NewTask], *, repeat: bool) -> dict[UUID, UUID]:
        """Losers and their winners; in a repetition whatever was there is its own."""
        keyed = any(task.unique_key for task in tasks)
        skip = {task.id for task in tasks if (repeat or keyed) and self._known(task.id)}
        losers = self._hold_keys([(task.id, task.unique_key) for task in tasks if task.id not in skip])
        written = [task for task in tasks if task.id not in skip and task.id not in losers]
        for task in written:
            self._keep(task, losers, "waiting")
        self._line_up([task.id for task in written if not task.parents], again=False)
        self._let_go([task.id for task in written])
        return losers | {id: id for id in skip} if repeat else losers

    def post(self, tasks: Sequence[NewTask], answered: dict[UUID, UUID] | None = None) -> dict[UUID, UUID]:
        """Losers and their winners: `answered`, where they may have been posted before others could be seen."""
        losers: dict[UUID, UUID] = {}
        for task in tasks:
            if self._known(task.id):
                continue
            if winner := self._holder(task.unique_key) if answered is None else answered.get(task.id):
                losers[task.id] = winner
                continue
            self._keep(task, losers, "waiting" if task.parents else "posted")
            self.inbox.append(Posted(task.id, task.unique_key))
        return losers

    def promote_inbox(self, limit: int) -> tuple[int, int, int]:
        """How many were taken, how many may be claimed, how many are to be cancelled."""
        taken = [row for row in self.inbox[:limit] if not row.cancel]
        cancels = len(self.inbox[:limit]) - len(taken)
        self.inbox = [row for row in self.inbox if row not in taken]
        fresh = [(id, key) for id, key, _ in taken if id in self.tasks and not self.tasks[id].end]
        moved: list[UUID] = []
        for loser, winner in self._hold_keys(fresh).items():
            if self.tasks[loser].place in ("posted", "waiting") and winner not in self._family(loser):
                moved += self._give_way(loser, winner)
            else:
                self.tasks[loser].keyless = True
        lined = self._line_up(
            [id for id, _ in fresh if id in self.tasks and self.tasks[id].place == "posted"], again=False
        )
        return len(taken), lined + self._let_go([*(id for id, _ in fresh), *moved]), cancels

    def want_cancelled(self, id: UUID) -> bool | None:
        """Whether it has not ended yet; None when there is no such task."""
        if id not in self.tasks:
            return None
        if not self.tasks[id].end:
            self.inbox.append(Posted(id, cancel=True))
        return not self.tasks[id].end

    def cancel_posted(self, limit: int) -> int:
        """How many ended."""
        wanted = [row for row in self.inbox if row.cancel][:limit]
        for row in wanted:
            self.inbox.remove(row)
        return len(self.cancel([*dict.fromkeys(row.id for row in wanted)])[0])

    def ended_with(self, id: UUID) -> set[UUID]:
        """The descendants that ended without having run because this one did."""
        ended = {child.id for child in self._children([id]) if child.end and child.by_parent}
        return ended.union(*(self.ended_with(child) for child in ended))

    def _give_way(self, loser: UUID, winner: UUID) -> list[UUID]:
        children = [child for child in self._children([loser]) if child.place == "waiting"]
        for child in children:
            child.parents = tuple(winner if parent == loser else parent for parent in child.parents)
        self._end(self.tasks[loser], "cancelled", 0)
        self._after_end([loser])
        return [child.id for child in children]

    def _family(self, id: UUID) -> set[UUID]:
        return {id}.union(*(self._family(child.id) for child in self._children([id])))

    def _known(self, id: UUID) -> bool:
        return id in self.tasks or id in self.removed

    def _holder(self, key: str | None) -> UUID | None:
        if key is None:
            return None
        posted = (
            row.id
            for row in self.inbox
            if row.key == key and not (row.id in self.tasks and self.tasks[row.id].end) and row.id not in self._unwanted
        )
        holder = self.keys.get(key)
        if holder in self._unwanted and self.tasks[holder].place != "leased":
            holder = None
        return holder or next(posted, None)

    @property
    def _unwanted(self) -> set[UUID]:
        return {row.id for row in self.inbox if row.cancel}

    def _hold_keys(self, wanted: Iterable[tuple[UUID, str | None]]) -> dict[UUID, UUID]:
        pairs = [(id, key) for id, key in wanted if key is not None]
        while True:
            for id, key in pairs:
                self.keys.setdefault(key, id)
            losers = {id: self.keys[key] for id, key in pairs if self.keys[key] != id}
            if not self.cancel(self._unwanted & {*losers.values()})[0]:
                return losers

    def _keep(self, task: NewTask, losers: dict[UUID, UUID], place: str) -> None:
        self.tasks[task.id] = Kept(
            task.id,
            tuple(losers.get(parent, parent) for parent in task.parents),
            task.on_parent_failure,
            task.unique_key,
            task.auto_remove,
            task.channel,
            task.key,
            task.priority,
            task.executor is Executor.SYNC,
            task.run_at is not None,
            place,
        )

    # -- limits

    def limit(self, gate: Gate) -> None:
        self.gates.pop(gate.channel, None)
        if gate.limits or gate.paused:
            self.gates[gate.channel] = gate

    def counted(self) -> set[UUID]:
        """Which tasks have a token."""
        return {task.id for task in self.tasks.values() if task.place == "leased" and task.channel in self.gates}

    def room(self, channel: str, server: ServerId) -> float:
        """How many more of a channel's tasks this server may run."""
        gate = self.gates.get(channel)
        if gate is None:
            return math.inf
        running = [task for task in self._running(channel) if not gate.per_server or self._server(task) == server]
        return 0 if gate.paused else math.inf if gate.cap is None else gate.cap - len(running)

    def _running(self, channel: str) -> list[Kept]:
        return [task for task in self.tasks.values() if task.place == "leased" and task.channel == channel]

    def _server(self, task: Kept) -> ServerId | None:
        return self.leases[task.lease].server if task.lease else None

    def _check_limits(self, channel: str, server: ServerId, claimed: Collection[str | None]) -> None:
        """Of the keys that were `claimed`: more of another may have run when the limit was set."""
        gate = self.gates[channel]
        assert not gate.paused, f"{channel} is paused, and something was claimed"
        assert self.room(channel, server) >= 0, f"more runs in {channel} than {gate.limits}"
        keys = [task.key for task in self._running(channel) if task.key and task.key in claimed]
        most = max(map(keys.count, keys), default=0)
        assert gate.key_cap is None or most <= gate.key_cap, f"more runs of a key in {channel} than {gate.limits}"

    # -- running

    def claim(self, server: ServerId, lease: UUID, claimed: Sequence[Claimed], *, answered: bool = True) -> None:
        """Check that these tasks could be claimed, and note that they are."""
        for it in claimed:
            task = self.tasks.get(it.id)
            assert task, f"{it.id} was claimed and is not there"
            assert task.place == "ready", f"{it.id} was claimed, though it is {task.place}"
            assert task.next == it.attempt, f"{it.id} was claimed as attempt {it.attempt}, not {task.next}"
            assert not any(self._open(parent) for parent in task.parents), f"{it.id} was claimed before its parents"
            task.place, task.lease = "leased", lease
        if claimed:
            self.leases[lease] = Lease(server, {it.id for it in claimed})
        for channel in self.gates.keys() & {self.tasks[it.id].channel for it in claimed}:
            self._check_limits(channel, server, {self.tasks[it.id].key for it in claimed})
        if answered:
            self.hands += [(server, it) for it in claimed]
        else:
            self.doubtful.append((server, lease))

    def settle(
        self,
        server: ServerId,
        ends: Sequence[Settled],
        full: Collection[UUID],
        part: Collection[UUID],
        complaints: Collection[UUID] = (),
    ) -> tuple[set[UUID], int]:
        """What was lost, and how many may be claimed. `complaints`: which of them log an error with it."""
        held = {lease for lease in (*full, *part) if lease in self.leases and self.leases[lease].server == server}
        ours = [(end, self.tasks[end.id]) for end in ends if end.lease in held and self._holds(end)]
        freed = len(self.counted() & {end.id for end, _ in ours})
        for end, task in ours:
            task.complained |= end.id in complaints
            self.recorded.add((end.id, end.attempt, server, end.outcome, end.delay is None))
            if end.delay is None:
                self._end(task, end.outcome, end.attempt)
            else:
                task.next += 1
        lined = self._after_end([end.id for end, _ in ours if end.delay is None])
        lost = {
            end.id
            for end in ends
            if end.lease not in held
            and not any(other.id == end.id and other.lease in held for other in ends)
            and end.id not in self.removed
            and (end.id, end.attempt, server, end.outcome, end.delay is None) not in self.recorded
        }
        lined += self._go_on(server, [(end.id, end.delay) for end, _ in ours if end.delay is not None])
        for lease in held & {*full}:
            del self.leases[lease]
        gone = {(end.lease, end.id) for end in ends}
        self.hands = [(holder, it) for holder, it in self.hands if holder != server or (it.lease, it.id) not in gone]
        return lost, lined + freed

    def give_back(self, server: ServerId, claims: Collection[tuple[UUID, UUID]], full: Collection[UUID]) -> int:
        """How many may be claimed again, of these tasks in these leases."""
        back: list[UUID] = []
        for lease in {lease for lease, _ in claims}:
            ids = {id for other, id in claims if other == lease}
            held = self.leases.get(lease)
            if held and held.server == server and held.ids & ids:
                back += [id for id in held.ids & ids if self._stands_in(id, lease)]
                held.ids -= ids
                if lease in full or not held.ids:
                    del self.leases[lease]
        self.hands = [(holder, it) for holder, it in self.hands if holder != server or (it.lease, it.id) not in claims]
        freed = len(self.counted() & {*back})
        return freed + self._go_on(server, [(id, 0) for id in back])

    def drop_lease(self, server: ServerId, lease: UUID) -> None:
        held = self.leases.get(lease)
        if held:
            self.give_back(server, {(lease, id) for id in held.ids}, [lease])

    def rescue(self, server: ServerId, pardoned: int, most_crashes: int) -> int | None:
        """How many may be claimed again, None when it was rescued before.

        From `pardoned` interruptions of a task on it is a crash of the task, and crash `most_crashes` is its end, if
        it is the only one. Those that one more would end come back one after the other.
        """
        if server not in self.servers:
            return None
        self.servers.remove(server)
        back: list[UUID] = []
        for lease in [lease for lease, held in self.leases.items() if held.server == server]:
            back += [id for id in self.leases.pop(lease).ids if self._stands_in(id, lease)]
        crashes = {
            id: self._count(id, "crashed") + 1
            for id in sorted(back)
            if self._count(id, "interrupted") >= pardoned and id not in self.wishes
        }
        fatal = [id for id in crashes if crashes[id] >= most_crashes]
        failed = fatal if len(fatal) == 1 else []
        suspects = [id for id in crashes if crashes[id] >= most_crashes - 1]
        for id in back:
            task = self.tasks[id]
            if id in failed:
                self._end(task, "failed", task.next)
            else:
                outcome = "crashed" if id in crashes and id not in fatal else "interrupted"
                self.recorded.add((id, task.next, server, outcome, False))
                task.next += 1
        self.recorded |= {(id, self.tasks[id].next, server, "failed", True) for id in failed}
        open = [(id, 60.0 if id in suspects[1:] else 0) for id in back if id not in failed]
        return self._after_end(failed) + self._go_on(server, open)

    def _count(self, id: UUID, outcome: str) -> int:
        return sum(1 for record in self.recorded if record[0] == id and record[3] == outcome)

    def _stands_in(self, id: UUID, lease: UUID) -> bool:
        task = self.tasks.get(id)
        return task is not None and task.place == "leased" and task.lease == lease

    def _holds(self, end: Settled) -> bool:
        return self._stands_in(end.id, end.lease) and self.tasks[end.id].next == end.attempt

    def _go_on(self, server: ServerId, open: Sequence[tuple[UUID, float | None]]) -> int:
        again: list[UUID] = []
        cancelled: list[UUID] = []
        for id, delay in open:
            task = self.tasks[id]
            task.lease = None
            wish = self.wishes.pop(id, "stop" if delay == math.inf else None)
            if wish == "stop":
                task.place = "stopped"
            elif wish == "cancel":
                self._end(task, "cancelled", task.next - 1)
                self.recorded.add((id, task.next - 1, server, "cancelled", True))
                cancelled.append(id)
            elif delay:
                task.place, task.due = "delayed", False
            else:
                again.append(id)
        return self._after_end(cancelled) + self._line_up(again, again=True)

    # -- deciding otherwise

    def cancel(self, ids: Collection[UUID]) -> tuple[set[UUID], set[ServerId]]:
        """Which ended, and which servers are asked."""
        asked = self._wish(ids, "cancel")
        ended = [task for id in ids if (task := self.tasks.get(id)) and not task.end and task.place != "leased"]
        for task in ended:
            self._end(task, "cancelled", task.next - 1)
        self._after_end([task.id for task in ended])
        return {task.id for task in ended}, asked

    def stop(self, ids: Collection[UUID]) -> set[ServerId]:
        """Which servers are asked."""
        return self._wish(ids, "stop")

    def _wish(self, ids: Collection[UUID], kind: str) -> set[ServerId]:
        running = [task for id in ids if (task := self.tasks.get(id)) and task.place == "leased"]
        for task in running:
            self.wishes[task.id] = "cancel" if self.wishes.get(task.id) == "cancel" else kind
        return {self.leases[task.lease].server for task in running if task.lease}

    def resume(self, ids: Collection[UUID]) -> set[UUID]:
        """Which were stopped."""
        stopped = [id for id in ids if id in self.tasks and self.tasks[id].place == "stopped"]
        self._line_up(stopped, again=True)
        return {*stopped}

    # -- upkeep

    def pass_time(self) -> None:
        """Whatever was to come has come."""
        for task in self.tasks.values():
            task.later = False
            task.due |= task.place == "delayed"

    def promote(self) -> int:
        return self._line_up(
            [task.id for task in self.tasks.values() if task.place == "delayed" and task.due], again=False
        )

    def clear(self, channel: str | None, spared: Collection[UUID] = ()) -> int:
        """How many were removed: unstarted ones, and the descendants that could not run without them."""
        family = {
            task.id
            for task in self.tasks.values()
            if task.place in ("ready", "delayed", "waiting")
            and channel in (None, task.channel)
            and task.id not in spared
        }
        look: Collection[UUID] = family
        while look:
            children = self._children(look)
            more = {it.id for it in children if it.place == "waiting" and it.on_parent_failure != "run"}
            look = more - family - {*spared}
            family |= look
        orphans = [task.id for task in self._children(family) if task.id not in family]
        self._remove(family)
        self._let_go(orphans)
        return len(family)

    def prune(self, spared: Collection[UUID] = (), unseen: Collection[UUID] = ()) -> int:
        """How many had ended, and were needed by no child but `unseen` ones."""
        ended = [task.id for task in self.tasks.values() if task.end and task.id not in spared]
        over = [id for id in ended if all(child.end or child.id in unseen for child in self._children([id]))]
        self._remove(over)
        return len(over)

    def sweep(self) -> int:
        """How many were left whose parents have all ended: only what is in the inbox may be."""
        left = [it.id for it in self.tasks.values() if it.place == "waiting" and not any(map(self._open, it.parents))]
        self._let_go(left)
        return len(left)

    # -- what follows

    def _line_up(self, ids: Iterable[UUID], *, again: bool) -> int:
        lined = 0
        for id in ids:
            task = self.tasks[id]
            task.again, task.due = again, False
            task.place = "delayed" if task.later and not again else "ready"
            lined += task.place == "ready"
            task.turn = self.turns
        self.turns += 1
        return lined

    def _end(self, task: Kept, state: str, attempt: int) -> None:
        task.place, task.end, task.end_attempt, task.lease = "ended", state, attempt, None

    def _after_end(self, ids: Iterable[UUID]) -> int:
        ended = {*ids}
        children = self._children(ended)
        if all(self.tasks[id].end == "done" for id in ended):
            # a posted one may have another parent that went bad: that is seen when it gets its place
            children = [child for child in children if not any(map(self._open, child.parents))]
        lined = self._let_go([child.id for child in children])
        self._wind_up(ended)
        return lined

    def _let_go(self, children: Iterable[UUID]) -> int:
        lined = 0
        look = {*children}
        while look:
            verdicts = {id: self._verdict(self.tasks[id]) for id in look if id in self.tasks}
            bad = {id: verdict for id, verdict in verdicts.items() if verdict in ("failed", "cancelled")}
            for id, verdict in bad.items():
                self._end(self.tasks[id], verdict, 0)
                self.tasks[id].by_parent = True
            lined += self._line_up([id for id, verdict in verdicts.items() if verdict == "run"], again=False)
            look = {task.id for task in self._children(bad)}
            self._wind_up(bad)
        return lined

    def _verdict(self, child: Kept) -> str:
        if child.place != "waiting":
            return "wait"
        open = any(self._open(parent) for parent in child.parents)
        ends = {self.tasks[parent].end for parent in child.parents if parent in self.tasks}
        if child.on_parent_failure != "run" and ends & {"failed", "cancelled"}:
            return "failed" if child.on_parent_failure == "cascade" and "failed" in ends else "cancelled"
        return "wait" if open else "run"

    def _wind_up(self, ended: Collection[UUID]) -> None:
        for id in ended:
            self.wishes.pop(id, None)
        self.keys = {key: id for key, id in self.keys.items() if id not in ended}
        concerned = {*ended}.union(*(self.tasks[id].parents for id in ended if id in self.tasks))
        self._remove(
            {
                id
                for id in concerned
                if (task := self.tasks.get(id))
                and task.auto_remove
                and task.end == "done"
                and not task.complained
                and all(child.end for child in self._children([id]))
            }
        )

    def _remove(self, ids: Collection[UUID]) -> None:
        self.removed |= {id: None for id in self.tasks if id in ids}
        self.keys = {key: id for key, id in self.keys.items() if id not in ids}
        self.tasks = {id: task for id, task in self.tasks.items() if id not in ids}

    def _children(self, ids: Collection[UUID]) -> list[Kept]:
        return [task for task in self.tasks.values() if any(parent in ids for parent in task.parents)]

    def _open(self, id: UUID) -> bool:
        return id in self.tasks and not self.tasks[id].end
