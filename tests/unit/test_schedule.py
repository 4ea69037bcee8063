"""What @scheduled_task and @option declare, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest

from queued_tasks.runtime import schedule
from queued_tasks.runtime.errors import ConfigurationError, InvalidTask, SerializationError
from queued_tasks.runtime.options import task
from queued_tasks.runtime.schedule import ScheduleSpec, declared_schedules, option, scheduled_task
from queued_tasks.runtime.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_declared_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_declared", {})
    for func in (notify_birthday, report, required, nightly, weekly):
        vars(func).pop("__queued_schedule__", None)


async def notify_birthday(date: str | None = None, dry: bool = False) -> None: ...


def report(day: date = date(2026, 1, 1), copies: int = 1) -> None: ...


def required(day: str) -> None: ...


@task(channel="nights", max_retries=7)
def nightly() -> None: ...


@option("--day", default="2026-02-03")
def weekly(day: date) -> None: ...


def declared() -> ScheduleSpec:
    (spec,) = declared_schedules()
    return spec


def test_a_declared_function_stays_the_function_that_it_was() -> None:
    assert scheduled_task(cron="0 8 * * *")(notify_birthday) is notify_birthday


def test_a_schedule_is_called_like_its_function_with_dashes() -> None:
    scheduled_task(cron="0 8 * * *")(notify_birthday)
    assert (declared().name, declared().reference) == ("notify-birthday", f"{__name__}:notify_birthday")


def test_what_is_not_given_is_utc_and_no_catching_up() -> None:
    scheduled_task(cron="0 8 * * *")(report)
    spec = declared()
    assert (spec.cron, spec.timezone, spec.catch_up, spec.channel, spec.priority) == (
        "0 8 * * *",
        "UTC",
        False,
        None,
        None,
    )


def test_a_zone_may_be_given_as_an_object() -> None:
    scheduled_task(cron="0 8 * * *", timezone=ZoneInfo("Europe/Berlin"))(report)
    assert declared().timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cron": "61 * * * *"}, "cron is '61"),
        ({"cron": None}, "cron is None"),
        ({"timezone": "Mars/Olympus"}, "timezone is 'Mars/Olympus'"),
        ({"name": "two words"}, "name is 'two words'"),
        ({"name": "--date"}, "name is '--date'"),
        ({"channel": ""}, "channel is ''"),
        ({"priority": "high"}, "priority is 'high'"),
        ({"catch_up": "no"}, "catch_up is 'no'"),
    ],
)
def test_what_can_not_be_is_refused_at_import_with_the_function_named(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"@scheduled_task on .*test_schedule\.report: {reason}"):
        scheduled_task(**{"cron": "0 8 * * *", **given})(report)


def test_a_refused_function_is_not_declared() -> None:
    with pytest.raises(ConfigurationError):
        scheduled_task(cron="0 8 * *")(report)
    assert declared_schedules() == ()


def test_two_functions_can_not_share_a_name() -> None:
    scheduled_task(cron="0 8 * * *", name="daily")(report)
    with pytest.raises(ConfigurationError, match="report is called 'daily' as well"):
        scheduled_task(cron="0 8 * * *", name="daily")(notify_birthday)


def test_a_module_that_is_imported_again_declares_the_same_schedule() -> None:
    scheduled_task(cron="0 8 * * *")(report)
    scheduled_task(cron="0 9 * * *")(report)
    assert declared().cron == "0 9 * * *"


def test_a_function_with_a_parameter_that_no_fire_gives_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a fire can't call it \(missing a required argument: 'day'\)"):
        scheduled_task(cron="0 8 * * *")(required)


@pytest.mark.parametrize("what", [print, type("Report", (), {}), 5, staticmethod(report)])
def test_what_is_no_function_is_refused(what: Any) -> None:
    with pytest.raises(ConfigurationError, match="is for functions"):
        scheduled_task(cron="0 8 * * *")(what)


# ---- options


def with_options(func: Any, *options: Any) -> Any:
    """A copy of `func`, so that a test's options stay its own."""
    copy = type(func)(func.__code__, func.__globals__, func.__name__, func.__defaults__)
    copy.__annotations__ = func.__annotations__
    for decorator in reversed(options):
        copy = decorator(copy)
    return copy


