"""Ingest: whole files and uploads of records, by mapping; what was taken once is not taken again.

Records go to the node in chunks, each under a key made of the mapping, its place and its content.
Keys that the node has journalled are kept, so that a file that comes again, or a run that was cut
off and starts anew, adds nothing twice.
"""

import contextlib
import json
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from collectors.http.body import HttpRefusedError
from collectors.http.credentials import HttpInputSettings
from collectors.http.input import HttpInput, Request, Response
from collectors.mapped.mapping import MappingFile, RecordMapping, load_mapping
from collectors.mapped.records import Chunk, RecordReader, file_chunks
from collectors.mapped.rows import MappedRows, told
from collectors.polling import Poller
from collectors.source_ledger import SourceLedger
from collectors.sources import Offer
from runtime.component import Context
from runtime.damaged import SQLITE_ERRORS, SQLITE_PARTS, bound_and_check, is_damage, set_aside
from runtime.registry import Part
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.digest import blake2b
from telemetry.errors import ConfigError, DecodeError, TransientError

POLL_SECONDS_FLOOR = 1.0
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".swp", ".crdownload", ".reason")
FORMATS = {
    ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".xml": "xml",
    ".arrow": "arrow", ".arrows": "arrow", ".parquet": "parquet",
}  # fmt: skip


