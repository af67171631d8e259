"""Mapping files: how the records of any other system become alarms, samples or log rows.

A mapping is a TOML file. A field is named by its path in the record (`ne.name`, `ports.0.id`); text
with braces is put together (`{ne.name}:{port}`), text after `=` stands for itself (`=link-down`).
docs/sources.md explains every key with two examples that ship.
"""

import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Literal

import msgspec

from collectors.foreign_sync import ForeignAlarm
from collectors.foreign_text import LATEST_NS, clean, datetime_ns, integer, iso_ns, with_offset
from collectors.ves.events import event_type_of
from runtime.settings import PositiveInt, Seconds, Settings
from telemetry.errors import ConfigError
from telemetry.x733 import CAUSE_NAMES, CAUSE_NUMBERS, CLEARED, SEVERITIES
from telemetry.zones import zone_of

Record = Mapping[str, Any]
Reader = Callable[[Record], str]
_FIELD = re.compile(r"\{([^{}]*)\}")


class AlarmMapping(Settings, frozen=True, kw_only=True):
    """`[alarm]`: which field of a record is what of an alarm, and what its words mean."""

    entity: str
    kind: str
    severity: str = ""
    title: str = ""
    qualifier: str = ""  # tells several alarms of one kind on one entity apart
    state: str = ""
    changed: str = ""
    raised: str = ""
    text: str = ""
    event_type: str = ""
    probable_cause: str = ""
    foreign_id: str = ""
    occurrence: str = ""
    acknowledged: str = ""
    owner: str = ""
    suppressed: str = ""
    detail: tuple[str, ...] = ()  # paths that are kept with the alarm
    severities: dict[str, str] = {}  # {"P1": "critical", "OK": "cleared"}; other words as they are
    severity_unknown: str = "indeterminate"
    # {"CLOSED": "cleared", "IN_WORK": "acknowledged", "PLANNED": "suppressed"}.
    states: dict[str, str] = {}


class SampleMapping(Settings, frozen=True, kw_only=True):
    """`[sample]`: a record holds one value (`metric`, `value`), or several (`values`)."""

    entity: str
    time: str = ""  # empty = when it came
    metric: str = ""
    value: str = ""
    values: tuple[str, ...] = ()  # fields that are values, each a metric of its own name
    dimensions: dict[str, str] = {}  # {"interface": "ifName"}
    units: dict[str, str] = {}  # {metric: UCUM code}
    kinds: dict[str, Literal["gauge", "counter", "delta"]] = {}  # {metric: kind}; others are gauges
    # How often it is measured; 300 and more belongs to the slow view.
    interval_seconds: Seconds = 0.0


class LogMapping(Settings, frozen=True, kw_only=True):
    """`[log]`: a record is a line of a log."""

    host: str
    message: str
    time: str = ""
    app: str = ""
    severity: str = ""
    severities: dict[str, int] = {}  # {"ERROR": 3}: syslog severities
    event: str = ""


class MappingFile(Settings, frozen=True, kw_only=True):
    """A whole mapping file; it has exactly one of `[alarm]`, `[sample]` and `[log]`."""

    format: Literal["json", "jsonl", "csv", "lines", "xml", "arrow", "parquet"] = "json"
    encoding: str = "utf-8"
    records: str = ""  # json, xml: path of the list in the document; empty = the document
    delimiter: str = ","  # csv
    columns: tuple[str, ...] = ()  # csv without a line of names
    pattern: str = ""  # lines: a regular expression whose named groups are the fields
    line_bytes_max: PositiveInt = 1_048_576
    document_bytes_max: PositiveInt = 67_108_864  # json, xml: read as a whole
    zone: str = "UTC"  # of times that name none
    times: tuple[str, ...] = ("iso", "epoch")  # forms, tried in order; strptime's as well
    # {"class": ["ALARM"]}: records whose field has these words.
    only: dict[str, tuple[str, ...]] = {}
    alarm: AlarmMapping | None = None
    sample: SampleMapping | None = None
    log: LogMapping | None = None


