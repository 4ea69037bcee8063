"""Which channels a server takes."""

from __future__ import annotations

import pytest

from queued_tasks import ConfigurationError
from queued_tasks.runtime.intake import Intake, parse_intake


@pytest.mark.parametrize(
    ("only", "never", "taken"),
    [
        (None, None, ["mail", "gpu", "default"]),
        ("mail, gpu", None, ["mail", "gpu"]),
        (None, "gpu,,mail", ["default"]),
    ],
)
def test_channels_that_are_taken(only: str | None, never: str | None, taken: list[str]) -> None:
    intake = parse_intake(only, never)
    assert [channel for channel in ("mail", "gpu", "default") if intake.takes(channel)] == taken


@pytest.mark.parametrize(("only", "never"), [("mail", "gpu"), (" , ", None), (None, "")])
def test_lists_that_make_no_sense_are_refused(only: str | None, never: str | None) -> None:
    with pytest.raises(ConfigurationError, match="channel"):
        parse_intake(only, never)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (Intake(), Intake(), True),
        (Intake(), Intake(only=("gpu",)), True),
        (Intake(never=("gpu",)), Intake(never=("mail",)), True),
        (Intake(only=("gpu", "mail")), Intake(only=("mail",)), True),
        (Intake(only=("gpu",)), Intake(only=("mail",)), False),
        (Intake(never=("gpu",)), Intake(only=("gpu", "mail")), True),
        (Intake(never=("gpu",)), Intake(only=("gpu",)), False),
    ],
)
def test_two_intakes_meet_in_a_channel_that_both_take(one: Intake, other: Intake, meet: bool) -> None:
    assert (one.meets(other), other.meets(one)) == (meet, meet)
