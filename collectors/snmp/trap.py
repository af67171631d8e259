"""SNMP traps and informs, v1, v2c and v3: alarms by rules, log rows for what has no rule, all counted.

The hot path is one kernel a block (collectors.snmp.digest) and a dictionary look-up a notification.
Only the first of its kind in a second is decoded for people; the others raise its count. Nothing is
shed: what arrives is an alarm row, is counted in one, or has a reason.

Source: RFC 1157, RFC 3416, RFC 3584, RFC 3414; ITU-T X.733.
"""

from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock, Reply
from collectors.config import ListenerSettings
from collectors.snmp.digest import Fate, digest
from collectors.snmp.runs import News, Runs, Standing
from collectors.snmp.secure import Opened, SecureReceiver
from collectors.snmp.trap_ledger import FATES, SenderLedger
from collectors.snmp.trap_options import TrapOptions, engine_id_of, read_users
from collectors.snmp.trap_reader import REFUSED, TrapReader
from runtime.checkpoint import read_array, write_array
from runtime.component import Context, SnapshotReader, SnapshotWriter
from runtime.registry import Part, Reads
from telemetry.batch import Batch, batch_from_rows
from telemetry.digest import blake2b
from telemetry.errors import DecodeError
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import address_text
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import ALARM, LEDGER, LOG, SAMPLE, SERIES
from telemetry.snmp.ber import Tag, element
from telemetry.snmp.message import answer_inform, read_envelope, read_pdu, write_varbind
from telemetry.x733 import CLEARED

SECOND_NS = 1_000_000_000


class _State(msgspec.Struct):
    """What a restart takes back."""

    second: int
    standing: list[Standing]
    counts: list[tuple[str, str, int]]
    labels: list[tuple[str, str, bool]]
    timers: list[tuple[str, int, dict[str, Any]]]
    engines: list[tuple[bytes, int, int, int]]
    informs: list[tuple[int, int, int, int]]


