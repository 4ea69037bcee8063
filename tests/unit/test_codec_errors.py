"""What the codec refuses, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import Field, SecretStr

from queued_tasks.runtime.codec import (
    MAX_ARGUMENT_BYTES,
    MAX_RESULT_BYTES,
    decoder_of,
    encode_json,
    encode_result,
    encoder_of,
)
from queued_tasks.runtime.errors import InvalidTask, SerializationError
from tests.codec_types import (
    ID,
    MOMENT,
    Blob,
    Colour,
    Function,
    Hiding,
    Login,
    Opaque,
    Options,
    Point,
    User,
    anything,
    taking,
)


def send(to: str, copies: int = 1, /, subject: str = "", *, at: datetime) -> None: ...


def only_positional(a: int, /, **more: int) -> None: ...


AT: dict[Any, object] = {"at": MOMENT}
MISFITS: list[tuple[Function, tuple[object, ...], dict[Any, object], str]] = [
    (send, (), AT, "'to' is missing"),
    (send, ("a",), {}, "'at' is missing"),
    (send, ("a", 1, "s", 4), AT, "it takes 3 positional arguments, and 4 were given"),
    (send, ("a", 1, "s"), {"subject": "s", **AT}, "'subject' was given twice"),
    (send, ("a",), {"cc": "b", **AT}, "it has no keyword 'cc', only subject, at"),
    (send, (), {"to": "a", **AT}, "it has no keyword 'to', only subject, at"),
    (send, ("a",), {3: "b", **AT}, "the keyword 3 is no text"),
    (lambda: None, (1,), {}, "it takes 0 positional arguments, and 1 were given"),
    (lambda: None, (), {"a": 1}, "it has no keyword 'a', only none"),
    (only_positional, (), {"a": 1}, "'a' is missing"),
]


@pytest.mark.parametrize(("func", "args", "kwargs", "text"), MISFITS, ids=[str(at) for at in range(len(MISFITS))])
def test_a_call_that_does_not_fit_names_function_and_parameter(
    func: Function, args: tuple[object, ...], kwargs: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidTask) as caught:
        encoder_of(func)(args, kwargs)
    assert str(caught.value) == f"{func.__qualname__}() can't be called like this: {text}"


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)
NAN = "holds NaN or Infinity, which JSON can't keep: pass None or text instead"
NUL = "holds a NUL character, which PostgreSQL can't keep: remove it, or pass bytes"
SURROGATE = "holds a lone surrogate, which is no text: decode it with its right encoding, or pass bytes"
DEEP = "is nested too deeply, or holds a number of too many digits: pass it as text"
BYTES = "holds bytes that are no UTF-8: set ser_json_bytes and val_json_bytes to 'base64' in its model_config"
SECRET = "holds a secret, which JSON masks: let the task read it from where it is kept"
WITHOUT = "which JSON can't keep: pass plain data, or an id by which the task loads it"
APART = "is a {}, but would not come back as it is: JSON can't tell the types of {} apart, annotate it with one of them"
NUMBER = "Input should be a valid integer"
TYPES = "tests.codec_types"


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


REFUSED: list[tuple[object, object, str]] = [
    (int, "12", "must be int: Input should be a valid integer, got str"),
    (int, True, "must be int: Input should be a valid integer, got bool"),
    (int, 1.0, "must be int: Input should be a valid integer, got float"),
    (str, 1, "must be str: Input should be a valid string, got int"),
    (datetime, "2026-01-01", "must be datetime.datetime: Input should be a valid datetime, got str"),
    (UUID, str(ID), "must be uuid.UUID: Input should be an instance of UUID, got str"),
    (list[int], [1, "2"], "must be list[int]: Input should be a valid integer, got str at x[1]"),
    (dict[str, list[int]], {"a": [None]}, f"must be dict[str, list[int]]: {NUMBER}, got NoneType at x['a'][0]"),
    (list[int], (1,), "must be list[int]: Input should be a valid list, got tuple"),
    (int | str, 1.5, "must be int | str, got float"),
    (Literal["a"], "b", "must be Literal['a']: Input should be 'a', got str"),
    (Annotated[int, Field(gt=0)], 0, "must be int: Input should be greater than 0, got int"),
    (Colour, "red", f"must be {TYPES}.Colour: Input should be an instance of Colour, got str"),
    (Options, {"when": MOMENT, "x": 1}, f"must be {TYPES}.Options: Extra inputs are not permitted, got int at x['x']"),
    (Colour, Colour.PAIR, f"would not come back from JSON as {TYPES}.Colour: Input should be 'red' or (1, 2)"),
    (Hiding, Hiding(seen=1, hidden=2), f"would not come back from JSON as {TYPES}.Hiding: Field required"),
    (User, User.model_construct(user_id=None), f"would not come back from JSON as {TYPES}.User: {NUMBER}"),
    (datetime | str, "2026-01-01T00:00", APART.format("str", "datetime.datetime | str")),
    (list[date | str], ["2026-01-01"], APART.format("list", "list[datetime.date | str]")),
    (float, math.nan, NAN), (list[float], [math.inf], NAN), (Any, {"a": [-math.inf]}, NAN),
    (Decimal, Decimal("NaN"), NAN), (Point, Point(1, weight=math.nan), NAN),
    (User, User(userId=1, score=math.nan), NAN), (Any, User(userId=1, score=math.inf), NAN),
    (str, "a\0", NUL), (Any, ["\0"], NUL), (dict[str, int], {"\0": 1}, NUL), (Any, "\\\0", NUL),
    (Blob, Blob(content=b"\0"), NUL),
    (str, "\ud800", SURROGATE), (Any, {"\udfff": 1}, SURROGATE),
    (Any, nested(230), DEEP), (Any, nested(1000), DEEP), (int, 10**4300, DEEP),
    (Blob, Blob(content=b"\xff"), BYTES),
    (Login, Login(password=SecretStr("x")), SECRET), (SecretStr, SecretStr("x"), SECRET),
    (Any, Opaque(), f"holds a {TYPES}.Opaque, {WITHOUT}"),
    (Opaque, [Opaque()], f"holds a {TYPES}.Opaque, {WITHOUT}"),
    (Callable[..., int], print, f"holds a builtin_function_or_method, {WITHOUT}"),
    (Any, CIRCLE, "contains itself, which JSON can't: pass a tree"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "text"), REFUSED, ids=[str(at) for at in range(len(REFUSED))])
def test_a_value_that_can_not_be_kept_is_named(annotation: object, value: object, text: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encoder_of(taking(annotation))((value,), {})
    assert str(caught.value) == f"argument 'x' of taking.<locals>.func() {text}"


def several(a: int, *rest: float, b: int = 0, **more: object) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "label"),
    [
        ((1, 2.0, math.nan), {}, "'rest[1]'"),
        ((1,), {"b": "x"}, "'b'"),
        ((1,), {"b": 1, "extra": "\0"}, "'extra'"),
        ((1,), {"a\0": 1}, r"'a\x00'"),
        ((1,), {"extra": Opaque()}, "'extra'"),
        ((1,), {"extra": nested(230)}, "'extra'"),
    ],
    ids=["rest", "keyword", "extra", "key", "opaque", "deep"],
)
def test_the_argument_at_fault_is_named(args: tuple[object, ...], kwargs: dict[str, object], label: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encoder_of(several)(args, kwargs)
    assert str(caught.value).startswith(f"argument {label} of several() ")


@pytest.mark.parametrize("args", [(1, "x" * 1024), ()])
def test_too_large_arguments_name_the_largest(args: tuple[object, ...]) -> None:
    with pytest.raises(SerializationError) as caught:
        encoder_of(anything)(args, {"page": "x" * MAX_ARGUMENT_BYTES})
    assert str(caught.value) == (
        "the arguments of anything() take 1.0 MiB as JSON, more than 1.0 MiB: "
        "keep the most of it, argument 'page' of anything(), elsewhere and pass its id"
    )


def test_arguments_up_to_the_limit_are_kept() -> None:
    text, _ = encoder_of(anything)(("x" * (MAX_ARGUMENT_BYTES - 4),), {})
    assert len(text) == MAX_ARGUMENT_BYTES


STORED: list[tuple[str, str | None, str]] = [
    ('["a"', None, "stored arguments of send() can't be read: Invalid JSON: EOF while parsing"),
    ("{}", None, "stored arguments of send() can't be read: Input should be a valid array"),
    ('["a"]', "[]", "stored keyword arguments of send() can't be read: Input should be an object"),
    ('["a"]', "{", "stored keyword arguments of send() can't be read: Invalid JSON"),
    ("[1]", None, "stored argument 'to' of send() must be str: Input should be a valid string, got int"),
    ('["a"]', '{"at": "soon"}', "stored argument 'at' of send() must be datetime.datetime: Input should be"),
    ('["a"]', '{"cc": 1}', "stored keyword arguments of send() hold 'cc', which it doesn't take"),
    ('["a",1,"s",4]', None, "stored arguments of send() can't be read: Tuple should have at most 3 items"),
    ('["a"]', None, "send() can't be called with the stored arguments: 'at' is missing"),
    ("[]", '{"at": "2026-01-01"}', "send() can't be called with the stored arguments: 'to' is missing"),
    (
        '["a",1,"s"]',
        '{"at": "2026-01-01", "subject": "s"}',
        "send() can't be called with the stored arguments: 'subject' was given twice",
    ),
]


@pytest.mark.parametrize(("args", "kwargs", "text"), STORED, ids=[str(at) for at in range(len(STORED))])
def test_a_row_that_does_not_fit_is_explained(args: str, kwargs: str | None, text: str) -> None:
    with pytest.raises(SerializationError) as caught:
        decoder_of(send)(args, kwargs)
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith("; the task was written by hand, or for another version of the function")


BAD_RESULTS: list[tuple[object, str]] = [
    (math.nan, NAN),
    (User(userId=1, score=math.nan), NAN),
    (["\0"], NUL),
    ("\ud800", SURROGATE),
    (nested(230), DEEP),
    (Opaque(), f"holds a {TYPES}.Opaque, {WITHOUT}"),
    ("x" * MAX_RESULT_BYTES, "takes 8.0 MiB as JSON, more than 8.0 MiB"),
]


@pytest.mark.parametrize(("value", "text"), BAD_RESULTS, ids=[str(at) for at in range(len(BAD_RESULTS))])
def test_a_result_that_can_not_be_kept_says_that_the_task_ran(value: object, text: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode_result(value)
    assert str(caught.value) == f"the task ran, but its result can't be kept: it {text}; return JSON or None"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: 2}, "has the key 1, which is no text: use str keys"),
        ({"a": [{None: 1}]}, "has the key None, which is no text: use str keys"),
        ({"a": math.nan}, NAN),
        ({"\0": 1}, NUL),
    ],
)
def test_a_context_that_can_not_be_kept_says_why(value: object, text: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode_json(value)
    assert str(caught.value) == f"the value can't be kept as JSON: it {text}"
