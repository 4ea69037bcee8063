"""What a server holds, against what PostgreSQL says that it holds."""

from __future__ import annotations

from uuid import UUID, uuid4

from queued_tasks.actors.holdings import STRANGE_AFTER, Holdings

LEASE, ONE, OTHER = uuid4(), uuid4(), uuid4()


def holding(*tasks: UUID) -> Holdings:
    """An account with these tasks in one lease."""
    holdings = Holdings()
    holdings.open(LEASE, tasks)
    return holdings


def test_a_lease_is_full_with_what_ends_last() -> None:
    holdings = holding(ONE, OTHER)
    assert holdings.full({LEASE: {ONE}}) == []
    holdings.close({LEASE: {ONE}})
    assert holdings.full({LEASE: {OTHER}}) == [LEASE]


def test_a_lease_that_the_database_does_not_know_is_forgotten_there() -> None:
    assert holding(ONE).forgotten({}, {}) == {LEASE}


def test_a_lease_of_which_all_waits_to_be_recorded_is_left_to_that() -> None:
    assert holding(ONE).forgotten({}, {LEASE: {ONE}}) == frozenset()


def test_what_both_know_is_neither_forgotten_nor_stray() -> None:
    holdings = holding(ONE)
    assert (holdings.forgotten({LEASE}, {}), holdings.strays({LEASE: [ONE]}, 0.0)) == (frozenset(), [])


def test_an_attempt_whose_end_the_database_lost_is_stray() -> None:
    holdings = holding(ONE, OTHER)
    holdings.close({LEASE: {ONE}})
    assert holdings.strays({LEASE: [ONE, OTHER]}, 0.0) == [(LEASE, ONE)]


def test_a_lease_that_is_known_to_the_database_alone_is_stray_when_it_stays_so() -> None:
    holdings = Holdings()
    assert holdings.strays({LEASE: [ONE]}, 0.0) == []
    assert holdings.doubtful
    assert holdings.strays({LEASE: [ONE]}, STRANGE_AFTER) == [(LEASE, ONE)]


def test_a_lease_whose_claim_was_answered_meanwhile_is_not_strange_any_more() -> None:
    holdings = Holdings()
    holdings.strays({LEASE: [ONE]}, 0.0)
    holdings.open(LEASE, [ONE])
    assert holdings.strays({LEASE: [ONE]}, STRANGE_AFTER) == []
