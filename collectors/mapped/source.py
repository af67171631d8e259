"""The generic adapter: any system's alarms, samples or log lines by a mapping file.

Records come by HTTP push, from a file that grows, from a URL that is polled, or from an SQL query. A
third system is a mapping file and no code.
"""

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from collectors.foreign_sync import AlarmFeed
from collectors.foreign_text import clean
from collectors.http.body import HttpRefusedError
from collectors.http.client import HttpPeer, PeerError, PeerSettings, read_secret
from collectors.http.credentials import HttpInputSettings
from collectors.http.input import HttpInput, Request, Response
from collectors.mapped.mapping import load_mapping, value_at
from collectors.mapped.records import Chunk, RecordReader, document_chunk
from collectors.mapped.rows import MappedRows, told
from collectors.mapped.tail import TailedFile
from collectors.polling import Poller
from collectors.sources import Offer
from runtime.component import Context
from runtime.registry import Part
from runtime.settings import PositiveInt, PositiveSeconds, Settings
from telemetry.errors import ConfigError, DecodeError, TransientError
from telemetry.x733 import CLEARED

POLL_SECONDS_FLOOR = 1.0
SINCE = "{since}"
SAFE_SINCE = re.compile(r"[0-9A-Za-z:.+\- ]{0,64}\Z")


class TailSettings(Settings, frozen=True, kw_only=True):
    """A file whose new lines are records."""

    path: str  # of the file; a rotated one is followed
    from_start: bool = False  # at the first start; later files are always read from their beginning
    poll_seconds: PositiveSeconds = 2.0  # how often it is looked at


class RestSettings(PeerSettings, frozen=True, kw_only=True):
    """A URL whose answer holds records."""

    poll_seconds: PositiveSeconds = 60.0  # between two questions
    method: Literal["GET", "POST"] = "GET"  # of the request
    query: dict[str, str] = {}  # may hold {since}
    body: str = ""  # may hold {since}
    headers: dict[str, str] = {}  # more headers of the request
    next: str = ""  # path of the next page's URL in the answer
    pages_max: PositiveInt = 200  # of one answer; more is an error, and nothing is taken
    since_field: str = ""  # its largest value so far stands for {since}
    since_first: str = "0"  # what stands for {since} at the first start


class SqlSettings(Settings, frozen=True, kw_only=True):
    """A query whose rows are records, by any DB-API driver that is installed."""

    driver: str = "sqlite3"  # the module's name: psycopg, oracledb, pymysql, ...
    connect: dict[str, Any] = {}  # what its connect() is given, e.g. { database = "/x.db" }
    password_file: str = ""  # its content is given as `password`
    query: str  # may hold {since}
    rows_max: PositiveInt = 200_000  # of one answer; more is an error, and nothing is taken
    poll_seconds: PositiveSeconds = 60.0  # between two queries
    since_field: str = ""  # the column whose largest value so far stands for {since}
    since_first: str = "0"  # what stands for {since} at the first start