class IngestOptions(HttpInputSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "ingest"."""

    listen: str = ""  # http(s)://host:port for POST /ingest/<mapping>; empty = folders alone
    body_bytes_max: PositiveInt = 4 * 1024**3  # of one upload; it is read as a stream
    request_seconds_max: PositiveSeconds = 3600.0  # for one upload
    mappings: dict[str, str]  # {"probe": "/etc/tocsin/probe-csv.toml"}
    folders: dict[str, str] = {}  # {"probe": "/var/spool/probe"}: watched; done/ and failed/ below
    poll_seconds: PositiveSeconds = 5.0  # how often the folders are looked at
    pause_seconds_max: PositiveSeconds = 60.0  # between tries while the node takes no records
    keys_max: PositiveInt = 1_000_000  # of chunks that were taken; the oldest are forgotten
    series_max: PositiveInt = 200_000  # of samples; more are counted, and not followed


@dataclass(slots=True)
class Outcome:
    """What became of the records of one file or upload."""

    taken: int = 0
    repeated: int = 0  # in chunks that were taken before
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        """Whether nothing in it could be used."""
        return not self.taken and not self.repeated and bool(self.rejected.total())

    def sentence(self) -> str:
        """Return it for people."""
        parts = [f"{self.taken} records taken"]
        parts += [f"{self.repeated} were there before"] if self.repeated else []
        parts += (
            [f"{self.rejected.total()} rejected: {told(self.rejected)}"] if self.rejected else []
        )
        return ", ".join(parts)


def _opened_keys(path: Path) -> sqlite3.Connection:
    keys = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        keys.execute("PRAGMA journal_mode = WAL")
        bound_and_check(keys, value_bytes_max=1 << 20)
        keys.execute("CREATE TABLE IF NOT EXISTS taken (key BLOB UNIQUE, records INTEGER)")
        keys.execute("SELECT key, records FROM taken LIMIT 1")
        keys.execute("PRAGMA user_version = 1")  # a file that cannot be written says so here
        keys.commit()
    except BaseException:
        keys.close()
        raise
    return keys


class TakenChunks:
    """Keys of chunks that the node has; on disk, at most `most` of them. For several processes."""

    def __init__(self, path: Path, context: Context, *, most: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._most = most
        self._lock = threading.Lock()
        try:
            self._keys = _opened_keys(path)
        except SQLITE_ERRORS as error:
            if not is_damage(error, path):
                raise TransientError(f"{path}: {error}") from error
            # What was sent before may come twice.
            set_aside(path, error, context, kind="source", beside=SQLITE_PARTS)
            self._keys = _opened_keys(path)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise TransientError(f"the list of what was taken: {error}") from error

    def records(self, key: bytes) -> int | None:
        """Return how many records a chunk had that was taken before, None where it was not."""
        with self._asked():
            row = self._keys.execute("SELECT records FROM taken WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def add(self, key: bytes, records: int) -> None:
        """The node has this chunk."""
        with self._asked(), self._keys:
            added = self._keys.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (key, records))
            if (added.lastrowid or 0) > self._most:
                self._keys.execute(
                    "DELETE FROM taken WHERE rowid <= ?", ((added.lastrowid or 0) - self._most,)
                )

    def close(self) -> None:
        """Close the file."""
        self._keys.close()


class Ingester:
    """Takes chunks of records by one mapping."""

    def __init__(
        self,
        name: str,
        mapping: RecordMapping,
        context: Context,
        offer: Offer,
        chunks: TakenChunks,
        *,
        series_max: int = 200_000,
    ) -> None:
        self._name = name
        self._mapping = mapping
        self._context = context
        self._offer = offer
        self._chunks = chunks
        self._series_max = series_max
        self._lock = threading.Lock()
        self._rows = MappedRows(name, mapping, series_max=series_max)
        self._records = context.metrics.counter(
            "ingest_records_total", "ingested records by what became of them", label="end",
            values=("taken", "repeated", "rejected"),
        )  # fmt: skip

    def file(self, path: Path, progress: Callable[[int], None] = lambda position: None) -> Outcome:
        """Take a file. Raises DecodeError (what came before it stays), TransientError, OSError."""
        return self.take(file_chunks(path, self._for(path), progress))

    def upload(self, blocks: Iterable[bytes], folder: Path, *, name: str = "") -> Outcome:
        """Take a stream of bytes; forms that need a whole file are spooled to `folder` first.

        `name` is what the file is called where it comes from: its ending tells the form.
        """
        mapping = self._for(Path(name or "upload"))
        if mapping.file.format not in ("arrow", "parquet"):
            return self.take(RecordReader(mapping).chunks(blocks))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            return self.take(file_chunks(Path(file.name), mapping))

    def take(self, chunks: Iterator[Chunk]) -> Outcome:
        """Offer chunk by chunk what was not taken before."""
        made = Outcome()
        form = blake2b(msgspec.json.encode(self._mapping.file), digest_size=16)
        for place, chunk in enumerate(chunks):
            mark = form.copy()
            mark.update(f"{place}|{chunk.digest}".encode())
            before = self._chunks.records(mark.digest())
            if before is not None:
                made.repeated += before
                self._records.add("repeated", before)
                continue
            with self._lock:
                now_ns = self._context.clock.now_ns()
                batches, taken = self._rows.batches(chunk, now_ns)
                rejected = self._rows.take_rejected()
            if batches:
                self._offer(batches, token=f"ingest|{mark.hexdigest()}")
                self._rows.book.arrived(batches)
            self._chunks.add(mark.digest(), taken)
            made.taken += taken
            made.rejected += rejected
            self._records.add("taken", taken)
            self._records.add("rejected", rejected.total())
        return made

    def _for(self, path: Path) -> RecordMapping:
        """Return the mapping in the form that a file's name tells, where it tells one."""
        suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
        form = FORMATS.get(suffixes[-1], "") if suffixes else ""
        if not form or form == self._mapping.file.format or self._mapping.file.format == "lines":
            return self._mapping
        tree = msgspec.structs.asdict(self._mapping.file) | {"format": form}
        return RecordMapping(MappingFile(**tree), self._mapping.place)


class TakesFiles(Protocol):
    """An `Ingester`, or one at the other end of a connection."""

    def file(self, path: Path, progress: Callable[[int], None] = ...) -> Outcome:
        """Take a file."""
        ...


class WatchedFolder:
    """A folder whose files are taken and moved to `done/` or, with the reason beside, to `failed/`."""

    def __init__(self, folder: Path, ingester: TakesFiles, context: Context) -> None:
        self.folder = folder
        self._ingester = ingester
        self._context = context
        self._seen: dict[Path, tuple[int, int]] = {}  # size and time of change at the last look
        self._files = context.metrics.counter(
            "ingest_files_total", "files by where they went", label="end", values=("done", "failed")
        )

    def waiting(self, *, settled: bool = True) -> list[Path]:
        """Return files to take; with `settled` those that have not changed since the last look."""
        try:
            found = sorted(p for p in self.folder.iterdir() if p.is_file() and not _unfinished(p))
            now = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}
        except OSError as error:
            raise TransientError(f"{self.folder}: {error.strerror}") from error
        before, self._seen = self._seen, now
        return [path for path in found if not settled or before.get(path) == now[path]]

    def take(
        self, path: Path, progress: Callable[[int], None] = lambda position: None
    ) -> tuple[bool, str]:
        """Take one file and move it; return whether it could be used, and a sentence about it."""
        try:
            outcome = self._ingester.file(path, progress)
            where, sentence = "failed" if outcome.failed else "done", outcome.sentence()
        except (DecodeError, ConfigError, OSError) as error:
            where, sentence = "failed", str(error)
        moved = self._move(path, where)
        if where == "failed":
            with contextlib.suppress(OSError):
                moved.with_name(moved.name + ".reason").write_text(sentence + "\n", "utf-8")
        self._files.add(where)
        level = self._context.log.info if where == "done" else self._context.log.warning
        level("file_%s file=%s %s", where, moved, sentence)
        return where == "done", f"{path.name}: {where}: {sentence}"

    def _move(self, path: Path, where: str) -> Path:
        target = self.folder / where
        number = 0
        try:
            target.mkdir(exist_ok=True)
            moved = target / path.name
            while moved.exists():
                number += 1
                moved = target / f"{path.name}.{number}"
            path.rename(moved)
        except OSError as error:
            raise TransientError(
                f"{path}: cannot be moved to {target}: {error.strerror}"
            ) from error
        return moved


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower().endswith(UNFINISHED)


