"""Arguments and results as JSON, by the function's annotations."""

from __future__ import annotations

import functools
import gc
import json
import weakref
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from queued_tasks.runtime.codec import (
    decoder_of,
    encode_json,
    encode_result,
    encoder_of,
)
from queued_tasks.runtime.errors import SerializationError
from tests.codec_types import (
    ID,
    MOMENT,
    Colour,
    Encoded,
    Function,
    Level,
    Login,
    Opaque,
    Options,
    Partial,
    Place,
    Point,
    Renamed,
    Row,
    Size,
    Strict,
    User,
    anything,
    taking,
)

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # a name that only a type checker knows


def there_and_back(func: Function, *args: object, **kwargs: object) -> tuple[list[Any], dict[str, Any]]:
    positional, named = decoder_of(func)(*encoder_of(func)(args, kwargs))
    return list(positional), named


KEPT: list[tuple[object, Any]] = [
    (int, 2**70),
    (int, -(10**4000)),
    (float, 5e-324),
    (str, "NaN, Infinity, null, \\u0000, ☃ and **********"),
    (bool, True),
    (bytes, b"\x00\xff\xfe"),
    (list[bytes], [b"\xff", b""]),
    (datetime, MOMENT),
    (datetime, MOMENT.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30)))),
    (date, date.min),
    (time, time(1, 2, 3, 4, tzinfo=UTC)),
    (timedelta, timedelta(days=-3, microseconds=1)),
    (timedelta, timedelta.max),
    (UUID, ID),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+500")),
    (Colour, Colour.RED),
    (Size, Size.BIG),
    (Level, Level.LOW),
    (User, User(userId=1, friends=[User(userId=2, score=0.5)])),
    (Renamed, Renamed(reads=3)),
    (Strict, Strict(value=3)),
    (Encoded, Encoded(content=b"\xff")),
    (Point, Point(1, b"\xff", MOMENT, 0.5)),
    (Place, Place(Name="here")),
    (Row, Row(1, date(2026, 1, 1))),
    (Options, {"when": MOMENT}),
    (list[Options], [{"when": MOMENT, "raw": b"\xff"}]),
    (dict[str, Options], {"a": {"when": MOMENT}}),
    (Options | None, {"when": MOMENT}),
    (Partial, {}),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset("ab")),
    (Set[int], {1}),
    (Sequence[UUID], [ID]),
    (Mapping[str, date], {"a": date.max}),
    (Iterable[int], [1, 2]),
    (dict[int, dict[UUID, Decimal]], {1: {ID: Decimal("0.1")}}),
    (list[User | None], [User(userId=1), None]),
    (int | str, "1"),
    (int | str, 1),
    (datetime | str, MOMENT),
    (User | Renamed, Renamed(reads=1)),
    (int | None, None),
    (Literal["a", 1], 1),
    (Annotated[int, Field(gt=0)], 1),
    (Path, Path("/tmp")),
    (None, None),
    (object, {"a": [1, None]}),
    (Any, {"a": [1.5, True, None, "x"]}),
]


@pytest.mark.parametrize(("annotation", "value"), KEPT, ids=[str(at) for at in range(len(KEPT))])
def test_a_value_comes_back_as_the_annotated_type(annotation: object, value: Any) -> None:
    [back] = there_and_back(taking(annotation), value)[0]
    assert (value, type(value)) == (back, type(back))


