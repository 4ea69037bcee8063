"""Which channels a server takes tasks of. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Intake:
    """The channels in `only`, or without any all but those in `never`."""

    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    def takes(self, channel: str) -> bool:
        """Whether tasks of that channel may be claimed."""
        return channel in self.only if self.only else channel not in self.never

    def meets(self, other: Intake) -> bool:
        """Whether there is a channel that both take."""
        if self.only:
            return any(map(other.takes, self.only))
        return not other.only or any(map(self.takes, other.only))

    def __str__(self) -> str:
        """What is taken, in words; empty when it is everything."""
        if self.only:
            return f"only {', '.join(self.only)}"
        return f"all channels but {', '.join(self.never)}" if self.never else ""


ALL: Final = Intake()


def parse_intake(only: str | None, never: str | None) -> Intake:
    """Read names that are separated by commas; None: no such list was given.

    Raises:
        ConfigurationError: both lists are given, or one that names nothing.
    """
    if only is not None and never is not None:
        raise ConfigurationError("--channels and --exclude-channels exclude each other: give one of them.")
    return Intake(_names("--channels", only), _names("--exclude-channels", never))


def _names(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigurationError(f"{option} names no channel: write {option} mail,reports.")
    return names
