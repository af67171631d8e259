"""Traps as X.733 alarms, by rules that are data files: which alarm, of which resource, raised or cleared.

The rules that ship lie in data/traps/*.toml; more, or others for the same traps, come from files of
the same form (`mappings`). A later rule for a trap takes the place of an earlier one.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from collectors.snmp.digest import Part, Selectors, make_selectors
from collectors.snmp.names import Names, Object, label_of, load_names
from runtime.settings import Seconds, Settings
from telemetry.errors import ConfigError
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import SNMP_TRAP_ADDRESS, Notification
from telemetry.x733 import CLEARED, EVENT_TYPE_OF, EVENT_TYPES, SEVERITIES

TITLE_MAX = 500
VARIABLE_TEXT_MAX = 1024
_PLACE = re.compile(r"\{([^{}]+)\}")
_ANY = "*"


class StateRule(Settings, frozen=True, kw_only=True):
    """The severity stands in a variable: `values` by its text, `*` for all others."""

    object: str
    values: dict[str, str]


class TrapRule(Settings, frozen=True, kw_only=True):
    """`[[trap]]`: what one trap, or several, mean."""

    trap: str | list[str]  # names or OIDs
    kind: str = ""  # the alarm type; the same for what raises and clears. Default: the first name
    severity: str = "indeterminate"  # or "cleared"
    state: StateRule | None = None  # instead of `severity`
    cause: str = "other"  # X.733 probable cause
    event_type: str = ""  # default: that of the cause
    key: list[str] = []  # variables or index objects that tell resources apart
    label: list[str] = []  # the first of these that the trap carries names the resource for people
    noun: str = ""  # in front of the key where there is no label: `interface 12`
    title: str = ""  # {resource}, {device} and variables by name
    # Of what never says that it is over; 0 = waits for its clear.
    clear_after_seconds: Seconds = 0.0


class ObjectTables(Settings, frozen=True, kw_only=True):
    """Names that a file of rules or a profile brings along."""

    objects: dict[str, str] = {}  # names for OIDs that are in no table of names
    types: dict[str, str] = {}  # of those objects: integer, octets, oid, address, inet, date
    enumerations: dict[str, dict[str, int]] = {}
    indexes: dict[str, list[str]] = {}  # of their rows: row OID to names of index objects

    def objects_named(self) -> Iterable[Object]:
        """Yield them."""
        for name, oid in self.objects.items():
            enums = {number: word for word, number in self.enumerations.get(name, {}).items()}
            base = self.types.get(name, "integer" if enums else "")
            hint = base if base in ("inet", "date") else ""
            yield Object(oid, name, "", "column", "octets" if hint else base, hint, enums)
        for oid, index in self.indexes.items():
            yield Object(oid, f"row {oid}", "", "row", index=tuple(index))


class MappingFile(ObjectTables, frozen=True, kw_only=True):
    """A file of rules."""

    trap: list[TrapRule] = []


class Meaning(NamedTuple):
    """What a notification means, without who sent it."""

    kind: str
    severity: str  # or "cleared"
    key: tuple[str, ...]
    label: str  # "" where the trap names its resource by the key alone
    fallback: str
    title: str
    event_type: str
    cause: str
    clear_after_seconds: float
    fields: dict[str, str]


class Said(NamedTuple):
    """The variables of a notification as texts.

    `fields`: by object name, and index objects. `NAME@instance` is a variable's index as it is,
    `NAME@head` and `NAME@last` the two parts of an OID that is its value. Of several instances of one
    object the first counts; those without a name are under their OID. `variables`: by name and index.
    """

    fields: dict[str, str]
    variables: dict[str, str]


class TrapMapping:
    """Rules by trap OID, with the names they use."""

    def __init__(self, names: Names, rules: Sequence[TrapRule]) -> None:
        self.names = names
        self.rules: dict[str, TrapRule] = {}
        aliases: dict[str, TrapRule] = {}
        for rule in rules:
            for trap in [rule.trap] if isinstance(rule.trap, str) else rule.trap:
                oid = names.oid(trap)
                self.rules[oid] = rule
                aliases[_other_form(oid)] = rule
        # A v1 trap of E.N arrives as E.0.N, and some send what was defined as E.0.N as E.N.
        for oid, rule in aliases.items():
            self.rules.setdefault(oid, rule)

    def selectors(self) -> Selectors:
        """Return which bindings count for a digest, by trap."""
        rows = [one for one in self.names.by_oid.values() if one.kind == "row"]
        return make_selectors(
            [SNMP_TRAP_ADDRESS],
            {oid: list(self._selected(rule, rows)) for oid, rule in self.rules.items()},
        )

    def _selected(self, rule: TrapRule, rows: Iterable[Object]) -> Iterable[tuple[str, Part]]:
        wanted = [name.partition("@")[0] for name in rule.key]
        for name in wanted:
            yield self.names.oid(name), Part.WHOLE
        for row in rows:
            if any(name in (part.lstrip("!") for part in row.index) for name in wanted):
                yield row.oid, Part.NAME
        for name in _PLACE.findall(rule.kind):
            yield self.names.oid(name.partition("@")[0]), Part.BESIDE
        if rule.state is not None:
            yield self.names.oid(rule.state.object.partition("@")[0]), Part.BESIDE

    def name(self, trap_oid: str) -> str:
        """Return a trap's name, its OID where none is known."""
        for oid in (trap_oid, _other_form(trap_oid)):
            known = self.names.by_oid.get(oid)
            if known is not None:
                return known.name
        return trap_oid

    def read(self, notification: Notification, *, variables_max: int = 64) -> Said:
        """Return the variables of a notification as texts."""
        found: dict[str, str] = {}
        beside: dict[str, str] = {}
        shown: dict[str, str] = {}
        names = self.names
        for one in notification.varbinds[:variables_max]:
            known, row, index = names.placed(one.oid)
            value = one.value
            text = names.text(known, value)
            name = known.name if known else one.oid
            parts: dict[str, str] = {}
            if known is not None and index:
                beside.setdefault(f"{name}@instance", index)
                parts = names.split_index(row, index) if row else {}
            found.setdefault(name, text)
            if one.tag == Tag.OID and isinstance(value, str):
                beside.setdefault(f"{name}@head", value.rpartition(".")[0])
                beside.setdefault(f"{name}@last", value.rpartition(".")[2])
            for part, part_text in parts.items():
                beside.setdefault(part, part_text)
            shown[label_of(name, index if known else "", parts)] = text[:VARIABLE_TEXT_MAX]
        return Said(beside | found, shown)

    def meaning(self, notification: Notification, said: Said | None = None) -> Meaning | None:
        """Return what a notification means, None where no rule is there for it."""
        rule = self.rules.get(notification.trap_oid)
        if rule is None:
            return None
        fields = (said or self.read(notification)).fields
        severity = rule.severity
        if rule.state is not None:
            state = fields.get(rule.state.object, "")
            severity = rule.state.values.get(state, rule.state.values.get(_ANY, severity))
        key = tuple(fields.get(name, "") for name in rule.key)
        if rule.key and not any(key):
            # The names we know do not fit: the instances themselves must tell resources apart.
            key = tuple(one.oid for one in notification.varbinds[:1])
        label = next((fields[name] for name in rule.label if fields.get(name)), "")
        fallback = " ".join(part for part in (rule.noun, *key) if part)
        return Meaning(
            _filled(rule.kind or self.name(notification.trap_oid), fields),
            severity,
            key,
            label,
            fallback,
            rule.title or "{resource}: " + self.name(notification.trap_oid),
            rule.event_type or EVENT_TYPE_OF.get(rule.cause, "other"),
            rule.cause,
            0.0 if severity == CLEARED else rule.clear_after_seconds,
            fields,
        )


