"""Arguments and results as JSON, typed by the function's annotations. Pure; what can't come back is refused."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from inspect import Parameter
from types import MethodType, UnionType
from typing import Annotated, Any, TypeAlias
from weakref import WeakKeyDictionary

from pydantic_core import ErrorDetails, SchemaSerializer, SchemaValidator, ValidationError, core_schema, from_json

from .errors import InvalidTask, SerializationError
from .flaws import (
    DEEP,
    MASK,
    MASKED,
    NAN,
    are_sound,
    flaw_in,
    holds_nan,
    holds_secret,
    is_readable,
    is_sound,
    may_be_flawed,
    odd_key,
    reason_of,
)
from .schemas import CONFIG, PLAIN_KINDS, Hint, hint_of, kinds_of, schemas_of, sharing

MAX_ARGUMENT_BYTES = 1024 * 1024
MAX_RESULT_BYTES = 8 * 1024 * 1024

_PLAIN = SchemaSerializer(core_schema.any_schema(), CONFIG)
_ABSENT = object()
Encoder: TypeAlias = Callable[[Sequence[object], Mapping[str, object]], tuple[str, str | None]]
BatchEncoder: TypeAlias = Callable[[Sequence[Sequence[object]]], list[str]]
Decoder: TypeAlias = Callable[[str, str | None], tuple[Sequence[object], dict[str, object]]]

_BY_WHOM = "by hand, or for another version of the function"


def encoder_of(func: Callable[..., object]) -> Encoder:
    """What makes of positional arguments for `func` a JSON array, of keyword arguments an object, of no keywords None.

    Defaults are not stored. What it returns is accepted by PostgreSQL's json and jsonb, and the decoder gives
    the same values back, as far as the annotations tell their types. It raises InvalidTask when the function can't be
    called like this, SerializationError when a value doesn't fit its annotation, or can't be kept; the text names it.
    """
    return _codec_of(func).encode


def batch_encoder_of(func: Callable[..., object]) -> BatchEncoder:
    """The same for many calls without keywords: what it returns, and raises, is what encoding one by one comes to."""
    return _codec_of(func).encode_batch


def decoder_of(func: Callable[..., object]) -> Decoder:
    """What makes of such JSON the arguments to call `func` with, in the types that it annotates.

    It raises SerializationError when a row written by hand holds broken JSON, or arguments that `func` doesn't take.
    """
    return _codec_of(func).decode


def encode_result(value: object) -> str | None:
    """What a task returned, as JSON; None stays None.

    Raises:
        SerializationError: it can't be kept.
    """
    if value is None:
        return None
    text, flaw = _encode_plain(value, MAX_RESULT_BYTES)
    if flaw:
        raise SerializationError(f"the task ran, but its result can't be kept: it {flaw}; return JSON or None")
    return text


def encode_json(value: object) -> str:
    """A context, or another value that is read back as plain JSON.

    Raises:
        SerializationError: it can't be kept, or a dict in it has a key that is no text.
    """
    text, flaw = _encode_plain(value, MAX_RESULT_BYTES)
    flaw = flaw or odd_key(value)
    if flaw:
        raise SerializationError(f"the value can't be kept as JSON: it {flaw}")
    return text


class _Side:
    """One half of a call, positional or by keyword: checked, encoded and decoded as a whole."""

    def __init__(
        self, function: str, what: str, schema: core_schema.CoreSchema, parameter: Callable[[Any], tuple[str, Hint]]
    ) -> None:
        self._function = function
        self._what = what
        self._parameter = parameter
        self._validator = SchemaValidator(schema, CONFIG)
        self._serializer = SchemaSerializer(schema, CONFIG)
        kinds = set(kinds_of(schema))
        self._tried = not kinds <= PLAIN_KINDS
        self._compared = "union" in kinds and kinds - {"union"} <= PLAIN_KINDS - {"any", "dict:any"}
        self._may_hide_nan = self._tried or "any" in kinds

    def encode(self, given: Any) -> bytes:
        try:
            values = self._validator.validate_python(given, strict=True)
        except ValidationError as error:
            raise SerializationError(self._unfit(error)) from None
        if len(values) != len(given):
            values = values[: len(given)]
        try:
            text = self._serializer.to_json(values, by_alias=False, round_trip=True, warnings=False)
        except (ValueError, RecursionError) as error:
            raise SerializationError(self._unserializable(values, error)) from None
        if not is_sound(text) or (self._may_hide_nan and b"null" in text):
            self._examine(values, text)
        if self._tried:
            self._try(values, text)
        return text

    def encode_batch(self, calls: Iterable[Sequence[object]]) -> list[bytes] | None:
        """What `encode` makes of each of these, which give all parameters; None where one by one is to be tried.

        That must find what was given unchanged, and an iterator in an Any would be at its end.
        """
        if self._may_hide_nan:
            return None
        validate, to_json = self._validator.validate_python, self._serializer.to_json
        try:
            values = [validate(tuple(given), strict=True) for given in calls]
            texts = [to_json(each, by_alias=False, round_trip=True, warnings=False) for each in values]
        except (ValueError, RecursionError):  # a ValidationError is a ValueError
            return None
        if not are_sound(texts):
            if max(map(len, texts)) > MAX_ARGUMENT_BYTES:
                return None
            for each, text in zip(values, texts, strict=True):
                if not is_sound(text):
                    self._examine(each, text)
        return texts

    def decode(self, text: str) -> Any:
        try:
            return self._validator.validate_json(text, by_alias=True, by_name=True)
        except ValidationError as error:
            raise SerializationError(f"stored {self._unfit(error)}; the task was written {_BY_WHOM}") from None

    def largest(self, text: bytes) -> tuple[int, str]:
        """The bytes of the largest argument, and what it is called."""
        sizes = ((len(_PLAIN.to_json(value)), self._name(at)) for at, value in _items(from_json(text)))
        return max(sizes, default=(0, ""))

    def _examine(self, values: Any, text: bytes) -> None:
        if not is_readable(text):
            raise SerializationError(self._unreadable(values))
        # A model writes its NaN as null: only the values themselves still tell.
        hidden = self._may_hide_nan and b"null" in text and holds_nan(self._dump(values))
        if hidden or may_be_flawed(text) or MASK in text:
            self._look_inside(values, text)

    def _look_inside(self, values: Any, text: bytes) -> None:
        for at, value in (*_items(from_json(text)), *_items(self._dump(values))):
            flaw = flaw_in([at, value]) or (MASKED if MASK in text and holds_secret(value) else None)
            if flaw:
                raise SerializationError(f"{self._name(at)} {flaw}")

    def _dump(self, values: Any) -> Any:
        return self._serializer.to_python(values, round_trip=True, warnings=False)

    def _try(self, values: Any, text: bytes) -> None:
        """Custom types, unions and enums may not be read from what they are written as: better known at the call."""
        try:
            back = self._validator.validate_json(text, by_alias=True, by_name=True)
        except ValidationError as error:
            first = _first(error)
            at = first["loc"][0]
            raise SerializationError(
                f"{self._name(at)} would not come back from JSON as {_shown(self._parameter(at)[1])}: {first['msg']}"
            ) from None
        for at, value in _items(values):
            hint = self._parameter(at)[1]
            changed = _is_union(hint) and not isinstance(value, type(back[at]))
            if changed or (self._compared and value != back[at]):
                raise SerializationError(
                    f"{self._name(at)} is a {_type(value)}, but would not come back as it is: "
                    f"JSON can't tell the types of {_shown(hint)} apart, annotate it with one of them"
                )

    def _name(self, at: Any) -> str:
        return f"argument {self._parameter(at)[0]!r} of {self._function}()"

    def _unfit(self, error: ValidationError) -> str:
        first = _first(error)
        if not first["loc"]:
            return f"{self._what} of {self._function}() can't be read: {first['msg']}"
        at, *inside = first["loc"]
        if first["type"] == "finite_number":
            return f"{self._name(at)} {NAN}"
        if first["type"] == "extra_forbidden" and not inside:
            return f"{self._what} of {self._function}() hold {at!r}, which it doesn't take"
        label, hint = self._parameter(at)
        if _is_union(hint):
            return f"{self._name(at)} must be {_shown(hint)}, got {_type(first['input'])}"
        place = f" at {label}{''.join(f'[{part!r}]' for part in inside)}" if inside else ""
        return f"{self._name(at)} must be {_shown(hint)}: {first['msg']}, got {_type(first['input'])}{place}"

    def _unserializable(self, values: Any, error: Exception) -> str:
        for at, value in _items(values):
            try:
                _PLAIN.to_json(value, warnings=False)
            except (ValueError, RecursionError) as own:
                return f"{self._name(at)} {reason_of(own)}"
        return f"{self._one()} {reason_of(error)}"

    def _unreadable(self, values: Any) -> str:
        found = (self._name(at) for at, value in _items(values) if not is_readable(_PLAIN.to_json(value)))
        return f"{next(found, self._one())} {DEEP}"

    def _one(self) -> str:
        return f"one of the {self._what} of {self._function}()"


class _Codec:
    """What is worked out once for each function: how many arguments it takes, and both sides of a call."""

    def __init__(self, func: Callable[..., object]) -> None:
        parameters = inspect.signature(func).parameters.values()
        hints = {each.name: hint_of(each, func) for each in parameters}
        only_positional, either, only_named = (
            [each.name for each in parameters if each.kind is kind]
            for kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        )
        rest = next((each.name for each in parameters if each.kind is Parameter.VAR_POSITIONAL), None)
        extra = next((each.name for each in parameters if each.kind is Parameter.VAR_KEYWORD), None)
        order = only_positional + either

        self.name = getattr(func, "__qualname__", repr(func))
        self._order = order
        self._only_positional = only_positional
        self._keywords = either + only_named
        self._open = extra is not None
        self._needed = [
            each.name for each in parameters if each.default is Parameter.empty and each.name not in (rest, extra)
        ]
        self.most: float = math.inf if rest else len(order)
        # Infinite when a keyword is needed: then the positional ones alone never do.
        self.least: float = len(self._needed) if set(self._needed) <= set(order) else math.inf

        def at_index(index: int) -> tuple[str, Hint]:
            if index < len(order):
                return order[index], hints[order[index]]
            return f"{rest}[{index - len(order)}]", hints[str(rest)]

        def at_name(name: str) -> tuple[str, Hint]:
            return name, hints[extra if extra and name not in self._keywords else name]

        schemas, shared = schemas_of(hints)
        positional = core_schema.tuple_schema(
            [core_schema.with_default_schema(schemas[name], default=_ABSENT) for name in order]
            + ([schemas[rest]] if rest else []),
            variadic_item_index=len(order) if rest else None,
        )
        named = core_schema.typed_dict_schema(
            {name: core_schema.typed_dict_field(schemas[name], required=False) for name in self._keywords},
            extra_behavior="allow" if extra else "forbid",
            extras_schema=schemas[extra] if extra else None,
            config=CONFIG,
        )
        self.positional = _Side(self.name, "arguments", sharing(shared, positional), at_index)
        self.named = _Side(self.name, "keyword arguments", sharing(shared, named), at_name)

    def encode(self, args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[str, str | None]:
        """See `encoder_of`."""
        if kwargs or not self.least <= len(args) <= self.most:
            misfit = self.misfit(len(args), kwargs)
            if misfit:
                raise InvalidTask(f"{self.name}() can't be called like this: {misfit}")
        text = self.positional.encode(tuple(args))
        named = self.named.encode(dict(kwargs)) if kwargs else None
        if len(text) + len(named or b"") > MAX_ARGUMENT_BYTES:
            raise SerializationError(_too_large(self, text, named))
        return text.decode(), None if named is None else named.decode()

    def encode_batch(self, calls: Sequence[Sequence[object]]) -> list[str]:
        """See `batch_encoder_of`."""
        whole = self.least <= self.most and {*map(len, calls)} == {self.most}
        texts = self.positional.encode_batch(calls) if whole else None
        if texts is None:
            return [self.encode(args, {})[0] for args in calls]
        return [text.decode() for text in texts]

    def decode(self, args: str, kwargs: str | None) -> tuple[Sequence[object], dict[str, object]]:
        """See `decoder_of`."""
        values: tuple[object, ...] = self.positional.decode(args)
        if values and values[-1] is _ABSENT:
            values = tuple(value for value in values if value is not _ABSENT)
        named: dict[str, object] = {} if kwargs is None else self.named.decode(kwargs)
        if named or not self.least <= len(values) <= self.most:
            misfit = self.misfit(len(values), named)
            if misfit:
                raise SerializationError(
                    f"{self.name}() can't be called with the stored arguments: {misfit}; "
                    f"the task was written {_BY_WHOM}"
                )
        return values, named

    def misfit(self, count: int, names: Collection[str]) -> str | None:
        """Why it can't be called with `count` positional arguments and these keywords; None when it can."""
        if count > self.most:
            return f"it takes {self.most} positional arguments, and {count} were given"
        given = self._order[:count]
        for name in names:
            if not isinstance(name, str):
                return f"the keyword {name!r} is no text"
            if name in given and name not in self._only_positional:
                return f"{name!r} was given twice"
            if name not in self._keywords and not self._open:
                return f"it has no keyword {name!r}, only {', '.join(self._keywords) or 'none'}"
        reachable = {*given, *names} - {name for name in self._only_positional if name not in given}
        missing = [name for name in self._needed if name not in reachable]
        return f"{missing[0]!r} is missing" if missing else None


