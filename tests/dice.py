"""Choices by chance that can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Choices, made from numbers that were drawn before."""

    def __init__(self, rolls: Sequence[int]) -> None:
        self._rolls = iter((*rolls, *[0] * 1000))

    def below(self, end: int) -> int:
        return next(self._rolls) % end

    def chance(self, of: int) -> bool:
        """True once in so many times."""
        return self.below(of) == of - 1

    def pick(self, things: Sequence[T]) -> T:
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], most: int) -> list[T]:
        """At least one of them, if there are any, in their order."""
        places = {self.below(len(things)) for _ in range(1 + self.below(most))} if things else set()
        return [things[place] for place in sorted(places)]