class IngestSource:
    """Uploads over HTTP and watched folders."""

    def __init__(
        self, name: str, options: IngestOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._name = name
        self._options = options
        self._context = context
        self._offer = offer
        self._folder = folder
        unknown = sorted(options.folders.keys() - options.mappings.keys())
        if unknown:
            raise ConfigError(f"folders.{unknown[0]}: no mapping has this name")
        self._mappings = {word: load_mapping(path) for word, path in options.mappings.items()}
        self._ledger = SourceLedger("ingest")
        self._http = HttpInput(options, context, self.handle) if options.listen else None
        self._ingesters: dict[str, Ingester] = {}
        self._folders: list[WatchedFolder] = []
        self._chunks: TakenChunks | None = None
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=options.pause_seconds_max,
        )

    @property
    def port(self) -> int:
        """The port it listens on, 0 where nothing is uploaded."""
        return self._http.port if self._http else 0

    def start(self) -> None:
        """Open the list of what was taken; listen and watch."""
        self.open()
        if self._http:
            self._http.start()
        self._poller.start()

    def open(self) -> None:
        """Open the list of what was taken."""
        self._chunks = TakenChunks(
            self._folder / "taken.sqlite", self._context, most=self._options.keys_max
        )
        self._ingesters = {
            word: Ingester(
                self._name,
                mapping,
                self._context,
                self._offer,
                self._chunks,
                series_max=self._options.series_max,
            )
            for word, mapping in self._mappings.items()
        }
        self._folders = [
            WatchedFolder(Path(path), self._ingesters[word], self._context)
            for word, path in self._options.folders.items()
        ]

    def stop(self) -> None:
        """Stop after the chunk at work; the rest is taken at the next start."""
        if self._http:
            self._http.stop()
        self._poller.stop()
        if self._chunks:
            self._chunks.close()
            self._chunks = None

    def health(self) -> str:
        """Return what keeps files from being taken."""
        return self._poller.health()

    def turn(self) -> float:
        """Take every file that has settled; report the ledger."""
        for folder in self._folders:
            for path in folder.waiting():
                if self._poller.ended:
                    return self._options.poll_seconds
                folder.take(path)
        batches = self._ledger.report(self._context.clock.now_ns())
        if batches:
            try:
                self._offer(batches)
            except TransientError:
                self._ledger.keep()
                raise
            self._ledger.reported()
        return self._options.poll_seconds

    def handle(self, request: Request) -> Response:
        """Take one upload: POST /ingest/<mapping>, with ?name=<file name> where its ending tells the form.

        GET says what the mapping makes of records.
        """
        if request.method not in ("GET", "POST", "PUT"):
            raise HttpRefusedError(405, "records come by POST")
        word = request.path.removeprefix("/ingest").strip("/") or request.query.get("mapping", "")
        ingester = self._ingesters.get(word)
        if ingester is None:
            known = ", ".join(self._ingesters)
            raise HttpRefusedError(404, f"no mapping is called {word!r} (there are: {known})")
        if request.method == "GET":
            mapping = self._mappings[word]
            said = {"mapping": word, "format": mapping.file.format, "makes": mapping.schema}
            return Response(200, json.dumps(said).encode())
        try:
            outcome = ingester.upload(
                request.blocks, self._folder, name=request.query.get("name", "")
            )
        except (DecodeError, ConfigError) as error:
            self._ledger.count(request.peer, word, undecodable=1)
            raise HttpRefusedError(400, str(error)) from error
        rejected = outcome.rejected.total()
        self._ledger.count(
            request.peer,
            word,
            decoded=outcome.taken,
            undecodable=rejected,
            duplicate=outcome.repeated,
        )
        counts = {
            "taken": outcome.taken,
            "repeated": outcome.repeated,
            "rejected": rejected,
            "reasons": told(outcome.rejected),
            "by_reason": dict(outcome.rejected),
        }
        return Response(400 if outcome.failed else 200, json.dumps(counts).encode())


SOURCE = Part(
    "files and uploads of records, by mapping",
    IngestSource,
    IngestOptions,
    sheds="nothing: files wait in their folder, an upload is read as fast as the node takes it",
)