class RecordMapping:
    """A mapping file, checked and ready. Pure: a record in, a row out."""

    def __init__(self, file: MappingFile, place: str = "mapping") -> None:
        self.file = file
        self.place = place
        chosen = [name for name in ("alarm", "sample", "log") if getattr(file, name) is not None]
        if len(chosen) != 1:
            raise ConfigError(f"{place}: name exactly one of [alarm], [sample] and [log]")
        self.schema = chosen[0]
        self._zone = _zone_of(file.zone, place)
        self._only = [(reader_of(path), frozenset(words)) for path, words in file.only.items()]
        try:
            self.pattern = re.compile(file.pattern)
        except re.error as error:
            raise ConfigError(f"{place}: pattern is no regular expression: {error}") from error
        if file.format == "lines" and not self.pattern.groupindex:
            raise ConfigError(
                f'{place}: format "lines" needs a pattern with named groups (?P<name>...)'
            )
        self._alarm, self._log = _readers(file.alarm), _readers(file.log)
        if file.alarm:
            self._detail = [(path, reader_of(path)) for path in file.alarm.detail]
            for word, ours in file.alarm.severities.items():
                if ours not in (*SEVERITIES, CLEARED):
                    known = ", ".join((*SEVERITIES, CLEARED))
                    raise ConfigError(
                        f"{place}: alarm.severities.{word} = {ours!r} is none of {known}"
                    )
        if file.sample and bool(file.sample.values) == bool(
            file.sample.metric and file.sample.value
        ):
            raise ConfigError(f"{place}: [sample] needs metric and value, or values")

    def wanted(self, record: Record) -> bool:
        """Whether the mapping takes this record."""
        return all(read(record) in words for read, words in self._only)

    def alarm(self, record: Record) -> ForeignAlarm:
        """Return a record as an alarm, or raise ValueError with what it lacks."""
        assert self.file.alarm
        rules, read = self.file.alarm, self._alarm
        entity, kind = read["entity"](record)[:500], read["kind"](record)[:200]
        for name, found in (("entity", entity), ("kind", kind)):
            if not found.strip(":/ "):
                raise ValueError(f"{name} ({getattr(rules, name)}) is empty")
        state = rules.states.get(word := read["state"](record), word.lower())
        severity = self._severity(read["severity"](record), rules)
        cause = _cause(read["probable_cause"](record))
        return ForeignAlarm(
            kind=kind,
            entity=entity,
            severity=CLEARED if state == CLEARED else severity,
            title=(read["title"](record) or kind)[:500],
            qualifier=read["qualifier"](record)[:255],
            changed_ns=self.time_ns(read["changed"](record)),
            raised_ns=self.time_ns(read["raised"](record)),
            event_type=_event_type(read["event_type"](record)),
            probable_cause=cause,
            text=read["text"](record),
            foreign_id=read["foreign_id"](record)[:200],
            occurrence=integer(read["occurrence"](record), 1),
            acknowledged=state == "acknowledged" or read["acknowledged"](record).lower() in _YES,
            owner=read["owner"](record)[:100],
            suppressed=read["suppressed"](record)[:100]
            or ("suppressed" if state == "suppressed" else ""),
            detail={path: text for path, reader in self._detail if (text := reader(record))},
        )

    def _severity(self, word: str, rules: AlarmMapping) -> str:
        found = rules.severities.get(word, word.lower())
        return found if found in (*SEVERITIES, CLEARED) else rules.severity_unknown

    def log(self, record: Record, arrival_ns: int) -> dict[str, Any]:
        """Return a record as a log row, or raise ValueError."""
        rules, read = self.file.log, self._log
        assert rules
        message = read["message"](record)
        if not message:
            raise ValueError(f"message ({rules.message}) is empty")
        word = read["severity"](record)
        severity = rules.severities.get(word, integer(word, 6))
        return {
            "time_ns": min(self.time_ns(read["time"](record)) or arrival_ns, arrival_ns),
            "arrival_ns": arrival_ns,
            "host": read["host"](record)[:255],
            "facility": 23,
            "severity": min(max(severity, 0), 7),
            "app": read["app"](record)[:128],
            "variables": "[]",
            "message": message,
            "event": read["event"](record)[:64],
        }

    def time_ns(self, text: str) -> int:
        """Return a time in one of the mapping's forms, 0 where it is none."""
        if not text:
            return 0
        for form in self.file.times:
            try:
                made = _time(text, form, self._zone)
            except (ValueError, OverflowError):
                continue
            if 0 < made < LATEST_NS:
                return made
        return 0


