"""What is wrong with settings, in words, with file and line."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from telemetry.errors import ConfigError

NOT_STARTED = "The node was not started."
NESTED = (dict, list, tuple, Mapping)  # their entries are one key further down
KEY = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
LINE = re.compile(rf"\s*(\[{{0,2}})\s*((?:{KEY.pattern})(?:\s*\.\s*(?:{KEY.pattern}))*)\s*[\]=]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings came from, so that a mistake is told with its place."""

    path: Path | None = None
    text: str = ""
    set_by: Mapping[str, str] = field(default_factory=dict)  # by dotted key
    tree: Mapping[str, Any] = field(default_factory=dict)  # what was set

    def of(self, *keys: str) -> str:
        """Return `file:line` of a key, or the environment variable or flag that set it.

        Where the key itself is not in the file, its table, or the table around that.
        """
        if said := self.set_by.get(".".join(keys)):
            return said
        if self.path is None:
            return "configuration"
        line = _line_of(self.text, keys)
        return f"{self.path}:{line}" if line else str(self.path)

    def told(self, said: str) -> str:
        """Return a mistake that begins with a dotted key with its place, and with the key that is meant.

        A part that was made from a whole table knows a value, not always where it stands: where the sentence
        says the value of one key of the table, or its name, it is about that one.
        """
        where = re.split(r"[\s:]", said, maxsplit=1)[0]
        keys = where.split(".")
        meant, rest = _meant(self.tree, keys, said[len(where) :]), said[len(where) :]
        if meant:
            keys += meant
            again = rest.lstrip(": ").removeprefix(meant[-1])
            rest = again if again[:1] in (" ", ":") else f": {rest.lstrip(': ')}"
            said = ".".join(keys) + rest
        return f"{self.of(*keys)}: {said}"