class TrapDecoder:
    """Turns datagrams into alarms, log rows, counts by trap, and a ledger by sender."""

    emits = (ALARM, LOG, SERIES, SAMPLE, LEDGER)

    def __init__(self, options: TrapOptions, context: Context) -> None:
        self._name = context.name.removeprefix("collectors.")
        self._options = options
        self._reader = TrapReader(options)
        engine_id = engine_id_of(options.engine_id, self._name)
        self._secure = SecureReceiver(
            read_users(options.users), engine_id, engines_max=options.engines_max
        )
        self._runs = Runs()
        self._news: dict[int, News] = {}  # by digest, of the open second
        self._timers: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()
        # Whether each was answered: then the journal has it, and a restart need not count it again.
        self._informs: OrderedDict[tuple[int, int, int, int], bool] = OrderedDict()
        self._ledger = SenderLedger(options.senders_max)
        self._series = SeriesNames()
        self._counted: dict[str, set[str]] = {}
        self._scratch = np.zeros(4, np.uint64)
        self._alarms: list[dict[str, Any]] = []  # rows since the last call
        self._logs: list[dict[str, Any]] = []
        self._counts: list[dict[str, Any]] = []
        self.replies: list[Reply] = []
        self._timers_set = 0
        metrics = context.metrics
        self._messages = metrics.counter(
            "collector_snmp_messages_total",
            "SNMP messages received, by what became of them",
            label="verdict",
            values=FATES,
        )
        self._became = metrics.counter(
            "collector_snmp_notifications_total",
            "traps and informs, by what became of them: a row of its own, or counted in one",
            label="result",
            values=("alarm", "clear", "log", "counted"),
        )
        self._early = metrics.counter(
            "collector_snmp_dropped_total",
            "state that did not fit its bound, by kind",
            label="what",
            values=("timer_fired_early", "label_forgotten", "reply"),
        )

    # ---- datagrams

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Return a row for all that is new, and the counts of seconds that are over."""
        self._ledger.lost(block.kernel_drops)
        if not block.datagrams:
            return []
        begin = block.offset
        senders = _sender_hash(block)
        digests, versions, pdus, fates = self._digest(
            block.payload, begin, begin + block.length, senders, bare=False
        )
        inner: dict[int, tuple[bytes, Opened]] = {}
        secured = np.flatnonzero((versions == 3) & (fates == 0))
        if secured.size:
            self._open(block, secured, senders, (digests, pdus, fates), inner)
        seconds = block.arrival_ns // SECOND_NS
        edges = np.flatnonzero(np.diff(seconds)) + 1
        starts = [0, *edges.tolist()]
        for first, last in zip(starts, [*starts[1:], block.datagrams], strict=True):
            second = int(seconds[first])
            if second != self._runs.second:
                self._close()
                self._runs.second = second
            self._count(block, first, last, (digests, pdus, fates), inner)
        self._ledger.count(block, senders, fates)
        self._messages.array[:] += np.bincount(fates, minlength=len(FATES)).astype(np.uint64)
        return self._taken(int(block.arrival_ns[-1]))

    def _digest(
        self,
        payload: NDArray[np.uint8],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        senders: NDArray[np.uint64],
        *,
        bare: bool,
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        size = begin.size
        digests = np.empty(size, np.uint64)
        versions, pdus, verdicts = (np.empty(size, np.uint8) for _ in range(3))
        chosen = self._reader.selectors
        digest(
            payload, begin, end, senders, int(bare), chosen.traps, chosen.first, chosen.prefix,
            chosen.part, self._scratch, digests, versions, pdus, verdicts,
        )  # fmt: skip
        return digests, versions, pdus, verdicts

    def _open(
        self,
        block: DatagramBlock,
        rows: NDArray[np.int64],
        senders: NDArray[np.uint64],
        columns: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
        inner: dict[int, tuple[bytes, Opened]],
    ) -> None:
        """Open v3 messages, and look at their PDUs as at those of the others."""
        digests, pdus, fates = columns
        good: list[int] = []
        parts: list[bytes] = []
        for d in rows.tolist():
            data, now_ns = _datagram(block, d), int(block.arrival_ns[d])
            try:
                opened = self._secure.open(data, now_ns)
            except DecodeError as error:
                fates[d] = Fate[error.reason.upper()]
                report = self._secure.report(data, error.reason, now_ns)
                if report is not None:
                    self._reply(block, d, report, at_once=True)
                continue
            inner[d] = (opened.scoped.pdu, opened)
            good.append(d)
            parts.append(opened.scoped.pdu)
        if not good:
            return
        length = np.array([len(part) for part in parts], np.int64)
        end = np.cumsum(length)
        payload = np.frombuffer(b"".join(parts), np.uint8)
        made, _, tags, verdicts = self._digest(
            payload, end - length, end, senders[good] ^ np.uint64(3), bare=True
        )
        digests[good], pdus[good], fates[good] = made, tags, verdicts

    def _count(
        self,
        block: DatagramBlock,
        first: int,
        last: int,
        columns: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
        inner: dict[int, tuple[bytes, Opened]],
    ) -> None:
        """Count the notifications of one second; what is new gets a row."""
        digests, pdus, fates = columns
        known, runs = self._news, self._runs
        good = np.flatnonzero(fates[first:last] == 0) + first
        informs = (pdus[good] == Tag.INFORM).tolist()
        arrivals = block.arrival_ns[good].tolist()
        for d, key, inform, at_ns in zip(
            good.tolist(), digests[good].tolist(), informs, arrivals, strict=True
        ):
            news = known.get(key)
            if news is None:
                if len(runs.standing) >= self._options.resources_max:
                    self._close()
                news = known[key] = self._reader.read(
                    _datagram(block, d), _sender(block, d), inner.get(d)
                )
            if news is REFUSED:
                fates[d] = Fate.UNKNOWN_COMMUNITY
            elif not inform or self._inform(block, d, inner.get(d)):
                if runs.add(news, at_ns):
                    self._tell(news, at_ns, 1, 0)
            else:
                fates[d] = Fate.DUPLICATE

    def _inform(self, block: DatagramBlock, d: int, inner: tuple[bytes, Opened] | None) -> bool:
        """Answer an inform; return whether it is a new one."""
        data = _datagram(block, d)
        if inner is not None:
            said = inner[0]
            pdu = read_pdu(said, 0, len(said))
            bindings = b"".join(
                write_varbind(one.oid, element(one.tag, one.content)) for one in pdu.varbinds
            )
            now_ns = int(block.arrival_ns[d])
            answer = self._secure.response(inner[1], pdu.request_id, bindings, now_ns)
        else:
            envelope = read_envelope(data)
            said = data[envelope.start : envelope.stop]
            answer = answer_inform(data, envelope)
        # Its request id alone is not enough: agents count from the same number after each restart.
        about = int.from_bytes(blake2b(said, digest_size=8).digest(), "big")
        self._reply(block, d, answer, at_once=False, about=about)
        key = (
            int(block.exporter_high[d]),
            int(block.exporter_low[d]),
            int(block.exporter_port[d]),
            about,
        )
        if key in self._informs:
            self._informs.move_to_end(key)
            return False
        self._informs[key] = False
        if len(self._informs) > self._options.informs_max:
            self._informs.popitem(last=False)
        return True

    def answered(self, reply: Reply) -> None:
        """Learn that the sender of an inform is answered: the journal has it."""
        key = (reply.exporter_high, reply.exporter_low, reply.exporter_port, reply.about)
        if key in self._informs:
            self._informs[key] = True

    def _reply(
        self, block: DatagramBlock, d: int, data: bytes, *, at_once: bool, about: int = 0
    ) -> None:
        if len(self.replies) >= self._options.informs_max:  # a flood: the sender asks again
            self._early.add("reply")
            return
        high, low = int(block.exporter_high[d]), int(block.exporter_low[d])
        self.replies.append(Reply(high, low, int(block.exporter_port[d]), data, at_once, about))

    # ---- rows

    @property
    def changes(self) -> int:
        """Of what a crash must not lose: names in use, alarms that end by themselves."""
        return self._reader.changes + self._timers_set

    def _tell(self, news: News, at_ns: int, count: int, changes: int) -> None:
        """Make a row of news, or of `count` more of the same with `changes` of state among them."""
        row = news.row
        if count > 1 or changes:
            row = _with_counts(news, count, changes)
        if news.severity:
            self._tell_alarm(news, row, at_ns, count)
        else:
            variables = msgspec.json.encode(row["detail"] | {"count": count}).decode()
            line = {name: value for name, value in row.items() if name != "detail"}
            self._logs.append(
                {**line, "variables": variables, "time_ns": at_ns, "arrival_ns": at_ns}
            )
            self._became.add("log")
        if count > 1:
            self._became.add("counted", count - 1)

    def _tell_alarm(self, news: News, row: dict[str, Any], at_ns: int, count: int) -> None:
        self._alarms.append(
            alarm_row(
                source=self._name,
                severity=news.severity,
                changed_ns=at_ns,
                occurrence=count,
                **row,
            )
        )
        self._became.add("clear" if news.severity == CLEARED else "alarm")
        if self._timers:
            self._timers.pop(news.identity, None)
        if news.clear_after_seconds:
            self._timers_set += 1
            self._timers[news.identity] = (at_ns + round(news.clear_after_seconds * 1e9), row)

    def _close(self) -> None:
        """End the open second: tell the counts."""
        rest, counts = self._runs.close()
        self._news.clear()
        if forgotten := self._reader.trim():
            self._early.add("label_forgotten", forgotten)
        for one in rest:
            self._tell(one.news, one.last_ns, one.more, one.folded)
        if counts:
            self._samples(counts)

    def _taken(self, at_ns: int) -> list[Batch]:
        """Return the rows made since the last call."""
        made = [
            batch_from_rows(schema, rows, source=self._name, arrival_ns=at_ns)
            for schema, rows in ((ALARM, self._alarms), (LOG, self._logs))
            if rows
        ]
        new = self._series.new()
        if new is not None:
            made.append(new)
        if self._counts:
            made.append(batch_from_rows(SAMPLE, self._counts, source=self._name, arrival_ns=at_ns))
        self._alarms, self._logs, self._counts = [], [], []
        return made

    def _samples(self, counts: dict[tuple[str, str], int]) -> None:
        """Count notifications by device and trap, so that a storm or a silence shows as a series."""
        at_ns = self._runs.second * SECOND_NS + SECOND_NS - 1
        for (device, trap), count in counts.items():
            names = self._counted.setdefault(device, set())
            if trap not in names and len(names) >= self._options.traps_per_device_max:
                trap = "other"
            names.add(trap)
            series = self._series.id(device, "snmp_traps", {"trap": trap}, unit="{trap}")
            row = {"time_ns": at_ns, "arrival_ns": at_ns, "series_id": series, "value": count}
            self._counts.append({**row, "kind": SampleKind.DELTA})
        if len(self._counted) > self._options.senders_max:
            self._counted.clear()

    def advance(self, frontier_ns: int) -> list[Batch]:
        """End the second before the frontier and alarms whose time is over; report the ledger."""
        if self._runs.counts and (self._runs.second + 1) * SECOND_NS <= frontier_ns:
            self._close()
        due = [key for key, (at_ns, _) in self._timers.items() if at_ns <= frontier_ns]
        for key in sorted(due):
            self._alarms.append(self._over(*self._timers.pop(key), frontier_ns))
        while len(self._timers) > self._options.resources_max:  # the one set longest ago
            self._alarms.append(self._over(*self._timers.popitem(last=False)[1], frontier_ns))
            self._early.add("timer_fired_early")
        return self._taken(frontier_ns) + self._ledger.report(frontier_ns)

    def _over(self, due_ns: int, news: dict[str, Any], frontier_ns: int) -> dict[str, Any]:
        text = "No trap says that this is over; it was not repeated in its time"
        return alarm_row(
            source=self._name,
            severity=CLEARED,
            changed_ns=min(due_ns, frontier_ns),
            **{**news, "text": text},
        )

    # ---- state

    def snapshot(self, out: SnapshotWriter) -> None:
        """Write the open second, names in use, timers, engines of others and informs answered."""
        state = _State(
            self._runs.second,
            list(self._runs.standing.values()),
            [(device, trap, count) for (device, trap), count in self._runs.counts.items()],
            self._reader.labels(),
            [(key, due_ns, news) for key, (due_ns, news) in self._timers.items()],
            self._secure.engines.rows(),
            [key for key, answered in self._informs.items() if answered],
        )
        data = msgspec.msgpack.encode(state)
        write_array(out, "snmp", np.frombuffer(data, np.uint8))

    def restore(self, state: SnapshotReader) -> None:
        """Take it back."""
        data = read_array(state, "snmp")
        if data is None or not data.size:
            return
        kept = msgspec.msgpack.decode(data.tobytes(), type=_State)
        self._runs.second = kept.second
        self._runs.standing = {one.news.identity: one for one in kept.standing}
        self._runs.counts = {(device, trap): count for device, trap, count in kept.counts}
        self._reader.put_labels(kept.labels)
        self._timers.update({key: (due_ns, news) for key, due_ns, news in kept.timers})
        for row in kept.engines:
            self._secure.engines.put(*row)
        self._informs.update(dict.fromkeys(kept.informs, True))


def _with_counts(news: News, count: int, changes: int) -> dict[str, Any]:
    """Return the row of news that stands for several notifications.

    The text of an alarm stays as it is: a repeat is no news of it.
    """
    detail = dict(news.row["detail"])
    counts = f"; {count} such traps within this second" if count > 1 else ""
    if count > 1:
        detail["count"] = count
    if changes:
        detail["changes"] = changes
        counts += f", {changes} changes of state among them"
    row = {**news.row, "detail": detail}
    return row if news.severity else row | {"message": row["message"] + counts}


def _sender(block: DatagramBlock, d: int) -> str:
    return address_text(int(block.exporter_high[d]), int(block.exporter_low[d]))


def _datagram(block: DatagramBlock, d: int) -> bytes:
    at = int(block.offset[d])
    return block.payload[at : at + int(block.length[d])].tobytes()


def _sender_hash(block: DatagramBlock) -> NDArray[np.uint64]:
    """Return a number for each datagram's sender, never 0: whose addresses differ, differ."""
    high = block.exporter_high * np.uint64(0x9E3779B97F4A7C15)
    mixed = (high ^ block.exporter_low) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed[mixed == 0] = 1
    return mixed


