"""Reading the configuration: TOML < TOCSIN_... environment < flags, into frozen structs.

Every error is one sentence: file, key, value, rule, nearest known key, and what happens now.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from telemetry.errors import ConfigError

T = TypeVar("T")
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

PREFIX = "TOCSIN_"
NOT_STARTED = "The node was not started."


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings struct. A misspelt key is an error, never a silent default."""


def load(
    path: Path | None,
    kind: type[T],
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> T:
    """Return the effective settings as a `kind`, or raise ConfigError.

    Environment: `TOCSIN_NODE__STATE_DIR=/x` sets `state_dir` in `[node]` (two underscores go one
    table down); values are read as TOML where they parse, else as text. `flags` are dotted keys.
    """
    tree: dict[str, Any] = {}
    lines = ""
    if path is not None:
        try:
            lines = path.read_text("utf-8")
            tree = tomllib.loads(lines)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}. {NOT_STARTED}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}. {NOT_STARTED}") from error
    origin: dict[str, str] = {}
    for name, value in sorted((environment if environment is not None else os.environ).items()):
        if name.startswith(PREFIX) and "__" in name:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(tree, key, _read_value(value))
            origin[key] = f"environment {name}"
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key, value)
            origin[key] = f"flag --{key.rsplit('.', 1)[-1].replace('_', '-')}"
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), path, lines, kind, origin)) from error


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[last] = value


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(
    message: str, path: Path | None, lines: str, kind: type[Any], origin: Mapping[str, str]
) -> str:
    match = re.search(r" - at `\$?(.*?)`$", message)
    where = match.group(1).lstrip(".") if match else ""
    said = message[: match.start()] if match else message
    unknown = re.search(r"unknown field `([^`]+)`", said)
    key = ".".join(part for part in (where, unknown.group(1) if unknown else "") if part)
    hint = ""
    if unknown:
        known = known_keys(kind)
        near = difflib.get_close_matches(key, known, 1, 0.6) or difflib.get_close_matches(
            unknown.group(1), [k.rsplit(".", 1)[-1] for k in known], 1, 0.6
        )
        said = f"unknown key `{unknown.group(1)}`"
        hint = f"; did you mean `{near[0]}`?" if near else "; `tocsin config schema` lists all keys"
    place = origin.get(key) or _place(path, lines, key)
    return f"{place}: {key + ': ' if key else ''}{said}{hint}. {NOT_STARTED}"


def _place(path: Path | None, lines: str, key: str) -> str:
    last = re.sub(r"\[.*?\]", "", key).rsplit(".", 1)[-1]
    for number, line in enumerate(lines.splitlines(), 1):
        if last and re.match(rf"\s*(\[+.*\b)?{re.escape(last)}\b", line):
            return f"{path}:{number}"
    return str(path) if path else "configuration"


def known_keys(kind: Any, prefix: str = "") -> list[str]:
    """Return every dotted key that `kind` and the structs in it know, `*` for named tables."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        found.append(name)
        for inner, path in _structs_in(field.type):
            found.extend(known_keys(inner, f"{name}.{path}"))
    return found


def defaults_of(kind: Any, prefix: str = "") -> list[tuple[str, str, Any]]:
    """Return (dotted key, type, default) of every option of a struct; None where it must be given.

    Structs that have a default are shown by their own options; those in named tables with `*`.
    """
    found: list[tuple[str, str, Any]] = []
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        inside = _structs_in(field.type)
        for inner, path in inside:
            found += defaults_of(inner, f"{name}.{path}")
        if not inside:
            default = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if default is msgspec.NODEFAULT:
                default = None
            found.append((name, _type_name(field.type), msgspec.to_builtins(default)))
    return found


def _type_name(annotation: Any) -> str:
    plain = getattr(annotation, "__origin__", annotation)
    if plain is Annotated:
        plain = annotation.__args__[0]
    return str(getattr(plain, "__name__", plain))


def _structs_in(annotation: Any) -> list[tuple[Any, str]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [(annotation, "")]
    found: list[tuple[Any, str]] = []
    arguments = getattr(annotation, "__args__", ())
    star = "*." if getattr(annotation, "__origin__", None) in (dict, Mapping) else ""
    for argument in arguments:
        found.extend((inner, star + path) for inner, path in _structs_in(argument))
    return found
