"""Configs: dataclasses that are read from YAML, with a clear word for what can't be."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from typing_extensions import Self

from aligner_integrations.errors import ConfigurationError

_PLAIN = (bool, int, float, str)


class Config:
    """Reading a config from plain data or a file, and writing it down."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it."""
        return asdict(cast("Any", self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> Self:
        """Read plain data.

        Raises:
            ConfigurationError: A key is unknown or missing, or a value has the wrong type.
        """
        config: Self = build_config(cls, data, where)
        return config

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; paths in it are relative to the current directory.

        Raises:
            ConfigurationError: The file is missing, no YAML, or says something that cannot work.
        """
        return cls.from_dict(read_yaml(path), str(path))


def check_choices(config: Any, **kinds: Any) -> None:
    """Raise `ConfigurationError` for a field that is none of its Literal's values."""
    for name, kind in kinds.items():
        if getattr(config, name) not in get_args(kind):
            raise ConfigurationError(
                f"{name}={getattr(config, name)!r} must be one of "
                + ", ".join(map(repr, get_args(kind)))
            )


def check_least(values: Mapping[str, tuple[float, float]]) -> None:
    """Raise `ConfigurationError` for a value below its least."""
    for name, (value, least) in values.items():
        if value < least:
            raise ConfigurationError(f"{name}={value!r} must be at least {least}")


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigurationError: The file is missing, or no YAML.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from None


def build_config(cls: Any, data: Any, where: str) -> Any:
    """A config's dataclass from plain data, with dataclasses in it.

    A dataclass with a static method ``spell_out`` may be written in a short way, which that method
    makes the long one of.

    Raises:
        ConfigurationError: A key is unknown or missing, or a value has the wrong type.
    """
    if (spell_out := getattr(cls, "spell_out", None)) is not None:
        data = spell_out(data)
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{where}: expected keys and values, not {data!r:.80}")
    known = {item.name: item for item in fields(cls)}
    if unknown := [key for key in data if key not in known]:
        raise ConfigurationError(
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}"
        )
    kinds = get_type_hints(cls)
    values = {}
    for key, item in known.items():
        if key in data:
            values[key] = _read(kinds[key], data[key], f"{where}: {key}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigurationError(f"{where}: {key!r} is missing")
    return cls(**values)


def _read(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return build_config(kind, value, where)
    if get_origin(kind) in (Union, types.UnionType):
        return _read_union(get_args(kind), value, where)
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        if not isinstance(value, list) or (
            inner is str and not all(isinstance(one, str) for one in value)
        ):
            what = "a list of strings" if inner is str else "a list"
            raise ConfigurationError(f"{where}: {value!r:.80} must be {what}")
        return [_read(inner, one, f"{where}[{place}]") for place, one in enumerate(value)]
    if get_origin(kind) is dict and not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: expected keys and values, not {value!r:.80}")
    if kind is float:
        value = _read_float(value, where)
    if kind in _PLAIN and not _is_a(kind, value):
        raise ConfigurationError(f"{where}: {value!r:.80} must be of type {kind.__name__}")
    return value


def _read_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """A value of one of several types; the first that fits."""
    if value is None and type(None) in options:
        return None
    if len(rest := [one for one in options if one is not type(None)]) == 1:
        return _read(rest[0], value, where)
    for option in rest:
        try:
            return _read(option, value, where)
        except ConfigurationError:
            continue
    names = [getattr(get_origin(one) or one, "__name__", str(one)) for one in rest]
    raise ConfigurationError(f"{where}: {value!r:.80} must be of type {' or '.join(names)}")


def _read_float(value: Any, where: str) -> Any:
    if isinstance(value, str):  # YAML reads 2e-5 as a str
        try:
            return float(value)
        except ValueError:
            raise ConfigurationError(f"{where}: {value!r} is no number") from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
