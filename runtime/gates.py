"""The limits of channels, and how people write them: `mail:10@100/min`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ConfigurationError

_PERIODS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3_600.0, "hour": 3_600.0, "day": 86_400.0, "d": 86_400.0}
_UNITS = {1.0: "s", 60.0: "min", 3_600.0: "h", 86_400.0: "day"}
_LIMITS = re.compile(
    r"(?P<cap>\d{1,9})?(?P<server>/server)?(?:/key:(?P<key>\d{1,9}))?(?:@(?P<count>\d{1,9})/(?P<period>[a-z]+))?\Z"
)
_FORM = "CAP[/server][/key:N][@COUNT/PERIOD], such as 10, 4/server, 20/key:2, 10@100/min or @5/s"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many tasks may start in a period (seconds)."""

    count: int
    period: float

    def __str__(self) -> str:
        unit = _UNITS.get(self.period)
        return f"{self.count}/{unit}" if unit else f"{self.count}/{self.period:g}s"


@dataclass(frozen=True, slots=True)
class Gate:
    """The limits of a channel.

    `cap`: tasks that may run at once, in the whole cluster or, `per_server`, on each server; None: any number.
    `key_cap`: tasks with the same key that may run at once.
    """

    channel: str
    cap: int | None = None
    per_server: bool = False
    key_cap: int | None = None
    rate: Rate | None = None
    paused: bool = False

    @property
    def limits(self) -> str:
        """As people write them; empty without any."""
        return "".join(
            [
                "" if self.cap is None else str(self.cap),
                "/server" if self.per_server else "",
                "" if self.key_cap is None else f"/key:{self.key_cap}",
                "" if self.rate is None else f"@{self.rate}",
            ]
        )


def parse_limits(channel: str, text: str) -> Gate:
    """Read limits: CAP[/server][/key:N][@COUNT/PERIOD]; `none` means none.

    Raises:
        ConfigurationError: they can't be read, or say nothing; the text shows the form.
    """
    if not channel or len(channel) > 100:
        raise ConfigurationError(f"{channel!r} is no name of a channel: give 1 to 100 characters.")
    if text == "none":
        return Gate(channel)
    found = _LIMITS.match(text)
    if not found or not text or (found["server"] and not found["cap"]):
        raise ConfigurationError(f"the limits {text!r} of channel {channel} can't be read: write {_FORM}.")
    return Gate(
        channel,
        cap=None if found["cap"] is None else int(found["cap"]),
        per_server=bool(found["server"]),
        key_cap=_positive(channel, text, found["key"]),
        rate=_rate(channel, text, found["count"], found["period"]),
    )


def parse_gates(text: str) -> tuple[Gate, ...]:
    """Read the limits of several channels: `sync:2,mail:10@100/min,reports:4/server`.

    Raises:
        ConfigurationError: one of them can't be read, or a channel is named twice.
    """
    gates: dict[str, Gate] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        channel, colon, limits = part.partition(":")
        if not colon:
            raise ConfigurationError(f"{part!r} names no limits: write CHANNEL:{_FORM}.")
        if channel in gates:
            raise ConfigurationError(f"channel {channel} is named twice: name it once.")
        gates[channel] = parse_limits(channel, limits)
    return tuple(gates.values())


def _rate(channel: str, text: str, count: str | None, period: str | None) -> Rate | None:
    if count is None or period is None:
        return None
    if period not in _PERIODS:
        raise ConfigurationError(f"the limits {text!r} of channel {channel} name no period: write s, min, h or day.")
    return Rate(_positive(channel, text, count) or 1, _PERIODS[period])


def _positive(channel: str, text: str, number: str | None) -> int | None:
    if number is not None and int(number) == 0:
        raise ConfigurationError(
            f"the limits {text!r} of channel {channel} would let nothing through: to pause it, its cap is 0."
        )
    return None if number is None else int(number)