def fill_title(title: str, fields: Mapping[str, str], *, resource: str, device: str) -> str:
    """Return a title with its places filled; what the trap did not carry is `?`."""
    own = {"resource": resource or device, "device": device}
    return _filled(title, fields, own)[:TITLE_MAX]


def _filled(
    template: str, fields: Mapping[str, str], own: Mapping[str, str] = MappingProxyType({})
) -> str:
    parts = _parts(template)
    if len(parts) == 1:
        return template
    made = list(parts)
    for place in range(1, len(parts), 2):
        name = parts[place]
        made[place] = own.get(name) or fields.get(name) or "?"
    return "".join(made)


@lru_cache(4096)
def _parts(template: str) -> tuple[str, ...]:
    """Return a template's text and places in turn."""
    return tuple(_PLACE.split(template))


def _other_form(oid: str) -> str:
    head, _, last = oid.rpartition(".")
    return f"{head[:-2]}.{last}" if head.endswith(".0") else f"{head}.0.{last}"


# ---- files


def _read(text: str, origin: str) -> MappingFile:
    try:
        read = msgspec.convert(tomllib.loads(text), MappingFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{origin}: {error}. The node was not started.") from error
    for rule in read.trap:
        words = [rule.severity, *(rule.state.values.values() if rule.state else ())]
        for word in words:
            if word != CLEARED and word not in SEVERITIES:
                raise ConfigError(
                    f"{origin}: trap {rule.trap}: severity {word!r} is none of "
                    f"{', '.join(SEVERITIES)}, {CLEARED}. The node was not started."
                )
        if rule.cause not in EVENT_TYPE_OF or (rule.event_type or "other") not in EVENT_TYPES:
            raise ConfigError(
                f"{origin}: trap {rule.trap}: X.733 knows no cause {rule.cause!r} or no event type "
                f"{rule.event_type!r}. The node was not started."
            )
    return read


@lru_cache(1)
def _shipped() -> tuple[tuple[str, MappingFile], ...]:
    folder = files("collectors.snmp") / "data" / "traps"
    found = sorted(
        (entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".toml")
    )
    return tuple((name, _read(entry.read_text("utf-8"), name)) for name, entry in found)


def load_mapping(paths: Iterable[str] = (), mib_files: Iterable[str] = ()) -> TrapMapping:
    """Return the shipped rules with those of `paths` behind them; raises ConfigError."""
    read = list(_shipped())
    for path in paths:
        try:
            read.append((path, _read(Path(path).read_text("utf-8"), path)))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"mappings: {path}: {error}. The node was not started.") from error
    names = load_names(mib_files, [one for _, file in read for one in file.objects_named()])
    for origin, file in read:
        for rule in file.trap:
            _check_names(rule, names, origin)
    return TrapMapping(names, [rule for _, file in read for rule in file.trap])


def _check_names(rule: TrapRule, names: Names, origin: str) -> None:
    traps = [rule.trap] if isinstance(rule.trap, str) else rule.trap
    used: list[Any] = [*traps, *rule.key, *rule.label]
    if rule.state is not None:
        used.append(rule.state.object)
    for name in used:
        if not names.oid(name.partition("@")[0]):
            raise ConfigError(
                f"{origin}: trap {rule.trap}: no object {name!r} is known; write its OID, add it to "
                f"[objects], or name a table of names in mib_files. The node was not started."
            )
