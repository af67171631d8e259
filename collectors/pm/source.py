"""3GPP PM files from a drop folder: each file once, its counters and KPIs as series.

A folder is looked at every `poll_seconds`. A file is taken when its size and time have stood still for
`settle_seconds` (a rename into the folder is whole at once and waits no longer than that), and is
checked to its end before its first number is offered. It is known by a hash of its contents: whatever
its name, it counts once, also after a crash in the middle. So do an object's counters of one period:
a file that says them again adds nothing, one that corrects them puts others in their place while their
tick is open. Then it is moved to `done`, or with a sentence beside it to `failed`.

Values are gauges of the slow view at the start of their granularity period: what does not come is
unknown, not zero.
"""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Literal, cast

from collectors.pm.formulas import Formula
from collectors.pm.periods import Periods, Repeat
from collectors.pm.xml import FileReport, Measurement, PmReader, read_measurements
from collectors.polling import Poller
from collectors.series_book import Sample, SeriesBook, sample_batch
from collectors.source_ledger import SourceLedger
from collectors.sources import Offer
from runtime.component import Context
from runtime.kept_file import KeptFile
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds, Seconds, Settings
from telemetry.batch import Batch
from telemetry.errors import ConfigError, DecodeError, TransientError
from telemetry.sample_series import SampleKind
from telemetry.zones import zone_of

CHUNK_BYTES = 256 * 1024
SAMPLES_PER_OFFER = 50_000
POLL_SECONDS_FLOOR = 0.2
PAUSE_SECONDS_MAX = 60.0
FATES = ("done", "repeated", "corrected", "failed")