def test_the_options_of_a_line_are_arguments_of_the_function() -> None:
    options = option("--date", type=str, default=None, help="The day."), option("--dry", is_flag=True)
    scheduled_task(cron="0 8 * * *")(with_options(notify_birthday, *options))
    assert declared().arguments(["--date", "2026-01-01", "--dry"]) == {"date": "2026-01-01", "dry": True}


def test_options_are_listed_in_the_order_in_which_they_stand() -> None:
    options = option("--date"), option("--dry", is_flag=True)
    scheduled_task(cron="0 8 * * *")(with_options(notify_birthday, *options))
    assert [each.name for each in declared().options] == ["date", "dry"]


def test_an_empty_line_means_the_defaults() -> None:
    scheduled_task(cron="0 8 * * *")(with_options(report, option("--copies", type=int, default="3")))
    assert declared().arguments() == {"copies": 3}


def test_an_option_without_a_value_leaves_the_default_of_the_function() -> None:
    scheduled_task(cron="0 8 * * *")(with_options(report, option("--day"), option("--copies", type=int)))
    assert declared().arguments() == {}


def test_an_option_without_a_value_is_none_where_the_function_has_no_default() -> None:
    scheduled_task(cron="0 8 * * *")(with_options(required, option("--day")))
    assert declared().arguments() == {"day": None}


def test_a_value_of_the_wrong_type_is_an_error_of_usage() -> None:
    scheduled_task(cron="0 8 * * *")(with_options(report, option("--copies", type=int)))
    with pytest.raises(click.UsageError, match="'many' is not a valid integer"):
        declared().arguments(["--copies", "many"])


@pytest.mark.parametrize(
    ("declaration", "reason"),
    [
        (option("--day", required=True), "Missing option '--day'. A fire gives no options: add a default"),
        (option("--nonsense"), "missing a required argument: 'day'"),
    ],
)
def test_an_option_that_no_fire_could_give_is_refused(declaration: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        scheduled_task(cron="0 8 * * *")(with_options(required, declaration))


def test_an_option_without_a_parameter_of_its_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unexpected keyword argument 'nonsense'"):
        scheduled_task(cron="0 8 * * *")(with_options(report, option("--nonsense")))


@pytest.mark.parametrize(
    ("names", "attributes", "reason"),
    [
        (("--date",), {"tpye": str}, "unexpected keyword argument 'tpye'"),
        ((), {}, "has no name"),
        (("--date",), {"default": date.today}, "has a function for a default"),
    ],
)
def test_a_malformed_option_is_refused_with_the_function_named(
    names: tuple[str, ...], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"@option on .*\.report: .*{reason}"):
        option(*names, **attributes)(report)


def test_an_option_without_parentheses_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'write it with the name, @option\("--date"\)'):
        option(report)  # type: ignore[arg-type]  # the mistake under test


def test_an_option_above_the_schedule_is_refused() -> None:
    scheduled = scheduled_task(cron="0 8 * * *")(with_options(report))
    with pytest.raises(ConfigurationError, match="put it on top"):
        option("--copies")(scheduled)


# ---- the task of a fire


def test_a_fire_adds_the_function_with_the_defaults_of_its_options() -> None:
    scheduled_task(cron="0 8 * * 1", channel="reports", priority=3)(weekly)
    added = declared().task(Settings())
    assert (added.function, json.loads(added.kwargs or ""), added.channel, added.priority) == (
        f"{__name__}:weekly",
        {"day": "2026-02-03"},
        "reports",
        3,
    )


def test_a_fire_keeps_what_task_declares() -> None:
    scheduled_task(cron="0 8 * * *")(nightly)
    added = declared().task(Settings())
    assert (added.channel, added.max_retries, added.name) == ("nights", 7, None)


def test_a_default_that_does_not_fit_is_refused_with_the_argument_named() -> None:
    scheduled_task(cron="0 8 * * *")(with_options(report, option("--copies", default="many")))
    spec = replace(declared(), func=report)
    with pytest.raises(SerializationError, match=r"argument 'copies' of report\(\) must be int"):
        spec.task(Settings())


def test_a_text_is_fitted_to_the_type_that_the_function_annotates() -> None:
    scheduled_task(cron="0 8 * * *")(weekly)
    assert declared().fitting({"day": "2026-01-01"}) == {"day": date(2026, 1, 1)}


def test_a_local_function_can_not_be_fired() -> None:
    def local() -> None: ...

    scheduled_task(cron="0 8 * * *")(local)
    with pytest.raises(InvalidTask, match="move it to module level"):
        declared().task(Settings())
