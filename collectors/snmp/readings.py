"""What a device answered becomes samples: names for rows, numbers in their unit, counters that only grow.

A counter is made one that only grows, so that the chain sees neither wraps nor restarts: what a 32-bit
one grew by modulo 2**32 is added up; after a restart (sysUpTime went back) what it shows is what came
since; a discontinuity that the device announces, or a counter set back by hand, adds nothing. Only
when we are restarted ourselves a sample may be below the one before it: the chain's counter reset.

Source: RFC 2863 section 3.1.6 (counter size), 2578 section 7.1.6; RFC 3433 (sensor scale, precision).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.series_book import Sample
from collectors.snmp.names import Names, Object
from collectors.snmp.profiles import UNITS, ColumnRule, Profile, TableRule, kind_of
from telemetry.sample_series import SampleKind

UPTIME_SLACK = 30_000  # hundredths of a second: five minutes of doubt about when it wrapped
Value = int | float | str | bytes | None
Walk = Mapping[str, Value]  # by index
_SCALE_UNITS = 9  # EntitySensorDataScale: units(9), a step is a factor of 1000


class Book(Protocol):
    """What names series: collectors.series_book.SeriesBook."""

    def id(self, entity: str, metric: str, dimensions: Mapping[str, str], *, unit: str = "") -> int:
        """Return the id of a series."""
        ...


@dataclass(slots=True)
class DeviceMemory:
    """What is remembered of a device from one poll to the next."""

    uptime: int = -1
    uptime_ns: int = 0
    raw: dict[int, int] = field(default_factory=dict)  # last value of each counter
    added: dict[int, int] = field(default_factory=dict)  # by how much ours is above it, where it is
    discontinuity: dict[str, Value] = field(default_factory=dict)
    named: dict[tuple[str, int], str] = field(default_factory=dict)  # option rows already told
    told_ns: int = 0
    restarted: bool = False  # since the poll before

    def up(self, uptime: int, now_ns: int) -> bool:
        """Take sysUpTime; return whether the device was restarted since the last poll."""
        before, before_ns = self.uptime, self.uptime_ns
        self.uptime, self.uptime_ns = uptime, now_ns
        self.restarted = False
        if before >= 0 and uptime < before:
            # It wraps after 497 days; a restart is what does not fit the time that passed.
            due = before + (now_ns - before_ns) // 10_000_000
            self.restarted = abs(due - (1 << 32) - uptime) > UPTIME_SLACK
        return self.restarted

    def count(self, series: int, value: int, bits: int, *, began_anew: bool) -> int:
        """Return a counter's value as one that only grows."""
        before = self.raw.get(series)
        self.raw[series] = value
        added = self.added.get(series, 0)
        if before is None:
            return value
        if began_anew:
            added += before - value  # nothing is known of what came in between
        elif value >= before:
            return value + added  # also where only the agent was restarted and counters went on
        elif self.restarted:
            added += before
        elif bits == 32 and value + (1 << 32) - before < 1 << 31:
            added += 1 << 32
        else:
            added += before - value  # set back by hand: a wrap would be a leap of half its range
        self.added[series] = added
        return value + added


def number(value: Value) -> float | None:
    """Return a value as a number; some agents send numbers as text.

    >>> number(b" 12.5 ")
    12.5
    """
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, bytes | str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


