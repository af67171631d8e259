"""What people may set, told from the settings structs: key, type, default, and what it means.

The meaning is the comment that stands beside a field, or above it: written once, where it is read
most. `docs/configure.md`, `tocsin config schema` and `tocsin collectors list` all show it.
"""

import inspect
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from runtime.mistakes import structs_in


class Option(NamedTuple):
    """One thing that can be set; a `*` in its key is a name of one's choice."""

    key: str
    type: str
    default: Any
    what: str
    required: bool = False


def options_of(kind: Any, prefix: str = "") -> Iterator[Option]:
    """Yield every option of a struct; those of structs within it by dotted keys."""
    meanings = meanings_of(kind)
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        inside = structs_in(field.type)
        for inner, path in inside:
            yield from options_of(inner, f"{name}.{path}")
        if not inside:
            default = None if field.required else field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            yield Option(
                name,
                _type_name(field.type),
                msgspec.to_builtins(default),
                meanings.get(field.name, ""),
                field.required,
            )


def meanings_of(kind: type[Any]) -> dict[str, str]:
    """Return the comments of a struct's fields, those of its bases too."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if issubclass(one, msgspec.Struct) and getattr(one, "__annotations__", None):
            found |= _comments(one)
    return found


def schema_of(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of a struct, with what each key means."""
    schema = msgspec.json.schema(kind)
    known = schema["$defs"]
    for one in _structs(kind, {}):
        full = f"{one.__module__}.{one.__qualname__}"  # where two structs have one name
        properties = known[full if full in known else one.__name__]["properties"]
        names = {field.name: field.encode_name for field in msgspec.structs.fields(one)}
        for name, what in meanings_of(one).items():
            properties[names[name]]["description"] = what
    return schema


def _structs(kind: Any, seen: dict[Any, None]) -> dict[Any, None]:
    if kind not in seen:
        seen[kind] = None
        for field in msgspec.structs.fields(kind):
            for inner, _ in structs_in(field.type):
                _structs(inner, seen)
    return seen


def _comments(kind: type[Any]) -> dict[str, str]:
    """Return the comments of the fields that this class itself declares, none where its source is not at hand."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # a plug-in's, made by a program or packed without its source
        return {}
    found: dict[str, list[str]] = {}
    above: list[str] = []
    within = ""  # the field whose value goes over several lines
    for line in map(str.strip, source.splitlines()):
        code, _, beside = line.partition("  # ")
        name = code.partition(":")[0]
        if line.startswith("#"):
            above.append(line.lstrip("# "))
            continue
        if name in kind.__annotations__:
            within = name
            found[name] = above
        if within and beside:
            found[within] = [*found[within], beside]
        within = within if code.endswith(("(", "[", "{", ",")) else ""
        above = []
    return {name: " ".join(what) for name, what in found.items() if what}


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (UnionType, Union):
        return " or ".join(map(_type_name, get_args(annotation)))
    plain = get_origin(annotation) or annotation
    return "none" if plain is NoneType else str(getattr(plain, "__name__", plain))
