"""Whatever is done to tasks in whatever order: no task is lost, runs too early, runs twice at once or ends twice.

Hypothesis makes up the calls; after each the database is compared with the model of tests/queue_model.py. What it draws
depends on nothing that happened, so that an example stays the same when the database answers otherwise.

QUEUED_TASKS_TEST_EXAMPLES: how many examples to try; by default a few, always the same ones.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeAlias, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from queued_tasks.runtime.store.lanes import Lane
from queued_tasks.runtime.task import ServerId
from tests import queue_calls as calls
from tests.databases import fresh_database
from tests.queue_calls import Call, Dice, World
from tests.queue_model import QueueModel
from tests.store import Store
from tests.waiting import wait_until

EXAMPLES = int(os.environ.get("QUEUED_TASKS_TEST_EXAMPLES", "0"))
ROLLS = st.binary(min_size=40, max_size=40)
Kind: TypeAlias = Callable[[Dice, World], Call | None]
KINDS = st.sampled_from(
    [
        *[calls.add, calls.claim, calls.settle] * 3,
        *[calls.give_back, calls.drop_lease, calls.cancel, calls.stop, calls.resume, calls.rescue, calls.promote],
        *[calls.post, calls.promote_inbox, calls.clear, calls.prune, calls.sweep],
    ]
)

SNAPSHOT = """
with wrong as (
    select 'stands in ' || count(p.place) || ' places: ' || coalesce(string_agg(p.place, ', '), 'none') as what, t.id
      from queued_tasks.task t
      left join (
           select y.id, 'a line' as place from queued_tasks.ready y
           union all select d.id, 'the delayed' from queued_tasks.delayed d
           union all select r.id, 'a lease' from queued_tasks.running r
           union all select s.id, 'the stopped' from queued_tasks.stopped s
           union all
           select d.child, 'the waiting'
             from queued_tasks.dependency d
            where not d.released
            group by d.child
           having bool_or(exists (select from queued_tasks.task t where t.id = d.parent)
                          and not exists (select from queued_tasks.result r where r.id = d.parent))
           union all
           select i.id, 'the inbox'
             from queued_tasks.inbox i
             left join queued_tasks.dependency d on d.child = i.id
            where not i.cancel
            group by i.id
           having bool_and(d.released) is not true
              and not bool_or(exists (select from queued_tasks.task t where t.id = d.parent)
                              and not exists (select from queued_tasks.result r where r.id = d.parent))
           ) p on p.id = t.id
     where not exists (select from queued_tasks.result r where r.id = t.id)
     group by t.id having count(p.place) <> 1
    union all
    select 'may run before its parent ' || d.parent, d.child
      from queued_tasks.dependency d
      join queued_tasks.task t on t.id = d.parent
     where not exists (select from queued_tasks.result r where r.id in (d.parent, d.child))
       and d.child in (select y.id from queued_tasks.ready y union select l.id from queued_tasks.delayed l
                       union select r.id from queued_tasks.running r union select s.id from queued_tasks.stopped s)
    union all
    select 'keeps a key though it has ended', u.id
      from queued_tasks.unique_task u
     where not exists (select from queued_tasks.task t where t.id = u.id)
        or exists (select from queued_tasks.result r where r.id = u.id)
    union all
    select 'left its key to nobody', t.id
      from queued_tasks.task t
     where t.unique_key is not null
       and not exists (select from queued_tasks.result r where r.id = t.id)
       and not exists (select from queued_tasks.inbox i where i.id = t.id)
       and not exists (select from queued_tasks.unique_task u where u.key = t.unique_key)
    union all
    select 'left something behind in ' || x.place, x.id
      from (select r.id, 'result' as place from queued_tasks.result r
            union all select a.id, 'attempt' from queued_tasks.attempt a
            union all select d.id, 'delayed' from queued_tasks.delayed d
            union all select s.id, 'stopped' from queued_tasks.stopped s
            union all select i.id, 'interrupt' from queued_tasks.interrupt i
            union all select d.child, 'dependency' from queued_tasks.dependency d
            union all select g.task_id, 'log' from queued_tasks.log g) x
     where not exists (select from queued_tasks.task t where t.id = x.id)
)
select json_build_object(
    'wrong', (select json_agg(json_build_array(w.what, w.id)) from wrong w),
    'tasks', (select json_agg(json_build_array(v.id, v.state, v.attempt)) from queued_tasks.task_view v),
    'ready', (select json_agg(json_build_array(l.id, l.channel, l.priority, l.sync, l.again, y.seq, y.id, y.attempt)
                              order by l.id, y.seq)
                from queued_tasks.ready y join queued_tasks.lane l on l.id = y.lane),
    'delayed', (select json_agg(json_build_array(d.id, d.attempt)) from queued_tasks.delayed d),
    'keys', (select json_agg(json_build_array(u.key, u.id)) from queued_tasks.unique_task u),
    'inbox', (select json_agg(i.id order by i.seq) from queued_tasks.inbox i),
    'wishes', (select json_agg(json_build_array(i.id, i.kind)) from queued_tasks.interrupt i
                where not exists (select from queued_tasks.result r where r.id = i.id)),
    'leases', (select json_agg(json_build_array(r.id, r.server)) from queued_tasks.running r)
)::text
"""
LATER = """
update queued_tasks.task set run_at = run_at - interval '1 day' where run_at is not null;
update queued_tasks.delayed set run_at = run_at - interval '1 day';
update queued_tasks.attempt set next_at = next_at - interval '1 day' where next_at is not null
"""
EMPTY = """
delete from queued_tasks.task; delete from queued_tasks.ready; delete from queued_tasks.delayed;
delete from queued_tasks.lease; delete from queued_tasks.attempt; delete from queued_tasks.result;
delete from queued_tasks.stopped; delete from queued_tasks.dependency; delete from queued_tasks.unique_task;
delete from queued_tasks.tombstone; delete from queued_tasks.context; delete from queued_tasks.log;
delete from queued_tasks.interrupt; delete from queued_tasks.inbox; delete from queued_tasks.heartbeat;
delete from queued_tasks.server
"""


class Stage:
    """A database and three sessions on it, for all examples."""

    def __init__(self, runner: asyncio.Runner, stores: Sequence[Store]) -> None:
        self.runner = runner
        self.first, self.second, self.observer = stores

    def empty(self) -> None:
        self.runner.run(self.observer.session.connection.execute(EMPTY))

    def do(self, call: Call) -> Any:
        return self.runner.run(call.run(self.first))  # type: ignore[arg-type]  # an awaitable of the store is a coroutine

    def look(self) -> dict[str, Any]:
        found = json.loads(self.runner.run(self.observer.value(SNAPSHOT)))
        return {name: rows or [] for name, rows in found.items()}

    async def overlap(self, one: Call, other: Call) -> tuple[Any, Any]:
        """Make the second call after the first one, which commits once the second is through or waits for it."""
        async with self.first.session.connection.transaction():  # not `begin`: a call may open one inside
            answer = await one.run(self.first)
            late = asyncio.ensure_future(other.run(self.second))
            await wait_until(lambda: self.is_through(late))
        return answer, await late

    async def is_through(self, late: asyncio.Future[Any]) -> bool:
        """Whether the call of the second session has ended, or waits for a lock."""
        pid = self.second.session.connection.get_server_pid()
        return late.done() or await self.observer.value("select cardinality(pg_blocking_pids($1)) > 0", pid)

    async def at_once(self, one: Call, other: Call) -> tuple[Any, Any]:
        """Start both calls together."""
        first, second = await asyncio.gather(one.run(self.first), other.run(self.second))
        return first, second


class AnyOrder(RuleBasedStateMachine):
    """Calls one after another, and two at a time, which must come out as if one had been made after the other."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.failed = False
        self.world = World(QueueModel(), [], {}, {})
        self.repeatable: list[Call] = []
        self.story: list[str] = []
        stage.empty()
        self.keep_servers()

    def keep_servers(self) -> None:
        while len(self.world.model.servers) < 3:
            server = ServerId(uuid7())
            self.stage.runner.run(
                self.stage.observer.servers.register(
                    server, name="server", host="host", pid=1, version="0", lock_key=None
                )
            )
            self.world.model.servers.append(server)
            self.world.settled[server] = []

    def make(self, kind: Kind, rolls: bytes) -> None:
        """One call, alone."""
        call = kind(Dice(rolls), self.world)
        if call is None:
            return
        with self.told(call.said):
            answer = self.stage.do(call)
            call.follow(self.world.model, answer)
            self.look(call)

    @contextmanager
    def told(self, said: str) -> Iterator[None]:
        """Fail with all that was done before."""
        self.failed = True
        self.story.append(said)
        try:
            yield
        except Exception as error:
            raise AssertionError("\n".join([str(error), "after", *self.story])) from error
        self.failed = False

    def look(self, *made: Call) -> None:
        """Compare, and note what the next call may be made of."""
        found = self.stage.look()
        compare(self.world.model, found)
        self.go_on(found, made)

    def go_on(self, found: dict[str, Any], made: Sequence[Call]) -> None:
        self.world.lines = [(Lane(*lane), seq, UUID(id)) for *lane, seq, id, _ in found["ready"]]
        for server, it in self.world.model.hands:
            seen = self.world.seen.setdefault((server, it.lane), [])
            if it.seq not in seen:
                seen.append(it.seq)
        self.repeatable = [*self.repeatable, *(call.again for call in made if call.again)][-6:]
        self.keep_servers()

    @rule(rolls=ROLLS)
    def add(self, rolls: bytes) -> None:
        self.make(calls.add, rolls)

    @rule(rolls=ROLLS)
    def claim(self, rolls: bytes) -> None:
        self.make(calls.claim, rolls)

    @rule(rolls=ROLLS)
    def settle(self, rolls: bytes) -> None:
        self.make(calls.settle, rolls)

    @rule(kind=st.sampled_from([calls.add, calls.claim, calls.claim, calls.settle, calls.settle]), rolls=ROLLS)
    def work(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([calls.give_back, calls.drop_lease, calls.rescue]), rolls=ROLLS)
    def return_tasks(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([calls.cancel, calls.stop, calls.resume]), rolls=ROLLS)
    def decide_otherwise(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([calls.post, calls.promote_inbox]), rolls=ROLLS)
    def use_the_inbox(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([calls.promote, calls.prune, calls.sweep, calls.clear]), rolls=ROLLS)
    def keep_up(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(which=st.integers(0, 5))
    def repeat(self, which: int) -> None:
        """A call whose answer was lost is made again, after whatever came meanwhile."""
        if which < len(self.repeatable):
            call = self.repeatable[which]
            self.make(lambda *_: call, b"")

    @rule()
    def pass_time(self) -> None:
        self.stage.runner.run(self.stage.observer.session.connection.execute(LATER))
        self.world.model.pass_time()

    @rule(one=KINDS, rolls=ROLLS, other=KINDS, more=ROLLS, overlap=st.booleans())
    def two_at_a_time(self, one: Kind, rolls: bytes, other: Kind, more: bytes, overlap: bool) -> None:
        first, second = one(Dice(rolls), self.world), other(Dice(more), self.world)
        if not first or not second or (first.actor and first.actor == second.actor):
            return
        with self.told(f"{'overlapping' if overlap else 'at once'}: {first.said}\n    and {second.said}"):
            way = self.stage.overlap if overlap else self.stage.at_once
            answers = self.stage.runner.run(way(first, second))
            found = self.stage.look()
            self.world.model = in_some_order([*zip((first, second), answers, strict=True)], self.world, found)
            self.go_on(found, (first, second))

    def teardown(self) -> None:
        """Let everything come to its end, unless something went wrong: nothing may be left."""
        if self.failed:
            return
        for _ in range(100):
            if not self.world.model.unfinished():
                return
            self.finish()
        raise AssertionError(f"these never end: {self.world.model.unfinished()}")

    def finish(self) -> None:
        model = self.world.model
        if stopped := [task.id for task in model.tasks.values() if task.place == "stopped"]:
            self.make(lambda *_: calls.resumed(stopped), b"")
        for server, lease in model.doubtful:
            self.make(lambda *_, server=server, lease=lease: calls.dropped(server, lease), b"")
        model.doubtful.clear()
        self.pass_time()
        self.make(calls.promote, b"")
        self.make(lambda *_: calls.promoted_from_inbox(1000), b"")
        self.make(lambda *_: calls.claimed_by(model.servers[0], 1000, Dice(b""), self.world), b"")
        for server in dict.fromkeys(server for server, _ in model.hands):
            self.make(lambda *_, server=server: calls.all_done(server, self.world), b"")


def in_some_order(made: Sequence[tuple[Call, Any]], world: World, found: dict[str, Any]) -> QueueModel:
    """The model after these calls, in the order that explains what was found."""
    reasons = []
    world.stayed = {UUID(id) for id, *_ in found["tasks"]}
    for order in (made, made[::-1]):
        model = world.model.copy()
        try:
            for call, answer in order:
                call.follow(model, answer)
            compare(model, found, ordered=False)
        except AssertionError as error:
            reasons.append(str(error))
        else:
            take_turns(model, found)
            return model
    raise AssertionError("no order of the two explains it: " + "; ".join(reasons))


def take_turns(model: QueueModel, found: dict[str, Any]) -> None:
    """Those in line came in the order in which they stand there."""
    for row in sorted(found["ready"], key=lambda row: int(row[5])):
        if in_line(model, row[6]):
            model.tasks[UUID(row[6])].turn = model.turns
            model.turns += 1


def compare(model: QueueModel, found: dict[str, Any], *, ordered: bool = True) -> None:
    """Fail unless the tables hold what the model holds. `ordered`: who came first stands ahead."""
    tasks = model.tasks.values()
    assert not found["wrong"], found["wrong"]
    same(
        "tasks",
        {UUID(id): (state, attempt) for id, state, attempt in found["tasks"]},
        {task.id: (task.state, task.attempt) for task in tasks},
    )
    lined = [(tuple(lane), UUID(id), attempt) for _, *lane, _, id, attempt in found["ready"] if in_line(model, id)]
    same("lines", sorted(lined), sorted((task.lane, task.id, task.next) for task in tasks if task.place == "ready"))
    for lane in {lane for lane, _, _ in lined} if ordered else ():
        turns = [model.tasks[id].turn for where, id, _ in lined if where == lane]
        same("turns", turns, sorted(turns))
    same(
        "delayed",
        sorted((UUID(id), attempt) for id, attempt in found["delayed"]),
        sorted((task.id, task.next) for task in tasks if task.place == "delayed"),
    )
    same("keys", {key: UUID(id) for key, id in found["keys"]}, model.keys)
    same("inbox", [UUID(id) for id in found["inbox"]], [id for id, _ in model.inbox])
    same("wishes", {UUID(id): kind for id, kind in found["wishes"]}, model.wishes)
    same(
        "leases",
        sorted((UUID(id), UUID(server)) for id, server in found["leases"]),
        sorted((task.id, model.leases[task.lease].server) for task in tasks if task.lease),
    )


def in_line(model: QueueModel, id: str) -> bool:
    """What was cancelled, and perhaps removed, keeps its place in line until a claim comes across it."""
    task = model.tasks.get(UUID(id))
    return task is not None and not task.end


def same(what: str, found: Any, expected: Any) -> None:
    if found != expected and isinstance(found, dict):
        differ = found.keys() | expected.keys()
        found, expected = (
            {key: it.get(key) for key in differ if found.get(key) != expected.get(key)} for it in (found, expected)
        )
    assert found == expected, f"{what}: there are {found}, and should be {expected}"


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_calls_in_any_order_lose_no_task_and_run_none_twice(postgres: str, template: str) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            dsn = runner.run(stack.enter_async_context(fresh_database(postgres, template=template)))
            stage = Stage(runner, [runner.run(Store.open(dsn, stack)) for _ in range(3)])
            run_state_machine_as_test(
                cast("type[RuleBasedStateMachine]", lambda: AnyOrder(stage)),  # any factory will do
                settings=settings(
                    max_examples=EXAMPLES or 60,
                    stateful_step_count=30,
                    derandomize=not EXAMPLES,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=[*HealthCheck],
                    report_multiple_bugs=False,
                ),
            )
        finally:
            runner.run(stack.aclose())
