"""Children: let go once when their last parent ends, ended when one goes bad, never left behind."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import NewTask
from tests.store import Store, blocked, ended, new_task


async def _family(store: Store, parents: int = 1, **child: object) -> tuple[list[NewTask], NewTask]:
    """Parents that are enqueued, and a child that waits for all of them."""
    olds = [new_task() for _ in range(parents)]
    young = new_task(parents=tuple(task.id for task in olds), **child)
    await store.tasks.add([*olds, young])
    return olds, young


async def test_a_child_waits_for_its_parent(store: Store) -> None:
    (parent,), child = await _family(store)
    assert [it.id for it in await store.claim(await store.server())] == [parent.id]
    assert await store.state(child) == "waiting"


async def test_a_child_is_let_go_with_the_end_of_its_parent(store: Store) -> None:
    _, child = await _family(store)
    server = await store.server()
    assert (await store.settle(server, ended(await store.claim_one(server)))).lined == 1
    assert (await store.claim_one(server)).id == child.id


async def test_a_retry_of_the_parent_keeps_the_child_waiting(store: Store) -> None:
    _, child = await _family(store)
    await store.run(await store.server(), "failed", delay=60.0)
    assert await store.state(child) == "waiting"


async def test_a_child_of_many_waits_for_the_last_parent(store: Store) -> None:
    _, child = await _family(store, 3)
    server = await store.server()
    first, second, third = await store.claim(server)
    await store.settle(server, ended(first), ended(second), part=[third.lease])
    assert await store.state(child) == "waiting"
    await store.settle(server, ended(third))
    assert await store.state(child) == "enqueued"


async def test_parents_keep_the_order_in_which_they_were_given(store: Store) -> None:
    ids = [new_id() for _ in range(5)]
    child = await store.one(parents=tuple(reversed(ids)))
    task = await store.reads.task(child.id)
    assert task is not None
    assert task.parents == list(reversed(ids))


async def test_two_last_parents_that_end_at_once_let_the_child_go_once(store: Store) -> None:
    _, child = await _family(store, 2)
    first, second = await store.another(), await store.another()
    server = await store.server()
    one, two = [*await store.claim(server, 1), *await store.claim(server, 1)]
    await first.begin()
    await first.settle(server, ended(one))
    late = await blocked(store, second, second.settle(server, ended(two)))
    await first.commit()
    assert (await late).lined == 1
    assert [it.id for it in await store.claim(server)] == [child.id]


async def test_many_parents_that_end_in_many_sessions_let_the_child_go_once(store: Store) -> None:
    _, child = await _family(store, 16)
    server = await store.server()
    claimed = [it for _ in range(16) for it in await store.claim(server, 1)]
    sessions = [await store.another() for _ in range(4)]

    async def settle(session: Store, share: int) -> None:
        for it in claimed[share::4]:
            await session.settle(server, ended(it))

    await asyncio.gather(*(settle(session, share) for share, session in enumerate(sessions)))
    assert [it.id for it in await store.claim(server)] == [child.id]


async def test_a_child_added_while_its_parent_ends_waits_for_the_end_and_runs(store: Store) -> None:
    parent = await store.one()
    settler, adder = await store.another(), await store.another()
    server = await store.server()
    it = await store.claim_one(server)
    await settler.begin()
    await settler.settle(server, ended(it))
    child = new_task(parents=(parent.id,))
    await adder.tasks.lanes.ensure([child])
    added = await blocked(store, adder, adder.tasks.add([child]))
    await settler.commit()
    await added
    assert (await store.claim_one(server)).id == child.id


async def test_a_parent_that_ends_while_a_child_is_added_waits_and_lets_it_go(store: Store) -> None:
    parent = await store.one()
    settler, adder = await store.another(), await store.another()
    server = await store.server()
    it = await store.claim_one(server)
    child = new_task(parents=(parent.id,))
    await adder.tasks.lanes.ensure([child])
    await adder.begin()
    await adder.tasks.add([child])
    settled = await blocked(store, settler, settler.settle(server, ended(it)))
    await adder.commit()
    assert (await settled).lined == 1
    assert await store.state(parent) == "done"
    assert (await store.claim_one(server)).id == child.id


async def test_an_adder_gives_way_to_an_end_that_waits_for_it(store: Store) -> None:
    # The settlement ends z and fails a, whose child m goes with it; the adder occupies m and waits for z.
    keeper, settler, adder = [await store.another() for _ in range(3)]
    a, z = new_task(), new_task()
    m = new_task(parents=(a.id,))
    server = await store.server()
    await store.tasks.add([a, m, z])
    claimed = {it.id: it for it in await store.claim(server)}
    await keeper.begin()
    await keeper.rows("select from queued_tasks.task where id = $1 for update", m.id)
    settled = await blocked(
        store, settler, settler.settle(server, ended(claimed[a.id], "failed"), ended(claimed[z.id]))
    )
    child = new_task(parents=(m.id, z.id))
    await adder.tasks.lanes.ensure([child])
    added = await blocked(store, adder, adder.tasks.add([child]))
    await keeper.commit()
    await asyncio.gather(settled, added)
    assert await store.states([m, z, child]) == ["failed", "done", "failed"]


@pytest.mark.parametrize(
    ("outcome", "policy", "state"),
    [
        ("done", "cascade", "enqueued"),
        ("failed", "cascade", "failed"),
        ("failed", "run", "enqueued"),
        ("failed", "cancel", "cancelled"),
        ("cancelled", "cascade", "cancelled"),
        ("cancelled", "run", "enqueued"),
        ("cancelled", "cancel", "cancelled"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
async def test_the_end_of_a_parent_decides_by_the_policy_of_the_child(
    store: Store, outcome: str, policy: str, state: str, before: bool
) -> None:
    parent = await store.one()
    child = new_task(on_parent_failure=policy, parents=(parent.id,))
    if before:
        await store.tasks.add([child])
    await store.run(await store.server(), outcome)
    if not before:
        await store.tasks.add([child])
    assert await store.state(child) == state


async def test_a_child_that_ends_with_its_parent_says_why(store: Store) -> None:
    _, child = await _family(store)
    await store.run(await store.server(), "failed")
    task = await store.reads.task(child.id)
    assert task is not None
    assert (task.exception_name, task.attempt, task.failures) == ("ParentTaskFailed", 0, 0)


@pytest.mark.parametrize("policy", ["cascade", "cancel"])
async def test_the_first_bad_parent_ends_the_child(store: Store, policy: str) -> None:
    _, child = await _family(store, 3, on_parent_failure=policy)
    server = await store.server()
    first, *_ = await store.claim(server)
    await store.settle(server, ended(first, "failed"), part=[first.lease])
    assert await store.state(child) == ("failed" if policy == "cascade" else "cancelled")


async def test_a_child_that_runs_in_any_case_waits_for_all_parents(store: Store) -> None:
    _, child = await _family(store, 2, on_parent_failure="run")
    server = await store.server()
    first, second = await store.claim(server)
    await store.settle(server, ended(first, "failed"), part=[first.lease])
    assert await store.state(child) == "waiting"
    await store.settle(server, ended(second))
    assert await store.state(child) == "enqueued"


async def test_a_child_of_a_parent_that_was_removed_runs(store: Store) -> None:
    parent = await store.one(auto_remove=True)
    await store.run(await store.server())
    child = await store.one(parents=(parent.id,))
    assert await store.state(child) == "enqueued"


async def test_a_cancelled_parent_takes_its_waiting_children_along(store: Store) -> None:
    (parent,), child = await _family(store)
    grandchild = await store.one(parents=(child.id,))
    assert (await store.tasks.cancel([parent.id], "not wanted")).ended == (parent.id,)
    assert await store.states([child, grandchild]) == ["cancelled", "cancelled"]


async def test_a_child_for_later_is_delayed_when_it_is_let_go(store: Store) -> None:
    run_at = datetime.now(UTC) + timedelta(hours=1)
    _, child = await _family(store, run_at=run_at)
    await store.run(await store.server())
    assert await store.rows("select run_at, id from queued_tasks.delayed") == [(run_at, child.id)]


async def test_servers_are_told_of_a_child_for_later_that_is_let_go(store: Store) -> None:
    await _family(store, run_at=datetime.now(UTC) + timedelta(hours=1))
    server = await store.server()
    beat = Beat(lock_key=None, state="running", workers=1, slots=1, busy=0, details={"topic": "wake"})
    await store.servers.beat(server, beat)
    it = await store.claim_one(server)
    assert (await store.settle(server, ended(it))).told == {"wake": ["delayed"]}


async def test_a_child_whose_time_passed_while_it_waited_runs_at_once(store: Store) -> None:
    _, child = await _family(store, run_at=datetime.now(UTC) - timedelta(hours=1))
    await store.run(await store.server())
    assert (await store.claim_one(await store.server())).id == child.id


async def test_ten_thousand_children_end_with_their_parent_in_one_settlement(store: Store) -> None:
    parent = await store.one()
    await store.tasks.add([new_task(parents=(parent.id,)) for _ in range(10_000)])
    await store.run(await store.server(), "failed")
    assert await store.value("select count(*) from queued_tasks.result where state = 'failed'") == 10_001


async def test_ten_thousand_children_are_let_go_in_one_settlement(store: Store) -> None:
    parent = await store.one()
    children = [new_task(parents=(parent.id,)) for _ in range(10_000)]
    await store.tasks.add(children)
    await store.run(await store.server())
    assert len(await store.claim(await store.server(), 20_000)) == 10_000


async def test_a_tree_of_ten_thousand_fails_with_its_root_in_one_settlement(store: Store) -> None:
    root = await store.one()
    await store.tasks.add(_tree(root, 10, 100, 1_000, 8_890))
    await store.run(await store.server(), "failed")
    assert await store.value("select count(*) from queued_tasks.result where state = 'failed'") == 10_001


async def test_a_tree_of_ten_thousand_is_cancelled_with_its_root_in_one_call(store: Store) -> None:
    root = await store.one()
    await store.tasks.add(_tree(root, 10, 100, 1_000, 8_890))
    await store.tasks.cancel([root.id], "not wanted")
    assert await store.value("select count(*) from queued_tasks.result where state = 'cancelled'") == 10_001


async def test_the_child_of_ten_thousand_is_let_go_by_the_last_of_them(store: Store) -> None:
    parents = await store.add(10_000)
    child = await store.one(parents=tuple(parent.id for parent in parents))
    server = await store.server()
    claimed = await store.claim(server, 10_000)
    lined = [
        (await store.settle(server, *map(ended, claimed[start : start + 500]), part=[claimed[0].lease])).lined
        for start in range(0, 10_000, 500)
    ]
    assert lined == [0] * 19 + [1]
    assert (await store.claim_one(server)).id == child.id


def _tree(root: NewTask, *generations: int) -> list[NewTask]:
    tree, parents = [], [root]
    for size in generations:
        parents = [new_task(parents=(parents[place % len(parents)].id,)) for place in range(size)]
        tree += parents
    return tree


async def test_a_chain_of_a_thousand_ends_with_its_first_link(store: Store) -> None:
    await store.tasks.add(_chain(1_000))
    await store.run(await store.server(), "failed")
    assert await store.value("select count(*) from queued_tasks.result where state = 'failed'") == 1_000


def _chain(length: int, **fields: object) -> list[NewTask]:
    chain: list[NewTask] = []
    parents: tuple[UUID, ...] = ()
    for _ in range(length):
        chain.append(new_task(parents=parents, **fields))
        parents = (chain[-1].id,)
    return chain


async def test_a_chain_runs_link_by_link_and_removes_itself(store: Store) -> None:
    await store.tasks.add(_chain(20, auto_remove=True))
    server = await store.server()
    ran = [len(await store.run(server)) for _ in range(21)]
    assert ran == [1] * 20 + [0]
    assert [await store.count(table) for table in ("task", "result", "dependency", "lease")] == [0, 0, 0, 0]


async def test_a_finished_parent_stays_until_its_last_child_has_ended(store: Store) -> None:
    parent = new_task(auto_remove=True)
    children = [new_task(parents=(parent.id,)) for _ in range(2)]
    await store.tasks.add([parent, *children])
    server = await store.server()
    await store.run(server)
    first, second = await store.claim(server)
    await store.settle(server, ended(first), part=[first.lease])
    assert await store.state(parent) == "done"
    await store.settle(server, ended(second))
    assert await store.state(parent) is None


async def test_two_last_children_that_end_at_once_leave_no_parent_behind(store: Store) -> None:
    parent = new_task(auto_remove=True)
    children = [new_task(parents=(parent.id,)) for _ in range(2)]
    await store.tasks.add([parent, *children])
    server = await store.server()
    await store.run(server)
    one, two = [*await store.claim(server, 1), *await store.claim(server, 1)]
    first, second = await store.another(), await store.another()
    await first.begin()
    await first.settle(server, ended(one))
    late = await blocked(store, second, second.settle(server, ended(two)))
    await first.commit()
    await late
    assert await store.state(parent) is None


async def test_families_that_share_members_fail_at_once_without_waiting_for_each_other(store: Store) -> None:
    server = await store.server()
    sessions = [await store.another() for _ in range(2)]
    for _ in range(20):
        p, q = new_task(), new_task()
        x, y = new_task(parents=(p.id,)), new_task(parents=(q.id,))
        a, b = new_task(parents=(p.id, y.id)), new_task(parents=(q.id, x.id))
        await store.tasks.add([p, q, x, y, a, b])
        one, two = [*await store.claim(server, 1), *await store.claim(server, 1)]
        await asyncio.gather(
            *(session.settle(server, ended(it, "failed")) for session, it in zip(sessions, (one, two), strict=True))
        )
        assert await store.states([x, y, a, b]) == ["failed"] * 4


async def test_whoever_waits_for_a_descendant_is_told(store: Store) -> None:
    _, child = await _family(store)
    await store.session.fetch("subscribe", [child.id], "topic")
    server = await store.server()
    settlement = await store.settle(server, ended(await store.claim_one(server), "failed"))
    assert settlement.told == {"topic": [str(child.id)]}


async def test_a_swept_child_runs_when_its_parent_is_gone(store: Store) -> None:
    (parent,), child = await _family(store)
    await store.rows("select queued_tasks.remove_tasks($1)", [parent.id])
    assert await store.upkeep.sweep_children(10) == 1
    assert await store.state(child) == "enqueued"
    assert await store.upkeep.sweep_children(10) == 0


async def test_a_child_that_the_sweep_ends_is_wound_up(store: Store) -> None:
    (parent,), _child = await _family(store, unique_key="k")
    await store.rows(
        "insert into queued_tasks.result (id, state, attempt, exception_name) values ($1, 'failed', 1, 'E')", parent.id
    )
    await store.upkeep.sweep_children(10)
    assert await store.count("unique_task") == 0


async def test_the_sweep_leaves_alone_what_has_an_open_parent(store: Store) -> None:
    await _family(store)
    assert await store.upkeep.sweep_children(10) == 0


async def test_a_parent_that_a_repeated_write_knows_already_counts_as_one_from_outside(store: Store) -> None:
    parent = await store.one()
    await store.run(await store.server())
    child = new_task(parents=(parent.id,))
    await store.tasks.add([parent, child], repeat=True)
    assert await store.state(child) == "enqueued"


async def test_a_child_of_a_task_to_be_removed_is_added_while_another_parent_is_cancelled(store: Store) -> None:
    parent = await store.one()
    other = await store.one(parents=(parent.id,), auto_remove=True)
    await store.tasks.cancel([other.id], "no")
    canceller, adder = await store.another(), await store.another()
    await store.begin()
    await store.rows("select from queued_tasks.task where id = $1 for no key update", other.id)
    cancelled = await blocked(store, canceller, canceller.tasks.cancel([parent.id], "no"))
    child = new_task(parents=(parent.id, other.id))
    added = await blocked(store, adder, adder.tasks.add([child]))
    await store.commit()
    await asyncio.gather(cancelled, added)
    assert await store.states([parent, child]) == ["cancelled", "cancelled"]
