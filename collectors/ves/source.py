"""VES: events of network functions over HTTPS, versions 5.x and 7.x, single and in batches.

An event is checked, read, offered to the node, and answered with 202 once the node has journalled
what it says. One that breaks the format is answered with 400 and the reason; in a batch, the whole
batch is.

Source: ONAP VES Event Listener 7.2.1 and 5.4.1 (resources, answers, SVC and POL messages).
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from collectors.foreign_sync import ForeignAlarm, decoded_alarms
from collectors.foreign_text import clean, integer, json_of
from collectors.http.body import HttpRefusedError
from collectors.http.credentials import HttpInputSettings
from collectors.http.input import HttpInput, Request, Response
from collectors.polling import Poller
from collectors.series_book import Sample, SeriesBook, sample_batch
from collectors.silence import Silence
from collectors.source_ledger import SourceLedger
from collectors.sources import Offer
from collectors.ves.events import Reading, epoch_ns, read_event
from collectors.ves.fields import fault_of
from collectors.ves.measurements import Measured
from runtime.component import Context
from runtime.kept_file import KeptFile
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.batch import Batch, batch_from_rows
from telemetry.digest import blake2b
from telemetry.errors import DecodeError, TransientError
from telemetry.schemas import ALARM, LOG

PATH = re.compile(r"/eventListener/v(\d+)(?:/([^/]+))?/?\Z")
MAJORS = (5, 7)
LATEST = {5: "5.4.1", 7: "7.2.1"}
TURN_SECONDS = 1.0
REPORT_SECONDS = 10.0
# What a listener says in the body of an error: (exception, message id, text).
MESSAGES = {
    400: ("ServiceException", "SVC0002", "Invalid input value: %1"),
    401: ("PolicyException", "POL2000", "Unauthorized user: %1"),
    404: ("ServiceException", "SVC0004", "No such resource: %1"),
    405: ("ServiceException", "SVC0004", "Method not allowed: %1"),
    413: ("PolicyException", "POL9003", "Message content size exceeds the allowable limit: %1"),
    503: (
        "ServiceException",
        "SVC1000",
        "No server resources available to process the request: %1",
    ),
}


class VesOptions(HttpInputSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "ves"."""

    heartbeat_seconds: PositiveSeconds = 60.0  # of a function that does not say its interval
    heartbeats_missed: PositiveInt = 3  # so many in a row: alarm
    functions_max: PositiveInt = 10_000  # whose heartbeats and sequences are followed
    series_max: PositiveInt = 200_000  # of measurements; more are counted, and not followed
    recent_max: PositiveInt = 20_000  # measurements remembered, so that one sent again counts once
    clock_tolerance_seconds: PositiveSeconds = 300.0  # beyond: samples count at their arrival
    suspect_values: Literal["drop", "keep"] = "drop"  # numbers their sender does not trust


