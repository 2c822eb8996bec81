"""Frozen data classes as schemas of a configuration: OmegaConf checks types, choices and names by them.

OmegaConf itself makes read-only nodes of frozen classes and knows no ``Literal``, so :func:`schema` hands it a twin of
the class. :func:`build` makes the class of what was composed.
"""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, field, fields, is_dataclass, make_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from cxrnet.errors import CxrnetError

Settings = TypeVar("Settings")


@cache
def schema(settings: type[Any]) -> type[Any]:
    """Make the twin of a data class that OmegaConf takes as a schema.

    Choices become enumerations and tuples lists. A field without a default must be given, ``???``; one that is a data
    class has the defaults of that class.
    """
    hints = typing.get_type_hints(settings)
    kinds = {each.name: _kind(each.name, hints[each.name]) for each in fields(settings)}
    columns = [(each.name, kinds[each.name], _default(each, kinds[each.name])) for each in fields(settings)]
    return make_dataclass(settings.__name__, columns, namespace={"settings": settings}, eq=False, repr=False)


def register(settings: type[Any]) -> str:
    """Let Hydra compose on a data class, as ``<name>_schema`` in a defaults list; return its name, in small letters."""
    name = settings.__name__.lower()
    ConfigStore.instance().store(f"{name}_schema", schema(settings))  # type: ignore[arg-type]
    return name


def _kind(name: str, hint: Any) -> Any:  # noqa: ANN401 (any type)
    """Return the type that OmegaConf takes for a type of Python."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return schema(hint)  # type: ignore[arg-type]
    if origin is Literal:
        return StrEnum(name, {choice: choice for choice in arguments})
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        # A mapping that is null can't be merged into: OmegaConf takes the type for granted.
        kind = _kind(name, others[0]) if len(others) == 1 and get_origin(others[0]) is not dict else Any
        return kind | None if kind is not Any and len(others) < len(arguments) else kind
    if origin in (tuple, list):
        return list[_kind(name, arguments[0])]  # type: ignore[misc]
    if origin is dict:
        inner = _kind(name, arguments[1])
        return dict[str, inner] if is_dataclass(inner) else dict[Any, Any]  # type: ignore[valid-type]
    return hint


def _default(column: "Field[Any]", kind: Any) -> Any:  # noqa: ANN401 (any type)
    if isinstance(kind, type) and is_dataclass(kind) and column.default is NO_DEFAULT:
        return field(default_factory=kind)
    if column.default_factory is not NO_DEFAULT:
        return field(default_factory=column.default_factory)
    if column.default is NO_DEFAULT:
        return MISSING
    if isinstance(column.default, tuple):
        values = list(column.default)
        return field(default_factory=lambda: list(values))
    return column.default


def build(settings: type[Settings], values: Mapping[str, Any], key: str = "") -> Settings:
    """Make a data class, and those within it, of plain values that were composed by its schema.

    Args:
        settings: the class; its ``__post_init__`` refuses what types can't.
        values: by name of the field.
        key: where they stand in the configuration, for messages.

    Raises:
        CxrnetError: a field has no value, a value belongs to no field, or is no mapping or of another length.
    """
    hints = typing.get_type_hints(settings)
    if unknown := sorted(values.keys() - hints.keys()):
        raise CxrnetError(f"{key}.{unknown[0]}".strip(".") + ": no such key; leave it out")
    made = {name: _built(hints[name], value, f"{key}.{name}".strip(".")) for name, value in values.items()}
    try:
        return settings(**made)
    except TypeError as error:  # an argument is missing
        raise CxrnetError(f"{key or 'config'}: {str(error).partition('__init__() ')[2]}") from error


def unknown_keys(settings: type[Any], values: Mapping[str, Any], key: str = "") -> Iterator[str]:
    """List the dotted keys of a configuration that a data class, or one within it, has no fields for."""
    hints = typing.get_type_hints(settings)
    for name, value in values.items():
        place = f"{key}.{name}".strip(".")
        if name not in hints:
            yield place
            continue
        inner = next((each for each in (hints[name], *get_args(hints[name])) if is_dataclass(each)), None)
        for part in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(part, dict):
                yield from unknown_keys(inner, part, place)  # type: ignore[arg-type]


def _built(hint: Any, value: Any, key: str) -> Any:  # noqa: ANN401 (any type)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        alone = len(others) == 1 and (value is not None or len(others) == len(arguments))
        if alone:
            return _built(others[0], value, key)
        truth = any(isinstance(part, bool) for part in (value if isinstance(value, list) else [value]))
        if truth and not {bool, Any} & set(others):
            raise CxrnetError(f"{key}: {value} is of another type; give no truth value")
        return value
    if is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if origin is Literal and value not in arguments:
        raise CxrnetError(f"{key}: '{value}' is not known; use {' or '.join(map(str, arguments))}")
    if origin is dict and not isinstance(value, dict):
        raise CxrnetError(f"{key}: {value} is no mapping; give {{name: value}}")
    if hint in _PLAIN and type(value) not in _PLAIN[hint]:
        raise CxrnetError(f"{key}: {value} is of another type; give {_PLAIN[hint][0].__name__}")
    if origin is tuple:
        given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
        inner = arguments[:1] * len(given or ()) if arguments[-1] is ... else arguments
        if given is None or len(given) != len(inner):
            length = "" if arguments[-1] is ... else f" of {len(inner)}"
            raise CxrnetError(f"{key}: {value} won't do; give a list{length}")
        return tuple(_built(each, part, key) for each, part in zip(inner, given, strict=True))
    return value


def parts_of(twin: Any, name: str) -> int:  # noqa: ANN401 (what OmegaConf says of a node)
    """Return how many parts a list of a schema must have; 1 where any number will do."""
    hint = typing.get_type_hints(getattr(twin, "settings", object)).get(name)
    fixed = [each for each in (hint, *get_args(hint)) if get_origin(each) is tuple and ... not in get_args(each)]
    return len(get_args(fixed[0])) if fixed else 1


_PLAIN: dict[Any, tuple[type, ...]] = {int: (int,), float: (float, int), bool: (bool,)}


def need(holds: bool, key: str, value: object, wanted: str) -> None:
    """Refuse a value that has the right type and is out of range.

    Raises:
        CxrnetError: it doesn't hold.
    """
    if not holds:
        raise CxrnetError(f"{key}: {value} is out of range; give {wanted}")