def _meant(tree: Any, keys: Sequence[str], said: str) -> list[str]:
    """Return the keys, below `keys`, of the one setting that a sentence is about; [] where none stands out."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    if not isinstance(tree, Mapping):
        return []
    found = [(_said_of(key[-1], value, said), key) for key, value in _leaves(tree, [])]
    best = max((one for one, _ in found), default=(0, 0))
    first = [key for one, key in found if one == best]
    return first[0] if best[0] > 1 or (best[0] == 1 and len(first) == 1) else []


def _leaves(tree: Any, keys: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, [*keys, name])
        else:
            yield [*keys, name], value


def _said_of(name: str, value: Any, said: str) -> tuple[int, int]:
    """Return how much a sentence has of a setting (its name 1, its value 2), and minus where it has it first.

    Where it begins with the name, 4: a number further on may be another one's value.
    """
    named = re.search(rf"(?<![\w.]){re.escape(name)}\b", said)
    if named and not said[: named.start()].strip(": "):
        return 4, 0
    at = [named.start()] if named else []
    points = len(at)
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            place = (
                said.find(repr(one)) if len(one) < 4 else max(said.find(repr(one)), said.find(one))
            )
        elif type(one) in (int, float):
            number = re.search(rf"(?<![\w.]){re.escape(str(one))}(?![\w.]*\d)", said)
            place = number.start() if number else -1
        else:
            place = -1
        if place >= 0:
            return points + 2, -min([place, *at])
    return points, -min(at, default=0)


def wrong(mistakes: Sequence[str], then: str) -> ConfigError:
    """Return the error that tells mistakes, and what happens now."""
    lines = [one if one.endswith((".", "?")) else f"{one}." for one in mistakes]
    if len(lines) > 1:
        return ConfigError("\n  ".join([f"{len(lines)} mistakes:", *lines]) + f"\n{then}".rstrip())
    return ConfigError(f"{lines[0]} {then}".rstrip())


def understand(message: str, tree: Any, kind: type[Any]) -> tuple[list[str], str]:
    """Return the keys that msgspec complains about, and the complaint in words."""
    match = re.search(r" - at `(?:key in )?\$?(.*?)`$", message)
    keys = _exact(match.group(1), message, tree, kind) if match else []
    said = message[: match.start()] if match else message
    if unknown := re.search(r"unknown field `([^`]+)`", said):
        import difflib

        keys.append(unknown.group(1))
        known = known_keys(kind)
        near = difflib.get_close_matches(".".join(keys), known, 1, 0.6) or (
            difflib.get_close_matches(keys[-1], [k.rsplit(".", 1)[-1] for k in known], 1, 0.6)
        )
        hint = f"did you mean `{near[0]}`?" if near else "`tocsin config schema` lists all keys"
        return keys, f"unknown key `{keys[-1]}`; {hint}"
    if said.startswith("Invalid enum value"):
        return keys, f"{said}; one of {', '.join(map(repr, _choices(kind, keys)))}"
    return keys, said


def _exact(where: str, message: str, tree: Any, kind: type[Any]) -> list[str]:
    """Return the keys of a place. msgspec writes `[...]` for a name in a table of named tables."""
    keys: list[str] = []
    for part in re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+", where):
        if part == "[...]":
            names = list(_at(tree, keys))
            part = next(
                (n for n in names if _complaint(_only(tree, keys, n), kind) == message), "*"
            )
        keys.append(part.strip("[]"))
    return keys


def _at(tree: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def _only(tree: Any, keys: Sequence[str], name: str) -> Any:
    """Return a copy of the tree whose table at `keys` has this one entry."""
    if not keys:
        return {name: tree[name]}
    if isinstance(tree, list):
        return [_only(tree[int(keys[0])], keys[1:], name)]
    return {**tree, keys[0]: _only(tree[keys[0]], keys[1:], name)}


def _complaint(tree: Any, kind: type[Any]) -> str:
    try:
        msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _choices(annotation: Any, keys: Sequence[str]) -> list[Any]:
    """Return the values that the key may have, where it has a closed set."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        fields = {one.encode_name: one.type for one in msgspec.structs.fields(annotation)}
        return _choices(fields[keys[0]], keys[1:]) if keys and keys[0] in fields else []
    inside = [
        _choices(one, keys[get_origin(annotation) in NESTED :]) for one in get_args(annotation)
    ]
    return [value for values in inside for value in values]


def _line_of(text: str, keys: Sequence[str]) -> int:
    """Return the number of the line where the longest known beginning of `keys` stands, 0 if none."""
    table: list[str] = []
    best, found, seen = 0, 0, Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        match = LINE.match(line)
        if match is None:
            continue
        here = [part.strip("\"'") for part in KEY.findall(match[2])]
        if match[1]:
            if match[1] == "[[":  # an array of tables: its entries are counted
                name = ".".join(here)
                here.append(str(seen[name]))
                seen[name] += 1
            table = here
        else:
            here = [*table, *here]
        same = next(
            (i for i, (a, b) in enumerate(zip(here, keys, strict=False)) if a != b),
            min(len(here), len(keys)),
        )
        if same == len(here) and same > best:
            best, found = same, number
    return found


def known_keys(kind: Any, prefix: str = "") -> list[str]:
    """Return every dotted key that `kind` and the structs in it know, `*` for named tables."""
    found: list[str] = []
    for one in msgspec.structs.fields(kind):
        name = f"{prefix}{one.encode_name}"
        found.append(name)
        for inner, path in structs_in(one.type):
            found.extend(known_keys(inner, f"{name}.{path}"))
    return found


def structs_in(annotation: Any) -> list[tuple[Any, str]]:
    """Return the structs in an annotation, each with `*.` for each named table around it."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [(annotation, "")]
    found: list[tuple[Any, str]] = []
    arguments = getattr(annotation, "__args__", ())
    star = "*." if getattr(annotation, "__origin__", None) in (dict, Mapping) else ""
    for argument in arguments:
        found.extend((inner, star + path) for inner, path in structs_in(argument))
    return found