class PmFilesOptions(Settings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "pm-files"."""

    folder: str  # where files are dropped
    patterns: tuple[str, ...] = ("*.xml", "*.xml.gz")  # names of files that are read
    subfolders: bool = True  # look into folders below it, too
    done_folder: str = ""  # default: `done` in the folder
    failed_folder: str = ""  # default: `failed` in the folder
    after: Literal["move", "delete"] = "move"  # what becomes of a file that was read
    poll_seconds: PositiveSeconds = 10.0  # how often the folder is looked at
    settle_seconds: Seconds = 5.0  # so long a file must stand still before it is read
    file_bytes_max: PositiveInt = 4 * 1024**3  # unpacked; a longer one has failed
    files_per_poll_max: PositiveInt = 1000  # the rest waits for the next look
    contents_kept_max: PositiveInt = 20_000  # files known as read; older repeats would count again
    periods_kept_max: PositiveInt = 50_000  # objects and periods known as told, for corrections
    time_zone: str = "UTC"  # of times that state none
    period_seconds: PositiveSeconds = 900.0  # of files that state none
    suspect_values: Literal["drop", "keep"] = "drop"  # numbers the element itself does not trust
    late_seconds: PositiveSeconds = 7200.0  # after its period's end a file is counted as late
    # {"drop_rate": "100 * RRC.Drop / RRC.Att"}: for each object that has the counters. Names with other
    # signs than letters, digits, _ . : stand in double quotes.
    kpis: dict[str, str] = {}
    units: dict[str, str] = {}  # UCUM units of counters and KPIs
    counters: tuple[str, ...] = ("*",)  # which become series; KPIs see all of them
    kpi_objects_max: PositiveInt = 200_000  # of one file
    series_max: PositiveInt = 200_000  # more are counted, and not followed


@dataclass(slots=True)
class _Seen:
    size: int
    changed_ns: int
    since_ns: int  # stands still since


@dataclass(slots=True)
class _Repeats:
    """Measurements of a file by what they are to those before it; `results` that add nothing."""

    new: int = 0
    same: int = 0
    corrected: int = 0
    results: int = 0

    def add(self, repeat: Repeat, results: int) -> None:
        self.new += repeat is Repeat.NEW
        self.same += repeat is Repeat.SAME
        self.corrected += repeat is Repeat.CORRECTED
        self.results += results if repeat is Repeat.SAME else 0


class PmFilesSource:
    """One drop folder."""

    def __init__(
        self, name: str, options: PmFilesOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._name, self._options, self._context, self._offer = name, options, context, offer
        self._formulas = {kpi: _formula(kpi, text) for kpi, text in options.kpis.items()}
        self._wanted = {counter for f in self._formulas.values() for counter in f.names}
        try:
            self._zone = zone_of(options.time_zone)
        except ConfigError as error:
            raise ConfigError(f"time_zone: {error}") from error
        self._inbox = Path(options.folder)
        if not self._inbox.is_dir():
            raise ConfigError(
                f"options.folder: {self._inbox} is no folder; make it, or name another"
            )
        self._done = Path(options.done_folder) if options.done_folder else self._inbox / "done"
        self._failed = (
            Path(options.failed_folder) if options.failed_folder else self._inbox / "failed"
        )
        self._book = SeriesBook(series_max=options.series_max)
        self._ledger = SourceLedger("pm-files")
        self._kept = KeptFile(folder / "contents.state", context)
        self._contents: dict[str, None] = {}  # hashes of files that were read, oldest first
        self._periods = Periods(options.periods_kept_max)
        self._seen: dict[Path, _Seen] = {}
        self._stuck = ""
        self._left: dict[Path, tuple[int, int]] = {}  # read, and could not be moved
        self.poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=PAUSE_SECONDS_MAX,
        )
        metrics = context.metrics
        self._files = metrics.counter(
            "pm_files_total", "PM files by what became of them", label="fate", values=FATES
        )
        self._results = metrics.counter(
            "pm_results_total",
            "results in PM files by what became of them",
            label="fate",
            values=("value", "missing", "not_number", "list", "misaligned", "suspect", "no_period",
                    "not_wanted", "repeated"),
        )  # fmt: skip
        self._late = metrics.counter(
            "pm_files_late_total", "PM files that came long after their period"
        )
        self._kpis = metrics.counter(
            "pm_kpis_total", "KPIs by whether they could be computed", label="result",
            values=("value", "none"),
        )  # fmt: skip

    def start(self) -> None:
        """Begin to look."""
        self.load()
        self.poller.start()

    def load(self) -> None:
        """Take up what is known as read."""
        self._contents = dict.fromkeys(self._kept.load() or ())

    def stop(self) -> None:
        """Stop after the file that is being read, within four seconds."""
        self.poller.stop()

    def health(self) -> str:
        """Return what keeps files from being read or moved."""
        return self.poller.health() or self._stuck

    # ---- looking

    def turn(self) -> float:
        """Look once; read what stands still."""
        ready = self._ready()
        self._stuck = self._stuck if self._left else ""
        known = len(self._contents)
        try:
            for path in ready:
                if self.poller.ended:
                    break
                self._take(path)
        finally:
            if len(self._contents) != known:
                self._kept.save(list(self._contents))
        more = len(ready) == self._options.files_per_poll_max
        return 0.0 if more else self._options.poll_seconds

    def _ready(self) -> list[Path]:
        """Return files that stand still, in the order of their names."""
        now_ns = self._context.clock.now_ns()
        found: dict[Path, _Seen] = {}
        for path, status in self._candidates():
            before = self._seen.get(path)
            seen = _Seen(status.st_size, status.st_mtime_ns, now_ns)
            if before and (before.size, before.changed_ns) == (seen.size, seen.changed_ns):
                seen.since_ns = before.since_ns
            found[path] = seen
        self._seen = found
        same = {p: v for p, v in self._left.items() if p in found and _state(found[p]) == v}
        self._left = same
        settle_ns = round(self._options.settle_seconds * 1e9)
        still = [
            path
            for path, seen in found.items()
            if now_ns - seen.since_ns >= settle_ns and path not in same
        ]
        return sorted(still, key=lambda path: (path.name, path))[: self._options.files_per_poll_max]

    def _candidates(self) -> Iterator[tuple[Path, os.stat_result]]:
        away = {self._done.resolve(), self._failed.resolve()}
        try:
            for folder, subfolders, names in os.walk(self._inbox, onerror=_raise):
                here = Path(folder)
                subfolders[:] = [
                    name
                    for name in sorted(subfolders)
                    if self._options.subfolders
                    and not name.startswith(".")
                    and (here / name).resolve() not in away
                ]
                for name in names:
                    if name.startswith(".") or name.endswith((".tmp", ".part", ".filepart")):
                        continue  # still being written
                    if not any(fnmatch(name.lower(), p.lower()) for p in self._options.patterns):
                        continue
                    try:
                        status = (here / name).lstat()
                    except FileNotFoundError:
                        continue  # its writer gave it another name
                    if stat.S_ISREG(status.st_mode):
                        yield here / name, status
        except OSError as error:
            raise TransientError(f"{error.filename or self._inbox}: {error.strerror}") from error

    # ---- one file

    def _take(self, path: Path) -> None:
        try:
            content, report, newest_ns = self._check(path)
        except DecodeError as error:
            self._set_aside(path, str(error))
            return
        except FileNotFoundError:
            return
        except OSError as error:
            self._stuck = f"{path}: {error.strerror}; it stays where it is"
            return
        if content in self._contents:
            self._files.add("repeated")
            self._ledger.count("", report.sender, duplicate=report.results)
        else:
            try:
                repeats = self._read(path, content)
            except (DecodeError, OSError) as error:  # it changed under our hands
                self._set_aside(path, f"{error}; it was written to while it was read")
                return
            finally:
                self._periods.forget()
            self._count(report, repeats.results)
            self._files.add(self._fate(path, repeats))
            self._contents[content] = None
            if len(self._contents) > self._options.contents_kept_max:
                del self._contents[next(iter(self._contents))]
            if (
                self._context.clock.now_ns() - newest_ns > self._options.late_seconds * 1e9
                and newest_ns
            ):
                self._late.add()
        self._put_away(path)

    def _fate(self, path: Path, repeats: "_Repeats") -> str:
        """Return what a file was, and say why where it was not simply new."""
        if repeats.corrected:
            self._context.log.info(
                "pm_file_corrected file=%s objects=%d periods told before have other numbers now",
                path, repeats.corrected,
            )  # fmt: skip
            return "corrected"
        if repeats.same and not repeats.new:
            self._context.log.info(
                "pm_file_repeated file=%s objects=%d all were told before with the same numbers",
                path, repeats.same,
            )  # fmt: skip
            return "repeated"
        return "done"

    def _check(self, path: Path) -> tuple[str, FileReport, int]:
        """Read a file to its end; return the hash of its contents, what it holds, its newest period's end."""
        digest = hashlib.blake2b(digest_size=16)
        reader = self._reader()
        newest_ns = 0
        for one in read_measurements(_hashed(self._chunks(path), digest), reader):
            newest_ns = max(newest_ns, one.begin_ns + round(one.seconds * 1e9))
        return digest.hexdigest(), reader.report, newest_ns

    def _reader(self) -> PmReader:
        return PmReader(self._zone, default_seconds=self._options.period_seconds)

    def _chunks(self, path: Path) -> Iterator[bytes]:
        """Yield a file's bytes, unpacked. Raises DecodeError for what is damaged or too long."""
        total = 0
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
            while True:
                try:
                    chunk = file.read(CHUNK_BYTES)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise DecodeError("damaged", f"gzip is damaged or cut: {error}") from error
                if not chunk:
                    return
                total += len(chunk)
                if total > self._options.file_bytes_max:
                    raise DecodeError(
                        "too_long",
                        f"more than file_bytes_max, {self._options.file_bytes_max} bytes",
                    )
                yield chunk

    def _read(self, path: Path, content: str) -> "_Repeats":
        """Offer a file's values, then its KPIs, in batches that carry its hash; return what was said before."""
        repeats = _Repeats()
        now_ns = self._context.clock.now_ns()
        samples: list[Sample] = []
        objects: dict[tuple[str, int], dict[str, float]] = {}
        sent = 0
        for one in read_measurements(self._chunks(path), self._reader()):
            if one.suspect and self._options.suspect_values == "drop":
                continue
            repeat = self._periods.see(one)
            repeats.add(repeat, len(one.values))
            if repeat is Repeat.SAME:
                continue
            self._remember(one, objects)
            for counter, value in one.values.items():
                if self._is_wanted(counter):
                    samples.append(self._sample(one.dn, counter, one.begin_ns, value, one.seconds))
            if len(samples) >= SAMPLES_PER_OFFER:
                self._send(samples, now_ns, f"pm:{content}:{sent}")
                samples, sent = [], sent + 1
        for (dn, begin_ns), counters in objects.items():
            for kpi, formula in self._formulas.items():
                result = formula.value(counters)
                self._kpis.add("none" if result is None else "value")
                if result is not None:
                    period = self._options.period_seconds
                    samples.append(self._sample(dn, kpi, begin_ns, result, period))
        if samples:
            self._send(samples, now_ns, f"pm:{content}:{sent}")
        self._periods.commit()
        return repeats

    def _is_wanted(self, counter: str) -> bool:
        wanted = self._options.counters
        if wanted == ("*",) or any(fnmatch(counter, pattern) for pattern in wanted):
            return True
        self._results.add("not_wanted")
        return False

    def _remember(self, one: Measurement, objects: dict[tuple[str, int], dict[str, float]]) -> None:
        """Keep the counters that formulas need: those of one object may stand far apart."""
        needed = {name: value for name, value in one.values.items() if name in self._wanted}
        key = (one.dn, one.begin_ns)
        if needed and (key in objects or len(objects) < self._options.kpi_objects_max):
            objects.setdefault(key, {}).update(needed)

    def _sample(self, dn: str, metric: str, begin_ns: int, value: float, seconds: float) -> Sample:
        unit = self._options.units.get(metric, "")
        series = self._book.id(dn, metric, unit=unit, interval_seconds=max(seconds, 300.0))
        return begin_ns, series, value, SampleKind.GAUGE

    def _send(self, samples: list[Sample], now_ns: int, token: str) -> None:
        named = self._book.waiting()
        batches: list[Batch] = [*named, sample_batch(samples, self._name, now_ns)]
        self._offer(batches, token=token)
        self._book.arrived(named)

    def _count(self, report: FileReport, repeated: int) -> None:
        dropped = report.suspect if self._options.suspect_values == "drop" else 0
        for fate, amount in (
            ("value", report.results - dropped - repeated), ("repeated", repeated),
            ("missing", report.missing),
            ("not_number", report.not_numbers), ("list", report.lists),
            ("misaligned", report.misaligned), ("suspect", dropped), ("no_period", report.no_period),
        ):  # fmt: skip
            self._results.add(fate, amount)
        self._ledger.count(
            "", report.sender, decoded=report.results - dropped, undecodable=report.undecodable,
            shed=dropped + report.lists, duplicate=repeated,
        )  # fmt: skip
        for batch in self._ledger.report(self._context.clock.now_ns()):
            try:
                self._offer([batch])
            except TransientError:
                self._ledger.keep()
                return
        self._ledger.reported()

    # ---- afterwards

    def _put_away(self, path: Path) -> None:
        if self._options.after == "delete":
            self._try(path, lambda: path.unlink(missing_ok=True))
        else:
            self._try(path, lambda: self._move(path, self._done))

    def _set_aside(self, path: Path, why: str) -> None:
        self._files.add("failed")
        self._context.log.warning("pm_file_failed file=%s why=%s", path, why)

        def move() -> None:
            target = self._move(path, self._failed)
            target.with_name(target.name + ".reason.txt").write_text(why + "\n", "utf-8")

        self._try(path, move)

    def _move(self, path: Path, folder: Path) -> Path:
        target = folder / path.relative_to(self._inbox)
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while target.exists():  # a repeated name: nothing is overwritten
            number += 1
            target = target.with_name(f"{path.name}.{number}")
        path.rename(target)
        return target

    def _try(self, path: Path, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._left[path] = _state(self._seen[path])
            self._stuck = (
                f"{path} was read and cannot be moved: {error.strerror}; let us write to its folder and to"
                f" {self._done} and {self._failed}"
            )


def _hashed(chunks: Iterator[bytes], digest: "hashlib._Hash | hashlib.blake2b") -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _state(seen: _Seen) -> tuple[int, int]:
    return seen.size, seen.changed_ns


def _formula(kpi: str, text: str) -> Formula:
    try:
        return Formula(text)
    except ConfigError as error:
        raise ConfigError(f"options.kpis.{kpi}: {error}") from error


def _raise(error: OSError) -> None:
    raise error


def parse(data: bytes, name: str) -> list[Batch]:
    """Return a whole file's counters as `tocsin decode` shows them, doubted ones too. Raises DecodeError."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DecodeError("damaged", f"gzip is damaged or cut: {error}") from error
    book = SeriesBook(series_max=1_000_000)
    samples: list[Sample] = []
    for one in read_measurements([data], PmReader()):
        for counter, value in one.values.items():
            series = book.id(one.dn, counter, interval_seconds=max(one.seconds, 300.0))
            samples.append((one.begin_ns, series, value, SampleKind.GAUGE))
    return [*book.waiting(), sample_batch(samples, name, 0)] if samples else []


def _looks_like(head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head)
        except zlib.error:
            return False
    return b"<measCollecFile" in head or b"<measDataFile" in head


SOURCE = Part(
    "3GPP PM files (TS 32.435, 28.532) from a drop folder",
    PmFilesSource,
    PmFilesOptions,
    reads=Reads(looks_like=_looks_like, parse=parse),
    sheds="nothing: files wait in their folder",
)