class Reader:
    """Turns walks into samples. Pure but for the memory that it is handed."""

    def __init__(self, names: Names, book: Book) -> None:
        self._names = names
        self._book = book

    def text(self, name: str, value: Value) -> str:
        """Return a value of an object as text."""
        known = self._names.by_oid.get(self._names.oid(name))
        return self._names.text(known, value)

    def scalars(
        self,
        entity: str,
        profile: Profile,
        values: Mapping[str, Value],
        memory: DeviceMemory,
        at_ns: int,
    ) -> list[Sample]:
        """Return samples of a profile's scalars; `values` by object name."""
        made: list[Sample] = []
        for rule in profile.file.scalar:
            row = {name: values.get(name) for name in (rule.object, rule.times)}
            self._sample(made, entity, rule, rule.object, row, {}, memory, at_ns, began_anew=False)
        return made

    def table(
        self,
        entity: str,
        table: TableRule,
        walks: Mapping[str, Walk],
        memory: DeviceMemory,
        at_ns: int,
    ) -> list[Sample]:
        """Return samples of a table; `walks` by object name, those that were read."""
        made: list[Sample] = []
        labels = self.labels(table, walks)
        for index, label in labels.items():
            began_anew = self._began_anew(table, walks, index, label, memory)
            row = {name: walk[index] for name, walk in walks.items() if index in walk}
            for rule in table.column:
                source = rule.object if rule.object in row else rule.instead
                if source in row:
                    where = {table.dimension: label}
                    self._sample(
                        made, entity, rule, source, row, where, memory, at_ns, began_anew=began_anew
                    )
        return made

    def labels(self, table: TableRule, walks: Mapping[str, Walk]) -> dict[str, str]:
        """Return what each row is called; two rows of one name have their index behind it."""
        found: dict[str, str] = {}
        times: dict[str, int] = {}
        indexes = {
            index: None
            for rule in table.column
            for name in (rule.object, rule.instead)
            for index in walks.get(name, ())
        }
        row = self._row(table)
        for index in indexes:
            parts = self._names.split_index(row, index) if row else {}
            label = ""
            for name in table.label:
                inner = _own_index(self._names, name, index, parts)
                label = self.text(name, walks.get(name, {}).get(inner)) or parts.get(name, "")
                if label:
                    break
            label = label or ".".join(parts.values()) or index
            found[index] = label
            times[label] = times.get(label, 0) + 1
        return {
            index: f"{label} ({index})" if times[label] > 1 else label
            for index, label in found.items()
        }

    def index_objects(self, table: TableRule) -> tuple[str, ...]:
        """Return the objects whose values stand in a row's index: they need no walk of their own."""
        row = self._row(table)
        return tuple(name.lstrip("!") for name in row.index) if row else ()

    def _row(self, table: TableRule) -> Object | None:
        known = self._names.by_oid.get(self._names.oid(table.column[0].object))
        return self._names.row_of(known) if known else None

    def _began_anew(
        self,
        table: TableRule,
        walks: Mapping[str, Walk],
        index: str,
        label: str,
        memory: DeviceMemory,
    ) -> bool:
        walk = walks.get(table.discontinuity)
        if not walk or index not in walk:
            return False
        key = f"{table.dimension}|{label}"
        before = memory.discontinuity.get(key)
        memory.discontinuity[key] = walk[index]
        return before is not None and before != walk[index] and not memory.restarted

    def _sample(
        self,
        made: list[Sample],
        entity: str,
        rule: ColumnRule,
        source: str,
        row: Mapping[str, Value],
        dimensions: Mapping[str, str],
        memory: DeviceMemory,
        at_ns: int,
        *,
        began_anew: bool,
    ) -> None:
        value = number(row.get(source))
        if value is None or value in rule.absent or (rule.positive and value <= 0):
            return
        if any(self.text(name, row.get(name)) != text for name, text in rule.only.items()):
            return
        metric, unit = rule.metric, rule.unit
        if "{" in metric:
            name = metric.partition("{")[2].partition("}")[0]
            sort = self.text(name, row.get(name)) or "other"
            metric, unit = metric.replace("{" + name + "}", sort), unit or UNITS.get(sort, "")
        known = self._names.by_oid.get(self._names.oid(source))
        kind, bits = kind_of(rule, known.base if known else "")
        series = self._book.id(entity, metric, dimensions, unit=unit)
        if kind is SampleKind.COUNTER:
            value = float(memory.count(series, int(value), bits, began_anew=began_anew))
        else:
            value *= rule.factor
            if rule.times:
                value *= number(row.get(rule.times)) or 0.0
            if rule.scale:
                value *= 1000.0 ** ((number(row.get(rule.scale)) or _SCALE_UNITS) - _SCALE_UNITS)
            if rule.precision:
                value /= 10.0 ** (number(row.get(rule.precision)) or 0.0)
        made.append((at_ns, series, value, kind))

    # ---- what goes to tables, not series

    def interface_names(
        self, table: TableRule, walks: Mapping[str, Walk]
    ) -> dict[tuple[str, int], str]:
        """Return (option table, ifIndex): name."""
        if not table.names:
            return {}
        labels = self.labels(table, walks)
        return {(table.names, int(i)): label for i, label in labels.items() if i.isdigit()}

    def neighbors(self, walks: Mapping[str, Walk]) -> dict[tuple[str, int], str]:
        """Return ("lldp", number of the local port): JSON of who is at its other end.

        Of several neighbors on a port the one with the highest index, the last one heard, counts.
        Keys: local_port, remote (system name), remote_port, remote_port_description, chassis.
        """
        found: dict[tuple[str, int], str] = {}
        chassis = walks.get("lldpRemChassisId", {})
        for index in sorted(chassis, key=_numbers):
            parts = index.split(".")
            if len(parts) != 3:
                continue
            port = parts[1]
            said = {
                "local_port": self._first(walks, ("lldpLocPortDesc", "lldpLocPortId"), port),
                "remote": self._first(walks, ("lldpRemSysName",), index),
                "remote_port": self._port_id(walks, index),
                "remote_port_description": self._first(walks, ("lldpRemPortDesc",), index),
                "chassis": self._chassis_id(walks, index),
            }
            found["lldp", int(port)] = json.dumps(said, ensure_ascii=False, sort_keys=True)
        return found

    def _first(self, walks: Mapping[str, Walk], names: tuple[str, ...], index: str) -> str:
        texts = (self.text(name, walks.get(name, {}).get(index)) for name in names)
        return next((text for text in texts if text), "")

    def _port_id(self, walks: Mapping[str, Walk], index: str) -> str:
        return _id_text(
            walks.get("lldpRemPortId", {}).get(index),
            is_mac=walks.get("lldpRemPortIdSubtype", {}).get(index) == 3,
            is_address=walks.get("lldpRemPortIdSubtype", {}).get(index) == 4,
        )

    def _chassis_id(self, walks: Mapping[str, Walk], index: str) -> str:
        return _id_text(
            walks.get("lldpRemChassisId", {}).get(index),
            is_mac=walks.get("lldpRemChassisIdSubtype", {}).get(index) == 4,
            is_address=walks.get("lldpRemChassisIdSubtype", {}).get(index) == 5,
        )


