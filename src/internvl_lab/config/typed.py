"""Turn a plain nested mapping into the frozen dataclasses of this room, refusing what does not fit.

Hydra refuses unknown keys on the command line; this refuses them in files too, and names the full key.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from internvl_lab.errors import ConfigError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], key: str = "") -> T:
    """Build dataclass `cls` from `values`, recursively.

    Args:
        cls: a dataclass; its fields may be dataclasses, tuples, dicts and unions with None.
        values: plain containers and scalars.
        key: dotted key of `values` in the whole configuration, for messages.
    Raises:
        ConfigError: a key is unknown or a value has the wrong type; the message names the full key.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {_join(key, str(name))!r}; known here: {', '.join(known)}")
    return cls(**{name: _convert(hints[name], value, _join(key, name)) for name, value in values.items()})


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, key)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r} must be a group of keys, not a {type(value).__name__}")
        return from_mapping(typing.cast("type[Any]", hint), value, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key}={value!r} must be a list")
        return tuple(_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r} must be a group of keys")
        return {str(k): _convert(args[1], v, _join(key, str(k))) for k, v in value.items()}
    return _scalar(hint, value, key)


def _scalar(hint: Any, value: Any, key: str) -> Any:
    """Accept exactly the declared type; an int is a float, nothing else is converted."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key}={value!r} must be {hint.__name__}, not {type(value).__name__}")
    return value