def reader_of(text: str) -> Reader:
    """Return what reads a field of a record as text: a path, a text with {paths}, or a =constant.

    >>> reader_of("{ne.name}:{ports.0}")({"ne": {"name": "ber-1"}, "ports": ["xe-0"]})
    'ber-1:xe-0'
    >>> reader_of("=link")({}), reader_of("a.b")({"a.b": 3}), reader_of("")({})
    ('link', '3', '')
    """
    if not text:
        return lambda record: ""
    if text.startswith("="):
        return lambda record: text[1:]
    if "{" not in text:
        return lambda record: clean(value_at(record, text))
    return lambda record: _FIELD.sub(lambda found: clean(value_at(record, found[1])), text)


def value_at(record: Any, path: str) -> Any:
    """Return the value at a dotted path, None where there is none; a name may hold dots itself."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    value = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def load_mapping(path: str | Path) -> RecordMapping:
    """Return the mapping of a file, or raise ConfigError."""
    try:
        tree = tomllib.loads(Path(path).read_text("utf-8"))
        return RecordMapping(msgspec.convert(tree, MappingFile), str(path))
    except OSError as error:
        raise ConfigError(f"mapping {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"mapping {path}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"mapping {path}: {error}") from error


def _readers(fields: AlarmMapping | LogMapping | None) -> dict[str, Reader]:
    if fields is None:
        return {}
    return {
        name: reader_of(text)
        for name, text in msgspec.structs.asdict(fields).items()
        if isinstance(text, str)
    }


_YES = ("true", "1", "yes", "y", "acknowledged", "acked")
_CAUSES = {"".join(filter(str.isalnum, name.lower())): name for name in CAUSE_NUMBERS}


def _cause(word: str) -> str:
    if number := integer(word):
        return CAUSE_NAMES.get(number, word)
    return _CAUSES.get("".join(filter(str.isalnum, word.lower())), word) or "other"


def _event_type(word: str) -> str:
    found = event_type_of(word)
    return "" if not word or (found == "other" and word.lower() != "other") else found


def _zone_of(name: str, place: str) -> tzinfo:
    try:
        return zone_of(name)
    except ConfigError as error:
        raise ConfigError(f"{place}: zone: {error}") from error


def _time(text: str, form: str, zone: tzinfo) -> int:
    if form == "iso":
        return iso_ns(text, zone)
    if form == "epoch":
        return epoch_ns(text)
    if "%Z" in form and (stated := with_offset(text)) != text:
        text, form = stated, form.replace("%Z", "%z")
    made = datetime.strptime(text, form)  # noqa: DTZ007  # the zone follows
    if made.tzinfo is None and "%Z" in form:  # which it reads, and forgets
        if (time.strptime(text, form).tm_zone or "").upper() not in ("UTC", "GMT"):
            raise ValueError(f"{text!r}: its zone is read on this machine alone")
        zone = UTC
    return datetime_ns(made if made.tzinfo else made.replace(tzinfo=zone))


def epoch_ns(text: str) -> int:
    """Return seconds, milli-, micro- or nanoseconds since 1970 as ns: the size tells which.

    >>> epoch_ns("1774000000.5"), epoch_ns("1774000000500"), epoch_ns("1774000000500000")
    (1774000000500000000, 1774000000500000000, 1774000000500000000)
    """
    whole, _, part = text.partition(".")
    number = int(whole)
    for limit, scale in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3), (10**20, 1)):
        if abs(number) < limit:
            rest = round(float(f"0.{part}") * scale) if part else 0
            return number * scale + rest
    raise ValueError(f"{text!r} is no time")