NEIGHBOR_OBJECTS = (
    "lldpRemChassisIdSubtype", "lldpRemChassisId", "lldpRemPortIdSubtype", "lldpRemPortId",
    "lldpRemPortDesc", "lldpRemSysName", "lldpLocPortId", "lldpLocPortDesc",
)  # fmt: skip


def _id_text(value: Value, *, is_mac: bool, is_address: bool) -> str:
    if not isinstance(value, bytes):
        return str(value or "")
    if is_mac:
        return value.hex(":")
    if is_address and len(value) == 5 and value[0] == 1:  # IANA address family: IPv4
        return ".".join(map(str, value[1:]))
    text = value.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() else value.hex(":")


def _own_index(names: Names, label: str, index: str, parts: Mapping[str, str]) -> str:
    """Return the index under which a row's label stands: its own, or that of the table it names.

    Sensors are rows by entPhysicalIndex, transceivers by ifIndex; names of both stand elsewhere.
    """
    known = names.by_oid.get(names.oid(label))
    row = names.row_of(known) if known else None
    if row is None or len(row.index) != 1 or row.index[0] not in parts:
        return index
    return parts[row.index[0]]


def _numbers(index: str) -> list[int]:
    return [int(part) for part in index.split(".") if part.isdigit()]


def option_row(
    table: str, key: int, name: str, *, address: tuple[int, int], at_ns: int
) -> dict[str, Any]:
    """Return a row of schema `option`."""
    high, low = address
    return {
        "arrival_ns": at_ns, "exporter_address_high": high, "exporter_address_low": low,
        "table": table, "key": key, "name": name,
    }  # fmt: skip
