"""The pydantic schemas of a function's parameters, from its annotations."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from inspect import Parameter
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeAlias

import typing_extensions
from pydantic import BeforeValidator, ConfigDict, TypeAdapter
from pydantic_core import core_schema

Hint: TypeAlias = Any  # what stands in an annotation has no common type

# Made into types at run time, which a type checker can't follow.
_LIST: Any = list
_SET: Any = set
_TUPLE: Any = tuple
_TYPED_DICT: Any = typing_extensions.TypedDict

CONFIG = core_schema.CoreConfig(
    allow_inf_nan=False, ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64"
)
_ADAPTER_CONFIG = ConfigDict(
    extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64"
)

_SCALARS = {"any", "bool", "bytes", "date", "datetime", "decimal", "float", "int", "none", "str", "time", "timedelta"}
_HOLDERS = {"frozenset", "list", "nullable", "set", "tuple", "typed-dict", "typed-dict-field"}
_KEYED = {"dict:any", "dict:int", "dict:str", "dict:uuid"}

# What always comes back from JSON as it was. A signature with any other kind of type is tried at each call.
PLAIN_KINDS = frozenset({"uuid", "default", "definitions", "definition-ref"} | _SCALARS | _HOLDERS | _KEYED)


def schemas_of(hints: Mapping[str, Hint]) -> tuple[dict[str, core_schema.CoreSchema], list[core_schema.CoreSchema]]:
    """The schema of each parameter, plain JSON where pydantic can't use its annotation, and what they share."""
    built = _built(list(hints.values()))
    if built is None:
        built = _built([hint if _built([hint]) else Any for hint in hints.values()])
    schemas, definitions = built or ([core_schema.any_schema()] * len(hints), [])
    return dict(zip(hints, schemas, strict=True)), definitions


def _built(hints: list[Hint]) -> tuple[list[core_schema.CoreSchema], list[core_schema.CoreSchema]] | None:
    if not hints:
        return [], []
    try:
        readable = tuple(_readable(hint) for hint in hints)
        schema: Any = TypeAdapter(_TUPLE[readable], config=_ADAPTER_CONFIG).core_schema
        definitions = []
        if schema["type"] == "definitions":
            schema, definitions = schema["schema"], schema["definitions"]
    except Exception:  # an annotation may be anything, and build its own schema in its own code
        return None
    items = schema["items_schema"]
    return (items, definitions) if len(items) == len(hints) else None


def sharing(definitions: list[core_schema.CoreSchema], schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """`schema`, built from parameters that refer to `definitions`."""
    return core_schema.definitions_schema(schema, definitions) if definitions else schema


def hint_of(parameter: Parameter, func: Callable[..., object]) -> Hint:
    """What `parameter` is annotated with; Any without an annotation, or with one that can't be resolved."""
    if parameter.annotation is Parameter.empty:
        return Any
    scope = getattr(inspect.unwrap(func), "__globals__", {})
    holder = SimpleNamespace(__annotations__={"hint": parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, scope, include_extras=True)["hint"]
        return hint | None if parameter.default is None else hint
    except Exception:  # a name that only a type checker knows
        return Any


def _readable(hint: Hint) -> Hint:
    """The same type in the form that pydantic reads: its own TypedDict, and what any iterable or set comes back as."""
    origin: Any = typing.get_origin(hint)
    args: tuple[Any, ...] = typing.get_args(hint)
    if sys.version_info < (3, 12) and type(hint).__module__ == "typing" and typing.is_typeddict(hint):
        return _typed_dict(hint)
    if origin in (Literal, None) or not args or any(isinstance(arg, list) for arg in args):
        return hint
    if origin is Annotated:
        return Annotated[(_readable(args[0]), *args[1:])]
    inner = tuple(_readable(arg) for arg in args)
    if origin is Iterable:
        return Annotated[_LIST[inner], BeforeValidator(_listed)]
    if origin is Set:
        return Annotated[_SET[inner], BeforeValidator(_thawed)]
    if inner == args:
        return hint
    return functools.reduce(operator.or_, inner) if origin in (typing.Union, UnionType) else origin[inner]


def _typed_dict(hint: Hint) -> Hint:
    fields = {}
    for name, field in typing.get_type_hints(hint, include_extras=True).items():
        marked = typing.get_origin(field) in (typing.Required, typing.NotRequired)
        inner = _readable(typing.get_args(field)[0] if marked else field)
        # A quoted NotRequired is only known once its hint is resolved.
        required = typing.get_origin(field) is typing.Required if marked else name in hint.__required_keys__
        fields[name] = inner if required else typing_extensions.NotRequired[inner]
    return _TYPED_DICT(hint.__name__, fields)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, Iterable) else value


def _thawed(value: object) -> object:
    return set(value) if isinstance(value, frozenset) else value


def kinds_of(schema: object) -> Iterator[str]:
    """The type of each node of a schema; of a dict with that of its keys."""
    if isinstance(schema, list | tuple):
        for item in schema:
            yield from kinds_of(item)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind == "dict":
            yield f"dict:{schema.get('keys_schema', {}).get('type', 'any')}"
        elif isinstance(kind, str):
            yield kind
        for key, value in schema.items():
            if key not in ("metadata", "default", "config"):
                yield from kinds_of(value)
