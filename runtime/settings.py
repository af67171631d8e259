"""Reading the configuration: TOML < TOCSIN_... environment < flags, into frozen structs.

Every mistake is one sentence: file and line, key, value, rule, nearest known key; all are told at once.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from runtime.mistakes import NOT_STARTED, Origin, understand, wrong

T = TypeVar("T")
# No span of time in settings is longer, so that none is infinite, and ns of it are an int64.
YEARS = 10
PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
NotNegativeInt = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=YEARS * 365 * 86_400)]
PositiveSeconds = Annotated[float, msgspec.Meta(ge=1e-6, le=YEARS * 365 * 86_400)]
Minutes = Annotated[float, msgspec.Meta(ge=0, le=YEARS * 365 * 1440)]
PositiveHours = Annotated[float, msgspec.Meta(ge=1e-6, le=YEARS * 365 * 24)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

PREFIX = "TOCSIN_"
MISTAKES_MAX = 20  # told at once
NOTHING = object()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings struct. A misspelt key is an error, never a silent default."""


def load(
    path: Path | None,
    kind: type[T],
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    then: str = NOT_STARTED,
) -> T:
    """Return the effective settings as a `kind`, or raise ConfigError that tells all mistakes.

    Environment: `TOCSIN_NODE__STATE_DIR=/x` sets `state_dir` in `[node]` (two underscores go one
    table down); values are read as TOML where they parse, else as text. `flags` are dotted keys.
    `then` is what happens now, said at the end.
    """
    made, _ = load_with_origin(path, kind, environment=environment, flags=flags, then=then)
    return made


def load_with_origin(
    path: Path | None,
    kind: type[T],
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    then: str = NOT_STARTED,
) -> tuple[T, Origin]:
    """`load`, and where each key came from."""
    tree: dict[str, Any] = {}
    text = ""
    if path is not None:
        import tomllib  # not in a process that is handed its settings

        try:
            text = path.read_text("utf-8")
            tree = tomllib.loads(text)
        except FileNotFoundError as error:
            fix = "name one that is there, or none: all has a default"
            raise wrong([f"{path}: {error.strerror}; {fix}"], then) from error
        except OSError as error:
            raise wrong([f"{path}: {error.strerror}"], then) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise wrong([f"{path}: not valid TOML: {error}"], then) from error
    set_by: dict[str, str] = {}
    for name, value in sorted((environment if environment is not None else os.environ).items()):
        if name.startswith(PREFIX) and "__" in name:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(tree, key, _read_value(value))
            set_by[key] = f"environment {name}"
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, key, value)
            set_by[key] = f"flag --{key.rsplit('.', 1)[-1].replace('_', '-')}"
    origin = Origin(path, text, set_by, tree)
    mistakes: list[str] = []
    while True:
        try:
            made = msgspec.convert(tree, kind)
            break
        except msgspec.ValidationError as error:
            keys, said = understand(str(error), tree, kind)
            name = ".".join(keys)
            mistakes.append(f"{origin.of(*keys)}: {name + ': ' if name else ''}{said}")
            # Without this key the rest is looked at, so that one run tells all.
            if len(mistakes) == MISTAKES_MAX or not _drop(tree, keys):
                raise wrong(mistakes, then) from error
    if mistakes:
        raise wrong(mistakes, then)
    return made, origin


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[last] = value


def _drop(tree: Any, keys: Sequence[str]) -> bool:
    """Remove a key; False where there is nothing to remove."""
    for key in keys[:-1]:
        tree = tree[int(key)] if isinstance(tree, list) else tree.get(key)
    if isinstance(tree, list):
        tree.pop(int(keys[-1]))
        return True
    return bool(keys) and isinstance(tree, dict) and tree.pop(keys[-1], NOTHING) is not NOTHING


def _read_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