class MappedOptions(Settings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "mapped"; exactly one of push, file, rest and sql."""

    mapping: str  # path of the mapping file
    push: HttpInputSettings | None = None
    file: TailSettings | None = None
    rest: RestSettings | None = None
    sql: SqlSettings | None = None
    complete: bool = False  # rest, sql: an answer is all open alarms; those not in it have ended
    pause_seconds_max: PositiveSeconds = 600.0  # between tries while there is trouble
    alarms_max: PositiveInt = 100_000  # open at one time; more are refused and counted
    series_max: PositiveInt = 100_000  # of samples; more are counted, and not followed


class MappedSource:
    """One system behind a mapping file."""

    def __init__(
        self, name: str, options: MappedOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        given = [k for k in ("push", "file", "rest", "sql") if getattr(options, k) is not None]
        if len(given) != 1:
            raise ConfigError("give exactly one of push, file, rest and sql")
        self._name = name
        self._options = options
        self._context = context
        self._offer = offer
        self._mapping = load_mapping(options.mapping)
        if options.complete and (given[0] in ("push", "file") or self._mapping.schema != "alarm"):
            raise ConfigError("complete = true is for alarms by rest or sql")
        self._rows = MappedRows(name, self._mapping, series_max=options.series_max)
        self._feed = AlarmFeed(
            name, "mapped", context, offer, folder, alarms_max=options.alarms_max
        )
        self._http = HttpInput(options.push, context, self.handle) if options.push else None
        self._peer = HttpPeer(options.rest, context.clock) if options.rest else None
        self._tail: TailedFile | None = None
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=options.pause_seconds_max,
        )
        self._records = context.metrics.counter(
            "mapped_records_total", "records by what the mapping made of them", label="end",
            values=("taken", "rejected"),
        )  # fmt: skip

    @property
    def port(self) -> int:
        """The port it listens on, 0 where nothing is pushed."""
        return self._http.port if self._http else 0

    def start(self) -> None:
        """Listen or read; raises ConfigError."""
        self._feed.load()
        if self._options.file:
            file = self._options.file
            self._tail = TailedFile(
                Path(file.path),
                from_start=file.from_start,
                line_bytes_max=self._mapping.file.line_bytes_max,
            )
            self._tail.restore(self._feed.memory.get("tail", {}))
        if self._http:
            self._http.start()
        self._poller.start()

    def stop(self) -> None:
        """Stop listening or reading."""
        if self._http:
            self._http.stop()
        self._poller.stop()
        if self._tail:
            self._tail.close()

    def health(self) -> str:
        """Return what keeps records from coming."""
        return self._poller.health()

    def turn(self) -> float:
        """Read once, or report the ledger where everything is pushed."""
        if self._options.file:
            self._read_file()
            return self._options.file.poll_seconds
        if self._options.rest:
            self._read_rest(self._options.rest)
            return self._options.rest.poll_seconds
        if self._options.sql:
            self._read_sql(self._options.sql)
            return self._options.sql.poll_seconds
        self._feed.tell([])
        return 10.0

    def handle(self, request: Request) -> Response:
        """Take pushed records."""
        if request.method not in ("POST", "PUT"):
            raise HttpRefusedError(405, "records come by POST")
        key = request.headers.get("idempotency-key", "")
        taken = rejected = 0
        reasons = ""
        try:
            for place, chunk in enumerate(RecordReader(self._mapping).chunks(request.blocks)):
                token = f"{self._name}|{key}|{place}" if key else ""
                good, bad = self._take([chunk], request.peer, token=token)
                taken, rejected = taken + good, rejected + bad.total()
                reasons = reasons or told(bad)
        except DecodeError as error:
            self._feed.ledger.count(request.peer, undecodable=1)
            raise HttpRefusedError(400, str(error)) from error
        body = json.dumps({"taken": taken, "rejected": rejected, "reasons": reasons}).encode()
        return Response(200 if taken or not rejected else 400, body)

    # ---- reading

    def _read_file(self) -> None:
        assert self._tail
        reader = RecordReader(self._mapping, names=self._feed.memory.get("names", ()))
        for lines in self._tail.lines():
            if self._tail.position == 0 and not self._mapping.file.columns:
                reader.names = []  # a new file: its first line names the columns
            chunk = reader.of_lines(lines)
            after = self._tail.after()
            token = f"{self._name}|{after['inode']}|{self._tail.position}|{chunk.digest}"
            self._feed.memory |= {"tail": after, "names": reader.names}
            try:
                self._take([chunk], "", token=token)
            except TransientError:
                self._feed.roll_back()
                raise
            self._tail.commit()
            if self._poller.ended:
                return

    def _read_rest(self, rest: RestSettings) -> None:
        assert self._peer
        since = self._since(rest.since_first)
        headers = {"Accept": f"application/{self._mapping.file.format}", **rest.headers}
        answer = self._peer.ask(
            query={name: text.replace(SINCE, since) for name, text in rest.query.items()},
            method=rest.method,
            body=rest.body.replace(SINCE, since).encode() if rest.body else None,
            headers=headers,
        )
        chunks = []
        for page in range(rest.pages_max):
            chunks += self._of_answer(answer.body)
            following = self._following(answer.body, rest.next)
            if not following:
                break
            if page == rest.pages_max - 1:
                raise PeerError(f"{rest.url}: more than {rest.pages_max} pages; raise pages_max")
            answer = self._peer.follow(following, headers)
        self._take_read(chunks, rest.since_field, self._peer.address)

    def _of_answer(self, body: bytes) -> list[Chunk]:
        try:
            if self._mapping.file.format in ("json", "xml"):
                return [document_chunk(body, self._mapping)]
            return list(RecordReader(self._mapping).chunks([body]))
        except DecodeError as error:
            assert self._options.rest
            raise PeerError(f"{self._options.rest.url}: {error}") from error

    def _following(self, body: bytes, path: str) -> str:
        if not path or self._mapping.file.format != "json":
            return ""
        return clean(value_at(json.loads(body), path), 2_000)

    def _read_sql(self, sql: SqlSettings) -> None:
        try:
            driver = importlib.import_module(sql.driver)
        except ImportError as error:
            raise TransientError(f"sql.driver {sql.driver!r} is not installed: {error}") from error
        secret = {"password": read_secret(sql.password_file)} if sql.password_file else {}
        try:
            connection = driver.connect(**sql.connect, **secret)
            try:
                cursor = connection.cursor()
                cursor.execute(sql.query.replace(SINCE, self._since(sql.since_first)))
                names = [column[0] for column in cursor.description or ()]
                rows = cursor.fetchmany(sql.rows_max + 1)
            finally:
                connection.close()
        except driver.Error as error:
            raise TransientError(f"sql: {clean(error, 300)}") from error
        if len(rows) > sql.rows_max:
            raise TransientError(f"sql: more than rows_max = {sql.rows_max} rows; narrow the query")
        records = [dict(zip(names, row, strict=True)) for row in rows]
        self._take_read([Chunk(records, rows=len(records))], sql.since_field, "")

    def _since(self, first: str) -> str:
        since = str(self._feed.memory.get("since", first))
        if not SAFE_SINCE.match(since):
            raise TransientError(f"since_field holds {since!r}, which is no time and no number")
        return since

    # ---- taking

    def _take_read(self, chunks: Sequence[Chunk], since_field: str, host: str) -> None:
        if since_field:
            values = [v for chunk in chunks for v in chunk.column(since_field) if v is not None]
            newest = max(values, key=_order, default=None)
            if newest is not None:
                self._feed.memory["since"] = (
                    newest if isinstance(newest, int) else clean(newest, 64)
                )
        self._take(chunks, host, complete=self._options.complete)

    def _take(
        self, chunks: Sequence[Chunk], sender: str, *, complete: bool = False, token: str = ""
    ) -> tuple[int, Any]:
        """Offer records; return (taken, rejected by reason). TransientError: nothing was taken."""
        if self._mapping.schema == "alarm":
            alarms = [alarm for chunk in chunks for alarm in self._rows.alarms(chunk)]
            rejected = self._rows.take_rejected()
            if malformed := sum(chunk.malformed for chunk in chunks):
                rejected["malformed"] += malformed
            if complete and not rejected.total():
                # Of two records of one alarm the open one counts: some systems list both.
                ordered = sorted(alarms, key=lambda alarm: alarm.severity != CLEARED)
                self._feed.tell_all(ordered, reason=f"no longer in the list of {self._name}")
            else:
                self._feed.tell(alarms)
            taken = len(alarms)
        else:
            taken = self._offer_rows(chunks, token)
            rejected = self._rows.take_rejected()
        self._feed.ledger.count(sender, decoded=taken, undecodable=rejected.total())
        self._records.add("taken", taken)
        self._records.add("rejected", rejected.total())
        if rejected.total():
            self._context.log.warning("records_rejected %s", told(rejected))
        return taken, rejected

    def _offer_rows(self, chunks: Sequence[Chunk], token: str) -> int:
        now_ns = self._context.clock.now_ns()
        taken = 0
        for place, chunk in enumerate(chunks):
            batches, rows = self._rows.batches(chunk, now_ns)
            if batches:
                self._offer(batches, token=f"{token}|{place}" if token else "")
                self._rows.book.arrived(batches)
            taken += rows
        self._feed.tell([])
        return taken


def _order(value: object) -> tuple[int, float, str]:
    """Numbers by size, texts as texts."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


SOURCE = Part(
    "any system by a mapping file: push, file, REST or SQL",
    MappedSource,
    MappedOptions,
    sheds="nothing: a push is told 503 while the node takes no records, the rest waits where it is",
)
