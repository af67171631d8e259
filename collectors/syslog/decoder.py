"""Syslog over UDP, TCP and TLS: log lines, their patterns, counts of them as series, and alarms.

Messages are cut out of datagrams and streams (`frames`), their heads read (`header`),
their hosts, programs and ids found (`senders`), what is too much shed, the rest assigned to
patterns (`patterns`) and counted (`counts`); well-known messages raise and clear alarms
(`events`).

The first line of a pattern has `novelty` 1: with severity <= 4 (warning) that is what nobody has seen
before and should look at. Each pattern's template comes as an `option` row of table `log-pattern`,
again each day; a pattern that became part of another comes with the other's id as its value.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.config import ListenerSettings
from collectors.syslog import frames, header
from collectors.syslog.columns import list_variables, plain_text, texts
from collectors.syslog.counts import LineCounts
from collectors.syslog.meanings import Found, Meanings, Rows
from collectors.syslog.options import SyslogOptions, Zones
from collectors.syslog.patterns import FIRST, LogPatterns, Mined
from collectors.syslog.senders import (
    BELIEFS,
    CLOCK,
    NAME_BYTES_MAX,
    OFFSET_NS,
    OTHER,
    SECOND,
    Names,
    believe_clocks,
    shed,
)
from runtime.checkpoint import read_arrays, write_array
from runtime.component import Context
from runtime.registry import Part, Reads
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_text
from telemetry.schema import Schema
from telemetry.schemas import ALARM, LEDGER, LOG, OPTION, SAMPLE, SERIES

TEMPLATE_BYTES_MAX = 1024
# Of lines_per_second_max, what may be used before a line of this severity is shed: debug goes first.
SHARES = (1.0, 1.0, 1.0, 1.0, 0.95, 0.9, 0.8, 0.6)
SEVERITY_LABELS = tuple(str(number) for number in range(8))
_EMPTY_WORD = np.uint64(2)  # the key of no program, no message id


# Columns of a sender's counts.
_DECODED, _EMPTY, _SHED, _DATAGRAMS = range(4)


class SyslogDecoder:
    """Turn datagrams, or chunks of TCP and TLS streams, into log, sample, alarm and other batches.

    Owns no socket. Rows keep the order in which messages became whole. A clock is believed within
    `clock_tolerance_seconds`, also where it is off by whole half hours (another zone); else a line's
    time is its arrival. Blind to what a sender never sent: syslog has no sequence numbers that count.
    """

    emits: tuple[Schema, ...] = (LOG, SERIES, SAMPLE, OPTION, ALARM, LEDGER)

    def __init__(
        self, settings: ListenerSettings, options: SyslogOptions, context: Context
    ) -> None:
        self._options = options
        self._source = context.name.partition(".")[2] or context.name
        self._stream = settings.listen.partition("://")[0] in ("tcp", "tls")
        self._tolerance_ns = int(settings.decoder.clock_tolerance_seconds * 1e9)
        # `tocsin decode` wants lines as they stand: their own times, nothing shed, nothing counted.
        self._as_it_stands = settings.decoder.clock == "exported"
        if self._as_it_stands:
            self._tolerance_ns = -1
        self._zones = Zones(options.zones)
        limit = 0 if self._as_it_stands else options.lines_per_second_max
        self._limits = np.array([max(1, int(limit * part)) if limit else 0 for part in SHARES])
        self._connections = frames.Connections(
            settings.connections_max if self._stream else 1, options.message_bytes_max
        )
        self._senders = Names(options.hosts_max)
        self._hosts = Names(options.hosts_max)
        self._words = Names(options.words_max)
        rows = self._hosts.key.size
        self._clock = np.zeros((CLOCK, rows), np.int64)
        self._sender_host_key = np.zeros(rows, np.uint64)  # of its address, as a host's name
        self._sender_host_key[0] = _hash(OTHER.encode())
        self._sender_address = np.zeros((2, rows), np.uint64)
        self._sender_counts = np.zeros((4, rows), np.int64)
        self._sender_zone = np.zeros(rows, np.int64)
        self._sender_offset = np.zeros(rows, np.int64)
        self._zone_hour = -1
        words = self._words.key.size
        self._has_rules = np.zeros((2, words), np.uint8)  # of an id, of a program
        self._meanings = Meanings(self._source)
        self._patterns = LogPatterns(patterns_max=options.patterns_max, variety=options.variety)
        self._counts = LineCounts(
            slots_max=options.series_max,
            hosts_max=options.hosts_max,
            per_host_max=options.patterns_per_host_max,
        )
        self._second = np.array([-1, 0], np.int64)
        metrics = context.metrics
        self._frames = metrics.counter(
            "collector_syslog_frames_total",
            "syslog messages by how they were framed, and what befell them: cut (longer than"
            " message_bytes_max), unfinished (the connection ended within), empty",
            label="frame",
            values=tuple(frame.name.lower() for frame in frames.Frame),
        )
        self._heads = metrics.counter(
            "collector_syslog_heads_total",
            "syslog messages by what their head was or lacked",
            label="head",
            values=("rfc5424", "rfc3164", *(name for _, name in _FLAGS)),
        )
        self._times = metrics.counter(
            "collector_syslog_times_total",
            "syslog messages by what was made of their time: believed, shifted (right in another"
            " zone), doubted (arrival taken), absent",
            label="clock",
            values=BELIEFS,
        )
        self._shed = metrics.counter(
            "collector_syslog_shed_total",
            "syslog lines over lines_per_second_max, not stored, by severity; they are counted in series",
            label="severity",
            values=SEVERITY_LABELS,
        )
        self._unparsed = metrics.keyed(
            "collector_syslog_unparsed_total",
            "syslog messages with neither priority, nor time, nor message id: plain text, by sender",
            label="sender",
        )
        self._full = metrics.counter(
            "collector_syslog_bounds_total",
            "times a bound was reached: connections refused; hosts, words, patterns and series that"
            " gave way",
            label="bound",
            values=("connections", "hosts", "words", "patterns", "series"),
        )
        self._lines = metrics.counter(
            "collector_syslog_lines_total", "syslog lines decoded, those that were shed left out"
        )

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams or chunks; see the class."""
        if not block.datagrams:
            return []
        limit = self._options.message_bytes_max
        if self._stream:
            cut = self._connections.cut(
                block, multi_line=self._options.multi_line, tally=self._frames.array
            )
        else:
            cut = frames.of_datagrams(block, limit, self._frames.array)
        return self._decode(block, cut)

    def _decode(self, block: DatagramBlock, cut: frames.Messages) -> list[Batch]:
        sender_of_datagram = self._find_senders(block)
        count = cut.size.size
        senders = self._senders.rows
        came = np.bincount(sender_of_datagram, minlength=senders)
        self._sender_counts[_DATAGRAMS, :senders] += came
        if not self._stream:
            came -= np.bincount(sender_of_datagram[cut.datagram], minlength=senders)
            self._sender_counts[_EMPTY, :senders] += came
        if not count:
            return []
        arrival_ns = block.arrival_ns[cut.datagram]
        heads = np.empty((header.ROWS, count), np.int64)
        header.parse_heads(
            cut.work, cut.start, cut.size, arrival_ns, header.ZONE_NAMES, header.ZONE_OFFSETS, heads
        )
        self._count_heads(heads[header.FLAGS])
        sender = sender_of_datagram[cut.datagram]
        host, app, message_id = self._find_names(cut.work, heads, sender, arrival_ns)
        time_ns = np.empty(count, np.int64)
        believe_clocks(
            heads[header.CLOCK_NS], heads[header.ZONE_MINUTES], self._sender_zone[sender],
            arrival_ns, host, self._tolerance_ns, header.NO_ZONE, self._clock, time_ns,
            self._times.array,
        )  # fmt: skip
        self._sender_offset[sender] = self._clock[OFFSET_NS, host]
        ruled = self._has_rules[0, message_id] | self._has_rules[1, app]
        keep = np.empty(count, np.uint8)
        severity = heads[header.SEVERITY]
        shed(severity, ruled, arrival_ns, self._limits, self._second, keep)
        kept = np.flatnonzero(keep)
        self._count_fates(heads, sender, severity, keep)
        mined = self._patterns.mine(
            cut.work, heads[header.TEXT_START, kept], heads[header.TEXT_SIZE, kept],
            self._words.key[message_id[kept]], arrival_ns[kept],
        )  # fmt: skip
        pattern_id = np.zeros(count, np.uint64)
        pattern_id[kept] = mined.pattern_id
        made: list[Batch] = []
        if not self._as_it_stands:
            made = self._counts.add(
                self._hosts.key[host], host, pattern_id, severity, arrival_ns, self._hosts.text
            )
        made += self._patterns_told(
            cut.work, heads.take(kept, axis=1), mined, message_id[kept], arrival_ns[kept]
        )
        rows = Rows(cut.work, heads.take(kept, axis=1), time_ns[kept], arrival_ns[kept], host[kept],
                     app[kept], message_id[kept], block.frontier_ns)  # fmt: skip
        found = self._meanings.of(
            rows, np.flatnonzero(ruled[kept]), self._hosts.text, self._words.text
        )
        if kept.size:
            made.append(self._log_batch(rows, mined, found))
        if found.alarms is not None:
            made.append(found.alarms)
        return made

    def _find_senders(self, block: DatagramBlock) -> NDArray[np.int32]:
        """Return each datagram's sender."""
        high, low = block.exporter_high, block.exporter_low
        key = (low ^ (high * np.uint64(0x9E3779B97F4A7C15))) | np.uint64(1 << 63)
        none = np.zeros(block.datagrams, np.int64)
        row, fresh = self._senders.find(
            block.payload, none, none, key, block.arrival_ns,
            lambda d: address_text(int(high[d]), int(low[d])),
        )  # fmt: skip
        if fresh:
            at = dict(zip(row.tolist()[::-1], range(block.datagrams - 1, -1, -1), strict=True))
            for r in fresh:
                d = at[r]
                self._sender_address[:, r] = high[d], low[d]
                self._sender_host_key[r] = _hash(self._senders.text[r].encode())
        if self._zones:
            self._refresh_zones(int(block.arrival_ns[0]), fresh)
        return row

    def _refresh_zones(self, now_ns: int, fresh: range) -> None:
        hour = now_ns // (3600 * SECOND)
        for r in fresh if hour == self._zone_hour else range(1, self._senders.rows):
            high, low = self._sender_address[:, r].tolist()
            self._sender_zone[r] = self._zones.minutes(high, low, now_ns)
        self._zone_hour = hour

    def _find_names(
        self,
        work: NDArray[np.uint8],
        heads: NDArray[np.int64],
        sender: NDArray[np.int32],
        arrival_ns: NDArray[np.int64],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Return each message's host, program and message id."""

        def text(start: int) -> Any:
            def of(m: int) -> str:
                at, size = int(heads[start, m]), min(int(heads[start + 1, m]), NAME_BYTES_MAX)
                return plain_text(work[at : at + size].tobytes())

            return of

        named = text(header.HOST_START)
        host, _ = self._hosts.find(
            work, heads[header.HOST_START], heads[header.HOST_SIZE], self._sender_host_key[sender],
            arrival_ns,
            lambda m: named(m) if heads[header.HOST_SIZE, m] else self._senders.text[sender[m]],
        )  # fmt: skip
        found = []
        instead = np.full(arrival_ns.size, _EMPTY_WORD)
        for start in (header.APP_START, header.ID_START):
            row, fresh = self._words.find(
                work, heads[start], heads[start + 1], instead, arrival_ns, text(start)
            )
            for r in fresh:
                self._learn_rules(r)
            found.append(row)
        return host, found[0], found[1]

    def _learn_rules(self, row: int) -> None:
        self._has_rules[:, row] = self._meanings.learn(row, self._words.text[row])

    def _count_heads(self, flags: NDArray[np.int64]) -> None:
        structured = np.count_nonzero(flags & header.RFC5424)
        amounts = [structured, flags.size - structured]
        amounts += [np.count_nonzero(flags & bit) for bit, _ in _FLAGS]
        self._heads.array += np.array(amounts, np.uint64)

    def _count_fates(
        self,
        heads: NDArray[np.int64],
        sender: NDArray[np.int32],
        severity: NDArray[np.int64],
        keep: NDArray[np.uint8],
    ) -> None:
        rows = self._senders.rows
        dropped = np.flatnonzero(keep == 0)
        self._shed.array += np.bincount(severity[dropped], minlength=8).astype(np.uint64)
        shed_of = np.bincount(sender[dropped], minlength=rows)
        self._sender_counts[_SHED, :rows] += shed_of
        self._sender_counts[_DECODED, :rows] += np.bincount(sender, minlength=rows) - shed_of
        bare = header.NO_PRIORITY | header.NO_TIME
        unparsed = (heads[header.FLAGS] & bare == bare) & (heads[header.ID_SIZE] == 0)
        if unparsed.any():
            of = np.bincount(sender[unparsed], minlength=rows)
            for row in np.flatnonzero(of).tolist():
                self._unparsed.add(self._senders.text[row], int(of[row]))
        self._lines.array[0] += np.uint64(keep.size - dropped.size)

    def _patterns_told(
        self,
        work: NDArray[np.uint8],
        heads: NDArray[np.int64],
        mined: Mined,
        message_id: NDArray[np.int32],
        arrival_ns: NDArray[np.int64],
    ) -> list[Batch]:
        """Return templates of new and wider patterns, and what became part of others."""
        rows: list[tuple[int, dict[str, Any]]] = []
        template: dict[int, str] = {}
        for m in np.flatnonzero(mined.new).tolist():
            at, size = int(heads[header.TEXT_START, m]), int(heads[header.TEXT_SIZE, m])
            text = _template(work[at : at + size].tobytes(), mined, m)
            word = self._words.text[message_id[m]]
            template[m] = name = f"{word}: {text}" if word else text
            rows.append((m, _pattern_row(int(arrival_ns[m]), int(mined.pattern_id[m]), name, 0)))
        for m, old, new in mined.joined:
            rows.append((m, _pattern_row(int(arrival_ns[m]), old, template[m], new)))
        if not rows:
            return []
        rows.sort(key=lambda one: one[0])
        made = [row for _, row in rows]
        return [
            batch_from_rows(OPTION, made, source=self._source, arrival_ns=made[-1]["arrival_ns"])
        ]

    def _log_batch(self, rows: Rows, mined: Mined, found: Found) -> Batch:
        heads, work = rows.heads, rows.work
        columns: dict[str, Any] = {
            "time_ns": rows.time_ns,
            "arrival_ns": rows.arrival_ns,
            "facility": heads[header.FACILITY].astype(np.uint8),
            "severity": heads[header.SEVERITY].astype(np.uint8),
            "pattern_id": mined.pattern_id,
            "novelty": (mined.new == FIRST).astype(np.uint8),
        }
        blobs: dict[str, Any] = {}
        dictionaries: dict[str, tuple[str, ...]] = {}
        for name, start in (
            ("message", header.TEXT_START),
            ("process_id", header.PROCESS_START),
            ("structured_data", header.DATA_START),
        ):
            columns[name], blobs[name] = texts(work, heads[start], heads[start + 1])
        every = np.arange(rows.time_ns.size)
        told = np.arange(mined.size.shape[0])[:, None] < mined.variables
        room = 2 * int(mined.size[told].sum()) + 3 * int(mined.variables.sum()) + 2 * every.size + 2
        columns["variables"] = offsets = np.empty(every.size + 1, np.int32)
        data = np.empty(room, np.uint8)
        used = list_variables(
            work, heads[header.TEXT_START], mined.start, mined.size, mined.variables, every,
            offsets, data,
        )  # fmt: skip
        blobs["variables"] = data[:used]
        for name, row, names in (
            ("host", rows.host, self._hosts),
            ("app", rows.app, self._words),
            ("message_id", rows.message_id, self._words),
        ):
            words, codes = np.unique(row, return_inverse=True)
            columns[name] = codes.astype(np.uint32)
            dictionaries[name] = tuple(names.text[word] for word in words.tolist())
        columns["event"], dictionaries["event"] = found.event, found.events
        return Batch(
            LOG, columns, blobs, dictionaries, self._source, int(rows.arrival_ns[-1]),
            rows.frontier_ns,
        )  # fmt: skip

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return counts of seconds that are over, and a ledger row for each sender with news."""
        made: list[Batch] = []
        if self._stream and self._options.multi_line:
            made += self._finish(frontier_ns)
        made += self._counts.over(frontier_ns, self._hosts.text)
        ledger = self._ledger(frontier_ns)  # before senders give way: it says what they sent
        if ledger is not None:
            made.append(ledger)
        return made + self._make_room()

    def _finish(self, frontier_ns: int) -> list[Batch]:
        """Decode what waits behind a line end for longer than a second."""
        block = self._connections.overdue(frontier_ns - SECOND)
        if block is None:
            return []
        cut = self._connections.cut(block, multi_line=True, tally=self._frames.array)
        return self._decode(block, cut)

    def _make_room(self) -> list[Batch]:
        """Let names give way that were not heard of, where a table is nearly full."""
        made: list[Batch] = []
        if self._senders.crowded():
            stay = self._senders.make_room()
            of_sender: tuple[NDArray[Any], ...] = (
                self._sender_address, self._sender_counts, self._sender_host_key,
                self._sender_zone, self._sender_offset,
            )  # fmt: skip
            for array in of_sender:
                _move(array, stay)
        if self._hosts.crowded():
            made += self._counts.clear(self._hosts.text)
            self._meanings.forget()
            _move(self._clock, self._hosts.make_room())
        if self._words.crowded():
            stay = self._words.make_room()
            self._relearn()
        reached = (
            self._connections.refused, self._senders.evicted + self._hosts.evicted,
            self._words.evicted, self._patterns.evicted, self._counts.cleared,
        )  # fmt: skip
        self._full.array[:] = reached
        return made

    def _relearn(self) -> None:
        self._has_rules[:] = 0
        self._meanings.clear()
        for row in range(1, self._words.rows):
            self._learn_rules(row)

    def _ledger(self, frontier_ns: int) -> Batch | None:
        rows = self._senders.rows
        counts = self._sender_counts[:, :rows]
        news = np.flatnonzero(counts.any(axis=0))
        if not news.size:
            return None
        delta = counts[:, news].copy()
        counts[:] = 0
        empty = delta[_EMPTY]

        def zeros(dtype: Any) -> Any:
            return np.zeros(news.size, dtype)

        return Batch(
            LEDGER,
            {
                "arrival_ns": np.full(news.size, frontier_ns, np.int64),
                "exporter_address_high": self._sender_address[0, news],
                "exporter_address_low": self._sender_address[1, news],
                "observation_domain_id": zeros(np.uint32),
                "protocol": zeros(np.uint32),
                "sent": (delta[_DECODED] + delta[_SHED] + empty).astype(np.uint64),
                "decoded": delta[_DECODED].astype(np.uint64),
                "lost_wire": zeros(np.int64),
                "lost_kernel": zeros(np.uint64),
                "undecodable": empty,
                "shed": delta[_SHED].astype(np.uint64),
                "datagrams": delta[_DATAGRAMS].astype(np.uint64),
                "records": delta[_DECODED].astype(np.uint64),
                "clock_offset_ns": self._sender_offset[news],
                "no_template": zeros(np.int64),
                "malformed": empty.astype(np.uint64),
                "duplicate": zeros(np.uint64),
                "restarts": zeros(np.uint64),
                "uptime_drift_ppm": zeros(np.float32),
            },
            {},
            {"protocol": ("syslog",)},
            "ledger",
            frontier_ns,
            frontier_ns,
        )

    def snapshot(self, out: Any) -> None:
        """Write names, clocks, patterns and the open second. What streams have not finished ends with them."""
        self._senders.snapshot(out, "senders")
        self._hosts.snapshot(out, "hosts")
        self._words.snapshot(out, "words")
        write_array(out, "clock", np.ascontiguousarray(self._clock[:, : self._hosts.rows].T))
        rows = self._senders.rows
        write_array(out, "sender_address", np.ascontiguousarray(self._sender_address[:, :rows].T))
        write_array(out, "second", self._second)
        self._meanings.snapshot(out)
        self._patterns.snapshot(out)
        self._counts.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take them back."""
        found = read_arrays(state, "second", "clock", "sender_address")
        if found is None:
            return
        second, clock, address = found
        if not self._hosts.restore(state, "hosts") or not self._senders.restore(state, "senders"):
            return
        self._words.restore(state, "words")
        self._second[:] = second
        self._clock[:, : len(clock)] = clock.T
        self._sender_address[:, : len(address)] = address.T
        for r in range(1, self._senders.rows):
            self._sender_host_key[r] = _hash(self._senders.text[r].encode())
        self._relearn()
        self._meanings.restore(state)
        self._patterns.restore(state)
        self._counts.restore(state)


_FLAGS = (
    (header.NO_PRIORITY, "no_priority"),
    (header.NO_HOST, "no_host"),
    (header.NO_TIME, "no_time"),
    (header.NO_YEAR, "no_year"),
    (header.UNSYNCHRONISED, "unsynchronised"),
    (header.BAD_DATA, "bad_structured_data"),
    (header.UPTIME, "uptime"),
)


def _hash(data: bytes) -> int:
    """Return the key of a name as `senders.name_rows` makes it."""
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFF_FFFF_FFFF_FFFF
    h = (h ^ h >> 27) * 0x94D049BB133111EB & 0xFFFF_FFFF_FFFF_FFFF
    return (h ^ h >> 31) or 1


def _template(text: bytes, mined: Mined, m: int) -> str:
    """Return a text with its variables as `<*>`."""
    parts, at = [], 0
    for i in range(int(mined.variables[m])):
        start, size = int(mined.start[i, m]), int(mined.size[i, m])
        parts.append(text[at:start])
        at = start + size
    parts.append(text[at:])
    return " ".join(plain_text(b"<*>".join(parts)[:TEMPLATE_BYTES_MAX]).split())


def _pattern_row(arrival_ns: int, pattern_id: int, template: str, part_of: int) -> dict[str, Any]:
    return {
        "arrival_ns": arrival_ns,
        "table": "log-pattern",
        "key": pattern_id,
        "name": template,
        "value": part_of,
    }


def _move(array: NDArray[Any], stay: NDArray[np.int64]) -> None:
    """Keep the rows that stay, in their new order, along the last axis."""
    kept = array[..., stay].copy()
    array[...] = 0
    array[..., : stay.size] = kept


def _make(settings: ListenerSettings, options: SyslogOptions, context: Context) -> SyslogDecoder:
    return SyslogDecoder(settings, options, context)


def _looks_like(head: bytes) -> bool:
    """Whether a file begins as log messages do."""
    return _BEGINS.match(head) is not None


_BEGINS = re.compile(
    rb"(?:[1-9]\d{0,5} )?<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d |%%?\w+-[0-7]-\w+: "
)
READS = Reads(
    udp_ports=(514, 5514),
    tcp_ports=(514, 601, 5514, 6514),
    file="stream",
    looks_like=_looks_like,
    reasons={
        "collector_syslog_frames_total": {
            "cut": "syslog messages longer than message_bytes_max (their beginning was read)",
            "unfinished": "syslog messages whose connection ended within (what came was read)",
        }
    },
)
COLLECTOR = Part(
    "syslog over UDP, TCP and TLS: RFC 3164, 5424, 6587, routers' dialects",
    _make,
    SyslogOptions,
    reads=READS,
    sheds="lines over lines_per_second_max: debug first (from 60 % of it), then info, notice, warning;"
    " what raises or clears an alarm never; all are counted in their series",
)
