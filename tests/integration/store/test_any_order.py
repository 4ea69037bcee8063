"""Whatever is done to tasks in whatever order: no task is lost, runs too early, runs twice at once or ends twice.

Hypothesis makes up the calls; after each the database is compared with the model of tests/queue_model.py. What it draws
depends on nothing that happened, so that an example stays the same when the database answers otherwise.

QUEUE_TEST_EXAMPLES: how many examples to try; by default a few, always the same ones.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeAlias, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.lanes import Lane
from queued_tasks.runtime.task import ServerId
from tests import gate_calls as gates
from tests import inbox_calls as inbox
from tests import queue_calls as calls
from tests import upkeep_calls as upkeep
from tests.databases import fresh_database
from tests.dice import Dice
from tests.queue_calls import Call, World
from tests.queue_look import EMPTY, LATER, SNAPSHOT, compare, take_turns
from tests.queue_model import QueueModel
from tests.store import Store
from tests.waiting import wait_until

EXAMPLES = int(os.environ.get("QUEUE_TEST_EXAMPLES", "0"))
ROLLS = st.binary(min_size=40, max_size=40)
Kind: TypeAlias = Callable[[Dice, World], Call]
WORK = [calls.add, calls.claim, calls.settle]
KINDS = [
    *WORK * 3,
    *[calls.give_back, calls.drop_lease, calls.cancel, calls.stop, calls.resume, calls.rescue],
    *[inbox.post, inbox.promote_inbox, inbox.cancel_by_sql, inbox.cancel_posted],
    *[upkeep.promote, upkeep.clear, upkeep.prune, upkeep.sweep, gates.limit, gates.swept],
]
PAIRS = st.one_of(
    st.tuples(
        st.sampled_from(WORK),
        st.sampled_from([calls.settle, calls.cancel, calls.rescue, calls.stop, upkeep.clear, calls.claim, gates.limit]),
    ),
    st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
)


class Stage:
    """A database and three sessions on it, for all examples."""

    def __init__(self, runner: asyncio.Runner, stores: Sequence[Store]) -> None:
        self.runner = runner
        self.first, self.second, self.observer = stores
        self.failures: list[str] = []

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
        both = asyncio.ensure_future(one.run(self.first)), asyncio.ensure_future(other.run(self.second))
        await asyncio.wait(both)  # also when one fails: the next example begins with empty tables
        return both[0].result(), both[1].result()


class AnyOrder(RuleBasedStateMachine):
    """Calls one after another, and two at a time, which must come out as if one had been made after the other."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.failed = False
        self.world = World(QueueModel(), [], {}, {}, {})
        self.turnless: set[str] = set()  # who came while a limit per key was set: a claim from the start finds them
        self.repeatable: list[Call] = []
        self.story: list[str] = []
        stage.empty()
        self.keep_servers()

    def keep_servers(self) -> None:
        while len(self.world.model.servers) < 3:
            server = ServerId(new_id())
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
            self.stage.failures.append("\n".join([repr(error), "after", *self.story]))
            raise AssertionError(self.stage.failures[-1]) from error
        self.failed = False

    def look(self, *made: Call) -> None:
        """Compare, and note what the next call may be made of."""
        found = self.stage.look()
        compare(self.world.model, found)
        assert self.turnless >= {*found["turnless"]}, f"no claim will come by: {found['turnless']}"
        self.go_on(found, made)

    def go_on(self, found: dict[str, Any], made: Sequence[Call]) -> None:
        self.turnless = {*found["turnless"]}
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

    @rule(rolls=ROLLS)
    def settle_more(self, rolls: bytes) -> None:
        self.make(calls.settle, rolls)

    @rule(rolls=ROLLS)
    def rescue(self, rolls: bytes) -> None:
        self.make(calls.rescue, rolls)

    @rule(kind=st.sampled_from([calls.give_back, calls.drop_lease]), rolls=ROLLS)
    def return_tasks(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([calls.cancel, calls.stop, calls.resume, calls.retry]), rolls=ROLLS)
    def decide_otherwise(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(
        kind=st.sampled_from([inbox.post, inbox.promote_inbox, inbox.cancel_by_sql, inbox.cancel_posted]), rolls=ROLLS
    )
    def use_the_inbox(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(kind=st.sampled_from([upkeep.promote, upkeep.prune, upkeep.sweep, upkeep.clear]), rolls=ROLLS)
    def keep_up(self, kind: Kind, rolls: bytes) -> None:
        self.make(kind, rolls)

    @rule(rolls=ROLLS)
    def limit(self, rolls: bytes) -> None:
        self.make(gates.limit, rolls)

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

    @rule(pair=PAIRS, rolls=ROLLS, more=ROLLS, overlap=st.booleans())
    def two_at_a_time(self, pair: tuple[Kind, Kind], rolls: bytes, more: bytes, overlap: bool) -> None:
        first, second = (kind(Dice(dice), self.world) for kind, dice in zip(pair, (rolls, more), strict=True))
        if first.actor and first.actor == second.actor:
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
        for _ in range(200):
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
        for gate in [it for it in model.gates.values() if it.paused or it.cap in (0, 1)]:
            self.make(lambda *_, gate=gate: gates.limited(replace(gate, cap=2, paused=False)), b"")
        self.make(gates.swept, b"")
        self.pass_time()
        self.make(upkeep.promote, b"")
        self.make(lambda *_: inbox.promoted_from_inbox(1000, self.world), b"")
        self.make(lambda *_: inbox.cancelled_from_inbox(1000), b"")
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


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_calls_in_any_order_lose_no_task_run_none_early_and_end_none_twice(postgres: str, template: str) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            dsn = runner.run(stack.enter_async_context(fresh_database(postgres, template=template)))
            stage = Stage(runner, [runner.run(Store.open(dsn, stack)) for _ in range(3)])
            run_state_machine_as_test(
                cast("type[RuleBasedStateMachine]", lambda: AnyOrder(stage)),  # any factory will do
                settings=settings(
                    max_examples=EXAMPLES or 120,
                    stateful_step_count=30,
                    derandomize=not EXAMPLES,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=[*HealthCheck],
                    report_multiple_bugs=False,
                ),
            )
        except Flaky:
            # what two calls at a time do need not happen again when hypothesis repeats it
            raise AssertionError(f"seen once, and not when it was repeated: {stage.failures[0]}") from None
        finally:
            runner.run(stack.aclose())
