"""Calls of users' own transactions and of plain SQL, and what servers do for them later: see tests/queue_calls.py."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import asyncpg

from queued_tasks.runtime.posting import document_of, losers_of
from tests.dice import Dice
from tests.queue_calls import Call, World, described, equal, new_tasks, same_count, short, some_ids
from tests.queue_model import QueueModel
from tests.store import Store

TAKER = "the inbox"  # who takes from it passes over what another takes or posts just now, as if in no order at all


def post(dice: Dice, world: World) -> Call:
    tasks = new_tasks(dice, world.model, most=3)

    async def run(store: Store) -> dict[UUID, UUID]:
        return losers_of(await store.session.fetch_value("post_tasks", document_of(tasks)))

    def follow(model: QueueModel, losers: dict[UUID, UUID]) -> None:
        model.post(tasks, losers)

    return Call(f"post {described(tasks)}", run, follow)


def promote_inbox(dice: Dice, world: World) -> Call:
    return promoted_from_inbox(1 + dice.below(4), world)


def promoted_from_inbox(limit: int, world: World) -> Call:
    async def run(store: Store) -> tuple[int, ...]:
        row = await store.session.fetch_one("promote_inbox", limit)
        assert row is not None
        return tuple(row)

    def follow(model: QueueModel, answer: tuple[int, ...]) -> None:
        taken, lined, cancels = model.promote_inbox(limit)
        equal("taken from the inbox (tasks, cancels)", (answer[0], answer[2]), (taken, cancels))
        same_count("lined from the inbox", answer[1], lined, model, world)

    return Call(f"promote_inbox {limit}", run, follow, actor=TAKER)


def cancel_by_sql(dice: Dice, world: World) -> Call:
    (id,) = some_ids(dice, world)[:1]

    async def run(store: Store) -> bool | None:
        with suppress(asyncpg.NoDataFoundError):
            return bool(await store.value("select queued_tasks.cancel($1)", id))
        return None

    def follow(model: QueueModel, answer: bool | None) -> None:
        equal("wanted cancelled", answer, model.want_cancelled(id))

    return Call(f"cancel {short(id)} by SQL", run, follow, actor=TAKER)


def cancel_posted(dice: Dice, world: World) -> Call:
    return cancelled_from_inbox(1 + dice.below(4))


def cancelled_from_inbox(limit: int) -> Call:
    def follow(model: QueueModel, count: int) -> None:
        equal("cancelled from the inbox", count, model.cancel_posted(limit))

    return Call(
        f"cancel_posted {limit}", lambda store: store.session.fetch_value("cancel_posted", limit), follow, actor=TAKER
    )