_codecs: WeakKeyDictionary[Callable[..., object], _Codec] = WeakKeyDictionary()


def _codec_of(func: Callable[..., object]) -> _Codec:
    # A bound class method is a new object at each access: its function is what lasts.
    plain = func.__func__ if type(func) is MethodType else func
    codec = _codecs.get(plain)
    if codec is None:
        codec = _codecs[plain] = _Codec(func)
    return codec


def _items(values: Any) -> Iterable[tuple[Any, Any]]:
    return values.items() if isinstance(values, dict) else enumerate(values)


def _encode_plain(value: object, limit: int) -> tuple[str, str | None]:
    try:
        text = _PLAIN.to_json(value, warnings=False)
    except (ValueError, RecursionError) as error:
        return "", reason_of(error)
    if not is_readable(text):
        return "", DEEP
    if len(text) > limit:
        return "", f"takes {_mebibytes(len(text))} as JSON, more than {_mebibytes(limit)}"
    flaw = None
    if may_be_flawed(text) or (b"null" in text and holds_nan(_PLAIN.to_python(value, warnings=False))):
        flaw = flaw_in(from_json(text)) or flaw_in(_PLAIN.to_python(value, warnings=False))
    return text.decode(), flaw


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False)[0]


def _is_union(hint: Hint) -> bool:
    origin: object = typing.get_origin(hint)
    return origin in (typing.Union, UnionType) and len({*typing.get_args(hint)} - {type(None)}) > 1


def _shown(hint: Hint) -> str:
    origin: object = typing.get_origin(hint)
    return inspect.formatannotation(typing.get_args(hint)[0] if origin is Annotated else hint)


def _type(value: object) -> str:
    return type(value).__qualname__


def _mebibytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


def _too_large(codec: _Codec, text: bytes, named: bytes | None) -> str:
    sizes = [codec.positional.largest(text), *([codec.named.largest(named)] if named else [])]
    return (
        f"the arguments of {codec.name}() take {_mebibytes(len(text) + len(named or b''))} as JSON, more than "
        f"{_mebibytes(MAX_ARGUMENT_BYTES)}: keep the most of it, {max(sizes)[1]}, elsewhere and pass its id"
    )
