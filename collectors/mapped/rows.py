"""Mapped records as batches: samples in columns, log rows and alarms one by one. Pure, but for counting."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from collectors.foreign_sync import ForeignAlarm
from collectors.foreign_text import clean
from collectors.mapped.mapping import RecordMapping, reader_of
from collectors.mapped.records import Chunk
from collectors.series_book import Sample, SeriesBook, sample_batch
from collectors.ves.measurements import numeric
from telemetry.batch import Batch, batch_from_rows
from telemetry.sample_series import SampleKind
from telemetry.schemas import ALARM, LOG

KINDS = {"gauge": SampleKind.GAUGE, "counter": SampleKind.COUNTER, "delta": SampleKind.DELTA}
CACHE_MAX = 200_000
SHOWN = 5  # reasons that are told


class MappedRows:
    """Makes batches of chunks of records by one mapping; keeps the names of series."""

    def __init__(self, name: str, mapping: RecordMapping, *, series_max: int) -> None:
        self.mapping = mapping
        self.book = SeriesBook(series_max=series_max)
        self.rejected: Counter[str] = Counter()  # by reason, since `take_rejected`
        self._name = name
        self._ids: dict[tuple[str, ...], int] = {}
        self._times: dict[object, int] = {}

    def batches(self, chunk: Chunk, now_ns: int) -> tuple[list[Batch], int]:
        """Return (batches, records taken) of a chunk; `series` come before their samples."""
        self._reject("malformed", chunk.malformed)
        if self.mapping.schema == "sample":
            samples, taken = self._samples(chunk, now_ns)
            if not samples:
                return [], taken
            return [*self.book.waiting(), sample_batch(samples, self._name, now_ns)], taken
        if self.mapping.schema == "log":
            rows = self._logs(chunk, now_ns)
            schema = LOG
        else:
            rows = [alarm.row(self._name, now_ns) for alarm in self.alarms(chunk)]
            schema = ALARM
        made = [batch_from_rows(schema, rows, source=self._name, arrival_ns=now_ns)] if rows else []
        return made, len(rows)

    def alarms(self, chunk: Chunk) -> list[ForeignAlarm]:
        """Return the alarms of a chunk; what is none is counted by reason."""
        made = []
        for record in chunk.each():
            if not self.mapping.wanted(record):
                continue
            try:
                made.append(self.mapping.alarm(record))
            except ValueError as error:
                self._reject(str(error))
        return made

    def take_rejected(self) -> Counter[str]:
        """Return what was rejected since the last call, by reason."""
        made, self.rejected = self.rejected, Counter()
        return made

    def _reject(self, reason: str, count: int = 1) -> None:
        if count:
            known = reason in self.rejected or len(self.rejected) < 100
            self.rejected[reason if known else "other"] += count

    def _logs(self, chunk: Chunk, now_ns: int) -> list[dict[str, Any]]:
        rows = []
        for record in chunk.each():
            if not self.mapping.wanted(record):
                continue
            try:
                rows.append(self.mapping.log(record, now_ns))
            except ValueError as error:
                self._reject(str(error))
        return rows

    def _samples(self, chunk: Chunk, now_ns: int) -> tuple[list[Sample], int]:
        rules = self.mapping.file.sample
        assert rules
        if self.mapping.file.only:
            kept = [record for record in chunk.each() if self.mapping.wanted(record)]
            chunk = Chunk(kept, rows=len(kept))
        if len(self._ids) > CACHE_MAX or len(self._times) > CACHE_MAX:
            self._ids.clear()
            self._times.clear()
        entities = self._texts(chunk, rules.entity)
        places = [self._texts(chunk, path) for path in rules.dimensions.values()]
        times = (
            [self._time(value) for value in chunk.column(rules.time)]
            if rules.time
            else [now_ns] * chunk.rows
        )
        good = [
            bool(entity) and time_ns > 0 for entity, time_ns in zip(entities, times, strict=True)
        ]
        self._reject("entity or time is empty or none", len(good) - sum(good))
        made: list[Sample] = []
        columns = (
            [([name] * chunk.rows, chunk.column(name)) for name in rules.values]
            if rules.values
            else [(self._texts(chunk, rules.metric), chunk.column(rules.value))]
        )
        for metrics, column in columns:
            keys = zip(entities, metrics, *places, strict=True)
            for key, time_ns, value, fine in zip(
                keys, times, map(numeric, column), good, strict=True
            ):
                if not fine:
                    continue
                if value is None or not key[1]:
                    self._reject("metric or value is empty or no number")
                    continue
                number = self._ids.get(key) or self._named(key)
                made.append((time_ns, number, value, KINDS[rules.kinds.get(key[1], "gauge")]))
        return made, sum(good)

    def _named(self, key: tuple[str, ...]) -> int:
        rules = self.mapping.file.sample
        assert rules
        dimensions = dict(zip(rules.dimensions, key[2:], strict=True))
        made = self.book.id(
            key[0],
            key[1],
            {name: value for name, value in dimensions.items() if value},
            unit=rules.units.get(key[1], ""),
            interval_seconds=rules.interval_seconds,
        )
        self._ids[key] = made
        return made

    def _texts(self, chunk: Chunk, template: str) -> Sequence[str]:
        if template.startswith("="):
            return [template[1:]] * chunk.rows
        if "{" in template:
            read = reader_of(template)
            return [read(record) for record in chunk.each()]
        return [clean(value, 255) for value in chunk.column(template)]

    def _time(self, value: object) -> int:
        if isinstance(value, list | dict):
            return 0
        made = self._times.get(value)
        if made is None:
            text = value.isoformat() if hasattr(value, "isoformat") else clean(value)
            made = self._times[value] = self.mapping.time_ns(text)
        return made


def told(rejected: Counter[str]) -> str:
    """Return reasons as people read them, the most frequent first."""
    parts = [f"{count} {reason}" for reason, count in rejected.most_common(SHOWN)]
    return "; ".join(parts) + ("; ..." if len(rejected) > SHOWN else "")