def test_json_in_text_is_parsed_for_the_task() -> None:
    assert there_and_back(taking(pydantic.Json[list[int]]), "[1]") == ([[1]], {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
clean_values = json_values.filter(lambda value: not holds_nul(value))


@given(st.lists(clean_values), st.dictionaries(st.text().filter(lambda key: "\0" not in key), clean_values))
def test_plain_json_comes_back_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert (args, kwargs) == there_and_back(anything, *args, **kwargs)


def holds_nul(value: object) -> bool:
    """Whether a NUL is in `value`: then its JSON has \\u0000 with an even number of backslashes before it."""
    return "\\u0000" in json.dumps(value).replace("\\\\", "")


@given(json_values)
def test_a_nul_is_refused_and_nothing_else_is(value: Any) -> None:
    refused = False
    try:
        encoder_of(anything)([value], {})
    except SerializationError:
        refused = True
    assert refused == holds_nul(value)


@given(clean_values)
def test_what_is_encoded_has_no_constant_that_json_does_not_know(value: Any) -> None:
    assert json.loads(encoder_of(anything)([value], {})[0], parse_constant=pytest.fail) == [value]


NAMED = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
TYPED: dict[Any, st.SearchStrategy[Any]] = {
    list[tuple[int, str]]: st.lists(st.tuples(st.integers(), NAMED)),
    dict[str, bytes]: st.dictionaries(NAMED, st.binary()),
    dict[int, datetime]: st.dictionaries(st.integers(), st.datetimes()),
    set[date]: st.sets(st.dates()),
    list[timedelta]: st.lists(st.timedeltas()),
    list[time]: st.lists(st.times()),
    list[UUID]: st.lists(st.uuids()),
    list[Decimal]: st.lists(st.decimals(allow_nan=False, allow_infinity=False)),
    frozenset[float]: st.frozensets(st.floats(allow_nan=False, allow_infinity=False)),
    list[Point]: st.lists(st.builds(Point, st.integers(), st.binary(), st.datetimes(), st.just(0.5))),
    list[int | str | None]: st.lists(st.integers() | st.none() | NAMED),
}


@pytest.mark.parametrize("annotation", TYPED, ids=str)
def test_typed_values_come_back_equal(annotation: Any) -> None:
    func = taking(annotation)

    @settings(max_examples=50)
    @given(TYPED[annotation])
    def holds(value: Any) -> None:
        assert [value] == there_and_back(func, value)[0]

    holds()


def test_arguments_stay_positional_or_named_as_given() -> None:
    def func(a: int, b: str, *, c: date) -> None: ...

    assert encoder_of(func)((1, "x"), {"c": date.min}) == ('[1,"x"]', '{"c":"0001-01-01"}')
    assert encoder_of(func)((1,), {"c": date.min, "b": "x"}) == ("[1]", '{"b":"x","c":"0001-01-01"}')


def test_defaults_are_not_stored() -> None:
    def func(a: int = 1, b: object = Opaque(), *, c: int = 3) -> None: ...

    assert encoder_of(func)((), {}) == ("[]", None)
    assert there_and_back(func, 5) == ([5], {})


def test_none_is_taken_where_it_is_the_default() -> None:
    def func(a: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013  # common, if sloppy

    assert there_and_back(func, None) == ([None], {})


def test_variable_arguments_have_the_type_of_each() -> None:
    def func(first: int, /, *rest: date, **more: bytes) -> None: ...

    args, kwargs = there_and_back(func, 1, date.min, date.max, first=b"\xff", other=b"")
    assert (args, kwargs) == ([1, date.min, date.max], {"first": b"\xff", "other": b""})


def test_a_tuple_without_annotation_comes_back_as_a_list() -> None:
    assert there_and_back(anything, (1, (2,)), a=(3,)) == ([[1, [2]]], {"a": [3]})


def test_an_iterable_is_stored_as_a_list() -> None:
    assert there_and_back(taking(Iterable[int]), (number for number in (1, 2))) == ([[1, 2]], {})


def test_an_annotation_that_can_not_be_resolved_means_plain_json() -> None:
    def func(a: Missing, b: list[Missing], c: datetime, d: Opaque, e: NoReturn) -> None: ...

    assert there_and_back(func, [1], 2, MOMENT, "x", None) == ([[1], 2, MOMENT, "x", None], {})


def test_a_class_method_is_called_without_its_class() -> None:
    class Jobs:
        @classmethod
        def run(cls, when: datetime) -> None: ...

    assert there_and_back(Jobs.run, MOMENT) == ([MOMENT], {})


def test_a_decorator_that_wraps_keeps_the_signature() -> None:
    @functools.wraps(taking(datetime))
    def func(*args: object) -> None: ...

    assert there_and_back(func, MOMENT) == ([MOMENT], {})


def test_two_parameters_share_a_recursive_model() -> None:
    def func(a: User, b: list[User], *, c: User | None = None) -> None: ...

    ada = User(userId=1, friends=[User(userId=2)])
    assert there_and_back(func, ada, [ada], c=ada) == ([ada, [ada]], {"c": ada})


def test_a_subclass_comes_back_as_the_annotated_class() -> None:
    class Admin(User):
        rights: int = 1

    assert there_and_back(taking(User), Admin(userId=1)) == ([User(userId=1)], {})


def test_a_function_is_forgotten_with_its_codec() -> None:
    func = taking(int)
    encoder_of(func)((1,), {})
    gone = weakref.ref(func)
    del func
    gc.collect()
    assert gone() is None


def test_a_row_written_by_hand_may_name_fields_by_their_alias() -> None:
    assert decoder_of(taking(User))('[{"userId": 3}]', None) == ((User(userId=3),), {})


def test_no_result_is_no_json() -> None:
    assert encode_result(None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ((MOMENT, ID), f'["2026-03-29T02:30:00.123456","{ID}"]'),
        (Strict(value=2), '{"value":2,"twice":4}'),
        (Point(1, b"\xff"), '{"x":1,"label":"_w==","at":null,"weight":0.0}'),
        (Login(password=SecretStr("x")), '{"password":"**********"}'),
        ("NaN \\u0000", '"NaN \\\\u0000"'),
    ],
)
def test_a_result_is_kept_as_json(value: object, text: str) -> None:
    assert text == encode_result(value)


def test_a_context_is_kept_as_json() -> None:
    assert encode_json({"a": {"b": [1, None, MOMENT]}}) == '{"a":{"b":[1,null,"2026-03-29T02:30:00.123456"]}}'