def make(settings: ListenerSettings, options: TrapOptions, context: Context) -> TrapDecoder:  # noqa: ARG001
    """Return the decoder of an input."""
    return TrapDecoder(options, context)


# What `tocsin decode` says of messages that gave nothing.
REASONS = {
    "collector_snmp_messages_total": {
        "truncated": "SNMP messages with an element beyond their end",
        "bad_length": "SNMP messages with a length that is none (indefinite, too long)",
        "bad_type": "SNMP messages with an element of a type that is not due",
        "bad_value": "SNMP messages with a number or address of a wrong size",
        "bad_oid": "SNMP messages with an OID that is none",
        "bad_version": "SNMP messages of an unknown version",
        "no_trap_oid": "traps that name no trap",
        "not_a_notification": "SNMP messages that are no trap and no inform: polling, which a source of kind"
        " snmp-poll does itself",
        "unknown_community": "traps with a community that is not believed",
        "unknown_engine": "SNMPv3 messages that ask who we are",
        "unknown_user": "SNMPv3 messages of a user that is not known here",
        "wrong_digest": "SNMPv3 messages whose digest is wrong (password, protocol)",
        "not_in_time_window": "SNMPv3 messages that are too old",
        "unsupported_security_level": "SNMPv3 messages below or above their user's level",
        "decryption_error": "SNMPv3 messages that could not be decrypted",
    }
}
COLLECTOR = Part(
    "SNMP traps and informs (v1, v2c, v3)",
    make,
    TrapOptions,
    reads=Reads((162, 5162, 10162), reasons=REASONS),
    sheds="nothing: traps of one alarm are counted and collapsed; an inform that is not answered comes"
    " again",
)