class VesSource:
    """The listener. Owns the HTTP input and a thread that watches for silence."""

    def __init__(
        self, name: str, options: VesOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._name = name
        self._options = options
        self._context = context
        self._offer = offer
        self._file = KeptFile(folder / "heartbeats.state", context)
        self._ledger = SourceLedger("ves", senders_max=options.functions_max)
        self._book = SeriesBook(series_max=options.series_max)
        self._silence = Silence(missed=options.heartbeats_missed, watched_max=options.functions_max)
        self._lock = threading.Lock()
        self._sequences: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._recent: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._unsure: OrderedDict[bytes, str] = OrderedDict()  # body: token of an offer that failed
        self._offers = 0
        self._started_ns = 0
        self._reported_ns = 0
        self._saved: Any = None
        self._http = HttpInput(options, context, self.handle, refusal=refusal)
        self._poller = Poller(
            context, self.turn, floor_seconds=TURN_SECONDS, pause_seconds_max=30.0
        )
        self._events = context.metrics.counter(
            "ves_events_total", "VES events by what became of them", label="end",
            values=("taken", "rejected", "repeated"),
        )  # fmt: skip
        self._values = context.metrics.counter(
            "ves_values_dropped_total", "numbers in measurement events that became no sample",
            label="why", values=("suspect", "not_numeric"),
        )  # fmt: skip
        self._off_clock = context.metrics.counter(
            "ves_clock_off_total", "measurement events whose time was not believed"
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._http.port

    def start(self) -> None:
        """Listen, or raise ConfigError."""
        now_ns = self._context.clock.now_ns()
        self._started_ns = self._reported_ns = now_ns
        if (state := self._file.load()) is not None:
            self._silence.restore(state, now_ns)
            self._saved = state
        self._http.start()
        self._poller.start()

    def stop(self) -> None:
        """Stop listening; what was not answered is sent again by its sender."""
        self._http.stop()
        self._poller.stop()

    def health(self) -> str:
        """Return what keeps events from arriving."""
        return self._poller.health()

    def handle(self, request: Request) -> Response:
        """Take one request. Raises HttpRefusedError for what is wrong with it."""
        major, is_batch = _resource(request)
        body = request.body()
        events = self._checked(body, request, major=major, is_batch=is_batch)
        now_ns = self._context.clock.now_ns()
        fresh = [event for event in events if not self._is_repeat(event)]
        reading = Reading(keep_suspect=self._options.suspect_values == "keep")
        for event in fresh:
            read_event(event, reading, now_ns)
        self._send(self._batches(reading, now_ns), blake2b(body, digest_size=16).digest())
        self._taken(events, fresh, reading, request.peer, now_ns)
        return Response(
            202,
            headers={
                "X-LatestVersion": LATEST[major],
                "X-MinorVersion": LATEST[major].split(".")[1],
                "X-PatchVersion": LATEST[major].split(".")[2],
            },
        )

    def _checked(
        self, body: bytes, request: Request, *, major: int, is_batch: bool
    ) -> Sequence[dict[str, Any]]:
        """Return the events of a body, or raise HttpRefusedError with the first fault."""
        wanted = "eventList" if is_batch else "event"
        count = 1
        try:
            document = msgspec.json.decode(body)
            if not isinstance(document, dict) or wanted not in document:
                raise HttpRefusedError(400, f"the body has no {wanted!r}")
            events = document[wanted] if is_batch else [document[wanted]]
            if not isinstance(events, list) or not events:
                raise HttpRefusedError(400, f"{wanted!r} is no list of events")
            count = len(events)
            for place, event in enumerate(events):
                if wrong := fault_of(event, major):
                    raise HttpRefusedError(
                        400, f"eventList[{place}].{wrong}" if is_batch else wrong
                    )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._reject(request, count)
            raise HttpRefusedError(400, f"the body is no JSON: {error}") from error
        except HttpRefusedError:
            self._reject(request, count)
            raise
        return events

    def _reject(self, request: Request, events: int) -> None:
        self._events.add("rejected", events)
        self._ledger.count(request.peer, undecodable=events)

    def _is_repeat(self, event: dict[str, Any]) -> bool:
        """Whether an event's numbers were counted before: its sender missed our answer."""
        with self._lock:
            return _event_key(event) in self._recent

    def _batches(self, reading: Reading, now_ns: int) -> list[Batch]:
        alarms = [*reading.alarms, *self._alive(reading)]
        made: list[Batch] = []
        if alarms:
            rows = [alarm.row(self._name, now_ns) for alarm in alarms]
            made.append(batch_from_rows(ALARM, rows, source=self._name, arrival_ns=now_ns))
        if reading.logs:
            made.append(batch_from_rows(LOG, reading.logs, source=self._name, arrival_ns=now_ns))
        samples = [sample for block in reading.measured for sample in self._samples(block, now_ns)]
        if samples:
            made += [*self._book.waiting(), sample_batch(samples, self._name, now_ns)]
        return made

    def _samples(self, block: Measured, now_ns: int) -> list[Sample]:
        tolerance_ns = round((self._options.clock_tolerance_seconds + block.interval_seconds) * 1e9)
        time_ns = block.time_ns
        if abs(now_ns - time_ns) > tolerance_ns:
            time_ns = now_ns
            self._off_clock.add()
        self._values.add("not_numeric", block.not_numeric)
        self._values.add("suspect", block.suspect)
        return samples_of(block, time_ns, self._book)

    def _alive(self, reading: Reading) -> list[ForeignAlarm]:
        """Return the end of silence alarms of those who spoke."""
        return [
            silence_alarm(name, 0.0, 0.0, ended=True)
            for name in sorted(reading.heartbeats)
            if self._silence.is_silent(name)
        ]

    def _send(self, batches: Sequence[Batch], body: bytes) -> None:
        """Offer, under the same token for a body that was offered in vain before."""
        if not batches:
            return
        with self._lock:
            token = self._unsure.get(body)
            if token is None:
                self._offers += 1
                token = f"{self._name}|{self._started_ns}|{self._offers}"
                self._unsure[body] = token
                while len(self._unsure) > self._options.recent_max:
                    self._unsure.popitem(last=False)
        self._offer(batches, token=token)
        self._book.arrived(batches)
        with self._lock:
            self._unsure.pop(body, None)

    def _taken(
        self,
        events: Sequence[dict[str, Any]],
        fresh: Sequence[dict[str, Any]],
        reading: Reading,
        peer: str,
        now_ns: int,
    ) -> None:
        """Count what the node has, follow sequences and heartbeats."""
        self._events.add("taken", len(fresh))
        self._events.add("repeated", len(events) - len(fresh))
        with self._lock:
            for event in fresh:
                header = event["commonEventHeader"]
                name = clean(header["sourceName"], 255)
                lost, restarts = self._gap(header, name)
                self._ledger.count(
                    peer,
                    name,
                    decoded=1,
                    lost_wire=lost,
                    restarts=restarts,
                    clock_offset_ns=(epoch_ns(header["lastEpochMicrosec"]) or now_ns) - now_ns,
                )
                self._silence.heard(name, now_ns)
                if "measurement" in header["domain"] or header["domain"] == "perf3gpp":
                    self._recent[_event_key(event)] = None
            while len(self._recent) > self._options.recent_max:
                self._recent.popitem(last=False)
            for name, promised in reading.heartbeats.items():
                seconds = self._options.heartbeat_seconds if promised < 0 else promised
                self._silence.promise(name, seconds, now_ns)

    def _gap(self, header: dict[str, Any], name: str) -> tuple[int, int]:
        """Return (events lost, restarts) by the sequence number; 0 says that there is none."""
        key = (clean(header["reportingEntityName"], 255), name)
        number = integer(header["sequence"])
        before = self._sequences.get(key, 0)
        if number <= 0:
            return 0, 0
        self._sequences[key] = number
        self._sequences.move_to_end(key)
        while len(self._sequences) > self._options.functions_max:
            self._sequences.popitem(last=False)
        if not before or number == before:  # the first, or a sender that always says 1
            return 0, 0
        gap = number - before - 1
        return (gap, 0) if 0 <= gap < 100_000 else (0, 1)

    def turn(self) -> float:
        """Tell of silence, report the ledger, keep what must survive; runs every second."""
        now_ns = self._context.clock.now_ns()
        with self._lock:
            overdue = self._silence.overdue(now_ns)
        alarms = [
            silence_alarm(name, silent_seconds, promised).row(self._name, now_ns)
            for name, silent_seconds, promised in overdue
        ]
        batches = (
            [batch_from_rows(ALARM, alarms, source=self._name, arrival_ns=now_ns)] if alarms else []
        )
        if now_ns - self._reported_ns >= REPORT_SECONDS * 1e9:
            self._reported_ns = now_ns
            batches += self._ledger.report(now_ns)
        if batches:
            try:
                self._offer(batches)
            except TransientError:
                self._ledger.keep()
                raise
            self._ledger.reported()
        with self._lock:
            for name, _, _ in overdue:
                self._silence.told(name)
            state = self._silence.state()
        if state != self._saved:
            self._file.save(state)
            self._saved = state
        return TURN_SECONDS


def samples_of(block: Measured, time_ns: int, book: SeriesBook) -> list[Sample]:
    """Return the numbers of one event as samples of one time."""
    return [
        (
            time_ns,
            book.id(
                f"{block.entity}:{below}" if below else block.entity,
                metric,
                dimensions,
                unit=unit,
                interval_seconds=block.interval_seconds,
            ),
            value,
            kind,
        )
        for below, metric, dimensions, value, kind, unit in block.values
    ]


def silence_alarm(
    name: str, silent_seconds: float, promised: float, *, ended: bool = False
) -> ForeignAlarm:
    """Return the alarm of a network function whose heartbeats stay away, or its end."""
    return ForeignAlarm(
        kind="heartbeat-missed",
        entity=name,
        severity="cleared" if ended else "major",
        title="heartbeats are back"
        if ended
        else f"no heartbeat for {silent_seconds:.0f} s; it promised one every {promised:.0f} s",
        probable_cause="communicationsSubsystemFailure",
    )


def refusal(status: int, sentence: str) -> Response:
    """Return the error body of a VES listener."""
    exception, message, text = MESSAGES.get(status, MESSAGES[400])
    body = {
        "requestError": {exception: {"messageId": message, "text": text, "variables": [sentence]}}
    }
    return Response(status, json.dumps(body).encode())


def _resource(request: Request) -> tuple[int, bool]:
    found = PATH.match(request.path)
    if found is None or int(found[1]) not in MAJORS:
        known = " or ".join(f"/eventListener/v{major}" for major in MAJORS)
        raise HttpRefusedError(404, f"{request.path} is not {known}, with /eventBatch for many")
    if request.method != "POST":
        raise HttpRefusedError(405, f"{request.method}; events come by POST")
    if "json" not in request.headers.get("content-type", "application/json").lower():
        raise HttpRefusedError(400, "Content-Type is not application/json")
    return int(found[1]), found[2] == "eventBatch"


def _event_key(event: dict[str, Any]) -> tuple[object, ...]:
    header = event["commonEventHeader"]
    return tuple(
        header[name]
        for name in ("domain", "sourceName", "eventId", "sequence", "startEpochMicrosec",
                     "lastEpochMicrosec")
    )  # fmt: skip


def parse(data: bytes, name: str) -> list[Batch]:  # noqa: ARG001  # the contract of Reads
    """Return what a captured event or batch says, with its own times, or raise DecodeError."""
    try:
        document = json_of(data)
    except ValueError as error:
        raise DecodeError("malformed", f"no JSON: {error}") from error
    found = document if isinstance(document, dict) else {}
    events = found.get("eventList", [found.get("event")])
    reading, samples = Reading(keep_suspect=True), []
    book = SeriesBook(series_max=100_000)
    for event in events if isinstance(events, list) else [{}]:
        faults = [fault_of(event, major) for major in reversed(MAJORS)]
        if all(faults) or not isinstance(event, dict):
            raise DecodeError("rejected", faults[0])
        read_event(event, reading, epoch_ns(event["commonEventHeader"]["lastEpochMicrosec"]))
    for block in reading.measured:
        samples += samples_of(block, block.time_ns, book)
    made = decoded_alarms("ves", reading.alarms)
    made += [batch_from_rows(LOG, reading.logs, source="ves")] if reading.logs else []
    return [*made, *book.waiting(), sample_batch(samples, "ves", 0)] if samples else made


SOURCE = Part(
    "VES events of network functions, 5.x and 7.x, over HTTPS",
    VesSource,
    VesOptions,
    reads=Reads(looks_like=lambda head: b'"commonEventHeader"' in head, parse=parse),
    sheds="nothing: while the node takes no records a sender is told 503 and sends again",
)
