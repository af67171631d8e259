"""The flow decoder: NetFlow v5, v9 and IPFIX, told apart by their version field."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors import netflow5, streams, templated
from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings
from collectors.elements import SLOT, SLOTS
from collectors.ledger import ledger_batch
from collectors.options import OptionReader
from collectors.sampling import SamplingRates
from collectors.templates import Field, StreamKey, Template, TemplateStore
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schema import Schema
from telemetry.schemas import FLOW, FLOW_FIELD_BIT, LEDGER, OPTION

# Not a power of two: columns a multiple of 4 KiB apart would share one set of the cache.
ROWS_PER_CALL = 65_536 + 8
SEGMENTS_PER_CALL = 16_384
VERSIONS = {5: "netflow5", 9: "netflow9", 10: "ipfix"}

# Slots that are schema columns as they are.
_DIRECT = tuple(name for name in SLOTS if name in FLOW.by_name and "exporter" not in name)
_ADDRESSES = ("source", "destination", "next_hop", "post_nat_source", "post_nat_destination")
_START = (
    "start_uptime_ms",
    "start_s",
    "start_ms",
    "start_us_ntp",
    "start_ns_ntp",
    "start_delta_us",
)
_END = tuple(name.replace("start", "end") for name in _START)
_ALWAYS = sum(
    1 << FLOW_FIELD_BIT[name]
    for name in (
        "export_ns",
        "arrival_ns",
        "exporter_address_high",
        "exporter_address_low",
        "observation_domain_id",
    )
)
# What a v5 record always carries.
_V5_PRESENT = _ALWAYS | sum(
    1 << FLOW_FIELD_BIT[name]
    for name in (
        "flow_start_ns",
        "flow_end_ns",
        "source_address_high",
        "source_address_low",
        "destination_address_high",
        "destination_address_low",
        "next_hop_address_high",
        "next_hop_address_low",
        "source_port",
        "destination_port",
        "protocol",
        "tcp_flags",
        "ip_class_of_service",
        "ingress_interface",
        "egress_interface",
        "octets",
        "packets",
        "source_as",
        "destination_as",
        "source_prefix_length",
        "destination_prefix_length",
    )
)
_RATE_BIT = np.uint64(1 << FLOW_FIELD_BIT["sampling_rate"])


@dataclass(frozen=True, slots=True)
class Held:
    """A data set that came before its template, with the header it came under."""

    data: bytes  # a whole message of one set
    exporter_port: int
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class SetSeen:
    """A decoded set, for people: its template, its bytes, where they lie, how many rows it gave."""

    template: Template
    data: bytes
    offset: int  # of `data` in its datagram
    arrival_ns: int
    rows: int  # flow rows; 0 for options data


def _present_in_schema(slots: int) -> int:
    """Return the `fields_present` mask of a plan whose slots are these bits."""
    present = _ALWAYS
    for name in _DIRECT:
        if slots >> SLOT[name] & 1:
            present |= 1 << FLOW_FIELD_BIT[name]
    if any(slots >> SLOT[name] & 1 for name in _START):
        present |= 1 << FLOW_FIELD_BIT["flow_start_ns"]
    if any(slots >> SLOT[name] & 1 for name in _END):
        present |= 1 << FLOW_FIELD_BIT["flow_end_ns"]
    if any(slots >> SLOT[name] & 1 for name in ("icmp_type_code", "icmp_type")):
        present |= 1 << FLOW_FIELD_BIT["destination_port"]
    return present


class FlowDecoder:
    """Turn export datagrams into `flow`, `option` and `ledger` batches. Owns no socket.

    Rows keep the order of arrival for each protocol family. Counts stand as exported, the sampling
    rate beside them. Bounded: templates, held sets and streams have limits; what does not fit is
    counted by reason.
    """

    emits: tuple[Schema, ...] = (FLOW, OPTION, LEDGER)

    def __init__(self, settings: FlowDecoderSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._streams = streams.Streams()
        exported = settings.clock == "exported"
        self._tolerance_ns = -1 if exported else round(settings.clock_tolerance_seconds * 1e9)
        # For people (`tocsin decode`): where a list is put here, each decoded set is noted in it,
        # in the order of the rows that `decode` returns. None on the data path.
        self.sets_seen: list[SetSeen] | None = None
        self.templates = TemplateStore(per_exporter_max=settings.templates_per_exporter_max)
        self._sampling = SamplingRates(settings.sampling_override)
        self._options = OptionReader(self._sampling)
        self._held: dict[tuple[StreamKey, int], deque[Held]] = {}
        self._held_bytes: dict[tuple[int, int], int] = {}
        self._held_total = 0
        metrics = context.metrics
        self._verdict5 = metrics.counter(
            "collector_netflow5_datagrams_total",
            "NetFlow v5 datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in netflow5.Verdict),
        )
        self._verdict = metrics.counter(
            "collector_templated_datagrams_total",
            "v9 and IPFIX datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in templated.Verdict),
        )
        self._templates_seen = metrics.counter(
            "collector_templates_total",
            "template announcements by what became of them",
            label="result",
            values=("new", "same", "changed", "refused", "withdrawn", "expired", "malformed"),
        )
        self._sets = metrics.counter(
            "collector_sets_total",
            "sets that were not decoded at once, by reason",
            label="reason",
            values=("held", "decoded_later", "held_dropped", "reserved_id", "options_malformed"),
        )
        self._records = metrics.counter("collector_records_total", "flow records decoded")
        self._resets = metrics.counter(
            "collector_sequence_resets_total", "sequence numbers that jumped: an exporter restarted"
        )

    # ---- decoding

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams; see the class."""
        count = block.datagrams
        if not count:
            return []
        self.templates.drop_unused_plans()
        located = self._locate(block)
        version = np.zeros(count, np.int32)
        readable = block.length >= 2
        at = block.offset[readable]
        version[readable] = block.payload[at].astype(np.int32) << 8 | block.payload[at + 1]
        units = np.zeros(count, np.int64)
        undecodable = np.zeros(count, np.uint8)
        unsure = np.zeros(count, np.uint8)
        batches: list[Batch] = []
        five = np.flatnonzero(version == 5)
        if five.size:
            batches += self._decode5(block, five, located, units, undecodable)
        other = np.flatnonzero(version != 5)
        if other.size:
            batches += self._decode_templated(block, other, located, units, undecodable, unsure)
        self._resets.array[0] += np.uint64(
            streams.account(
                located.stream,
                located.sequence,
                units,
                undecodable,
                unsure,
                self._streams.state,
                self._streams.counts,
            )
        )
        return batches

    def _locate(self, block: DatagramBlock) -> "_Located":
        count = block.datagrams
        made = _Located(
            np.zeros(count, np.int32),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.uint32),
        )
        self._streams.rows = streams.locate(
            block.payload,
            block.offset,
            block.length,
            block.exporter_high,
            block.exporter_low,
            block.exporter_port,
            block.arrival_ns,
            self._tolerance_ns,
            self._streams.table,
            self._streams.key,
            self._streams.state,
            self._streams.counts,
            self._streams.rows,
            made.stream,
            made.export_ns,
            made.offset_ns,
            made.sequence,
            made.uptime_ms,
        )
        return made

    def _decode5(
        self,
        block: DatagramBlock,
        chosen: NDArray[np.int64],
        located: "_Located",
        units: NDArray[np.int64],
        undecodable: NDArray[np.uint8],
    ) -> list[Batch]:
        capacity = 30 * chosen.size + 16  # see ROWS_PER_CALL
        out = np.empty((len(netflow5.COLUMNS), capacity), np.uint32)
        datagram = np.empty(capacity, np.int32)
        verdict = np.empty(chosen.size, np.uint8)
        rows = netflow5.decode_v5(
            block.payload, block.offset[chosen], block.length[chosen], out, datagram, verdict
        )
        self._verdict5.array += np.bincount(verdict, minlength=len(netflow5.Verdict)).astype("u8")
        d = chosen[datagram[:rows]]
        units[chosen] = np.bincount(datagram[:rows], minlength=chosen.size)
        np.add.at(self._streams.counts[:, streams.RECORDS], located.stream[chosen], units[chosen])
        undecodable[chosen] = (verdict != 0) & (verdict != netflow5.Verdict.WRONG_COUNT)
        if not rows:
            return []
        raw = dict(zip(netflow5.COLUMNS, out[:, :rows], strict=True))
        export_ns = located.export_ns[d]
        uptime = located.uptime_ms[d]
        v4 = np.uint64(0xFFFF << 32)
        high = np.zeros(rows, np.uint64)
        rate = raw["sampling_rate"].copy()
        unknown = rate == 0
        if unknown.any() and self._sampling.has_overrides:
            self._fill_override(rate, unknown, block, d)
        present = np.full(rows, _V5_PRESENT, np.uint64)
        present[rate > 0] |= _RATE_BIT
        flags = raw["flags_protocol_tos"]
        columns: dict[str, NDArray[Any]] = {
            "flow_start_ns": _uptime_ns(raw["first_ms"], uptime, export_ns),
            "flow_end_ns": _uptime_ns(raw["last_ms"], uptime, export_ns),
            "export_ns": export_ns,
            "arrival_ns": block.arrival_ns[d],
            "exporter_address_high": block.exporter_high[d],
            "exporter_address_low": block.exporter_low[d],
            "observation_domain_id": self._streams.key[located.stream[d], 3].astype(np.uint32),
            "tcp_flags": (flags >> np.uint32(16)).astype(np.uint16),
            "protocol": (flags >> np.uint32(8)).astype(np.uint8),
            "ip_class_of_service": flags.astype(np.uint8),
            "source_port": (raw["ports"] >> np.uint32(16)).astype(np.uint16),
            "destination_port": raw["ports"].astype(np.uint16),
            "source_as": raw["as_numbers"] >> np.uint32(16),
            "destination_as": raw["as_numbers"] & np.uint32(0xFFFF),
            "source_prefix_length": (raw["masks"] >> np.uint32(8)).astype(np.uint8),
            "destination_prefix_length": raw["masks"].astype(np.uint8),
            "sampling_rate": rate,
            "fields_present": present,
        }
        for name in ("source_address", "destination_address", "next_hop_address"):
            columns[f"{name}_high"] = high
            columns[f"{name}_low"] = raw[name].astype(np.uint64) | v4
        for name in ("ingress_interface", "egress_interface", "octets", "packets"):
            columns[name] = raw[name].astype(FLOW.by_name[name].dtype)
        return [self._flow_batch(columns, rows, block, "netflow5")]

    def _decode_templated(
        self,
        block: DatagramBlock,
        chosen: NDArray[np.int64],
        located: "_Located",
        units: NDArray[np.int64],
        undecodable: NDArray[np.uint8],
        unsure: NDArray[np.uint8],
        *,
        again: bool = False,
    ) -> list[Batch]:
        part = _Part(block, chosen, located)
        cursor = np.zeros(templated.CURSOR_SIZE, np.int64)
        verdict = np.zeros(chosen.size, np.uint8)
        records = np.zeros(chosen.size, np.int32)
        batches: list[Batch] = []
        options: list[dict[str, Any]] = []
        buffers = self._buffers()
        first_segment = 0  # segments before it already have their sampling rate
        while True:
            stop = self._walk(part, buffers, cursor, verdict, records)
            if stop in (templated.Stop.END, templated.Stop.FULL):
                batches += self._finish(part, buffers, cursor, first_segment)
                if stop == templated.Stop.END:
                    break
                cursor[templated.ROWS] = cursor[templated.SEGMENTS] = first_segment = 0
                buffers = self._buffers()
                continue
            d = int(cursor[templated.AT_DATAGRAM])
            at, end = int(cursor[templated.SET_AT]), int(cursor[templated.SET_END])
            data = part.payload[at:end].tobytes()
            stream = part.stream_key(d)
            if stop == templated.Stop.UNKNOWN_TEMPLATE:
                unsure[chosen[d]] = 1
                self._hold(part, d, int(cursor[templated.SET_ID]), data, stream)
            elif stop == templated.Stop.OPTIONS_DATA:
                # A rate counts from here on: rows before it keep the one that held then.
                self._rates(part, buffers, cursor, first_segment)
                first_segment = int(cursor[templated.SEGMENTS])
                set_id = int(cursor[templated.SET_ID])
                records[d] += self._read_options(part, d, set_id, data, stream, options)
                self._note(part, d, set_id, at, data, 0)
            else:
                ready = self._learn(
                    data, stream, stop == templated.Stop.OPTIONS_TEMPLATE_SET, part.arrival(d)
                )
                old_active = buffers.active
                noting = self.sets_seen is not None  # a set is noted under the template it had
                if noting or ready or bool((self._active() & ~old_active.astype(bool)).any()):
                    # The new plan may fill slots that earlier rows never wrote: close them first.
                    batches += self._finish(part, buffers, cursor, first_segment)
                    cursor[templated.ROWS] = cursor[templated.SEGMENTS] = first_segment = 0
                    buffers = self._buffers()
                for held in ready:
                    batches += self._decode_held(held, stream)
        if options:
            batches.append(self._options.batch(options))
        self._sets.add("reserved_id", int(cursor[templated.RESERVED_SETS]))
        if not again:  # a set that waited was counted with the datagram it came in
            self._verdict.array += np.bincount(verdict, minlength=len(templated.Verdict)).astype(
                "u8"
            )
        versions = self._streams.key[part.stream, 2] >> np.uint64(16)
        units[chosen] = np.where(versions == 9, 1, records)
        bad = (verdict != templated.Verdict.OK) & (
            verdict != templated.Verdict.LENGTH_BEYOND_DATAGRAM
        )
        undecodable[chosen] = bad
        return batches

    def _active(self) -> NDArray[np.bool_]:
        union = 0
        for mask in self.templates.plans.present.tolist():
            union |= mask
        return np.array([union >> slot & 1 for slot in range(len(SLOTS))], bool)

    def _buffers(self) -> "_Buffers":
        return _Buffers(
            np.empty((len(SLOTS), ROWS_PER_CALL), np.uint64),
            np.empty((SEGMENTS_PER_CALL, 6), np.int32),
            self._active().astype(np.uint8),
            np.zeros(SEGMENTS_PER_CALL, np.uint32),
        )

    def _walk(
        self,
        part: "_Part",
        buffers: "_Buffers",
        cursor: NDArray[np.int64],
        verdict: NDArray[np.uint8],
        records: NDArray[np.int32],
    ) -> int:
        plans = self.templates.plans
        return templated.walk(
            part.payload,
            part.offset,
            part.length,
            part.exporter_high,
            part.exporter_low,
            part.exporter_port,
            self.templates.table_key,
            self.templates.table_plan,
            plans.first,
            plans.count,
            plans.record_bytes,
            plans.present,
            plans.width,
            plans.slot,
            plans.convert,
            buffers.active,
            buffers.out,
            buffers.segment,
            cursor,
            verdict,
            records,
        )

    def _rates(
        self, part: "_Part", buffers: "_Buffers", cursor: NDArray[np.int64], first: int
    ) -> None:
        """Fix the stream-wide sampling rate of the segments since `first`."""
        last = int(cursor[templated.SEGMENTS])
        row = part.stream[buffers.segment[first:last, 0]]
        buffers.rate[first:last] = self._streams.rate[row]

    def _finish(
        self, part: "_Part", buffers: "_Buffers", cursor: NDArray[np.int64], first: int
    ) -> list[Batch]:
        rows, segments = int(cursor[templated.ROWS]), int(cursor[templated.SEGMENTS])
        if not rows:
            return []
        decoded = buffers.segment[:segments]
        by_stream = self._streams.counts[:, streams.RECORDS]
        np.add.at(by_stream, part.stream[decoded[:, 0]], decoded[:, 3])
        self._rates(part, buffers, cursor, first)
        segment = buffers.segment[:segments]
        if self.sets_seen is not None:
            for d0, _, _, count, at, end in segment.tolist():
                set_id = int.from_bytes(part.payload[at - 4 : at - 2].tobytes(), "big")
                self._note(part, d0, set_id, at, part.payload[at:end].tobytes(), count)
        per_row = segment[:, 3]
        d = np.repeat(segment[:, 0], per_row)
        masks = self.templates.plans.present[segment[:, 1]]
        schema_masks = {mask: _present_in_schema(mask) for mask in set(masks.tolist())}
        present = np.repeat(
            np.array([schema_masks[mask] for mask in masks.tolist()], np.uint64), per_row
        )
        has = np.repeat(masks, per_row)
        union = int(np.bitwise_or.reduce(masks))
        view = _Rows(part, buffers.out, rows, d, has, union)
        columns: dict[str, NDArray[Any]] = {
            "export_ns": part.export_ns[d],
            "arrival_ns": part.arrival_ns[d],
            "exporter_address_high": part.exporter_high[d],
            "exporter_address_low": part.exporter_low[d],
            "observation_domain_id": self._streams.key[part.stream[d], 3].astype(np.uint32),
        }
        for name in _DIRECT:
            if union >> SLOT[name] & 1:
                columns[name] = buffers.out[SLOT[name], :rows].astype(FLOW.by_name[name].dtype)
        columns["flow_start_ns"] = self._times(view, _START)
        columns["flow_end_ns"] = self._times(view, _END)
        self._exporter_in_record(view, columns)
        _icmp(view, columns)
        rate = np.repeat(buffers.rate[:segments], per_row)
        rate = self._sampling.of_rows(view.slot, view.has, rate, self._streams, part.stream[d])
        unknown = rate == 0
        if self._sampling.has_overrides and unknown.any():
            self._fill_override(rate, unknown, part.block, part.chosen[d])
        present |= np.where(rate > 0, _RATE_BIT, np.uint64(0))
        columns["sampling_rate"] = rate
        columns["fields_present"] = present
        version = int(self._streams.key[part.stream[d[0]], 2]) >> 16
        return [self._flow_batch(columns, rows, part.block, VERSIONS.get(version, "ipfix"))]

    def _note(self, part: "_Part", d: int, set_id: int, at: int, data: bytes, rows: int) -> None:
        if self.sets_seen is None:
            return
        template = self.templates.get(part.stream_key(d), set_id)
        assert template is not None  # its set was decoded a moment ago
        place = at - int(part.offset[d])
        self.sets_seen.append(SetSeen(template, data, place, part.arrival(d), rows))

    def _times(self, view: "_Rows", names: tuple[str, ...]) -> NDArray[np.int64]:
        """Return ns since 1970 by our clock from whichever time base each row has; 0 = absent."""
        uptime, seconds, milliseconds, micro, nano, delta = names
        part, d = view.part, view.d
        made = np.zeros(view.rows, np.int64)
        offset = part.offset_ns[d]
        export_ns = part.export_ns[d]
        if view.any(uptime):
            value = view.slot(uptime)
            by_uptime = _uptime_ns(value.astype(np.uint32), part.uptime_ms[d], export_ns)
            # IPFIX headers carry no uptime: the boot time comes in the record or in options.
            version9 = self._streams.key[part.stream[d], 2] >> np.uint64(16) == 9
            boot = self._streams.boot_ns[part.stream[d]]
            if view.any("boot_ms"):
                in_record = view.slot("boot_ms").astype(np.int64) * 1_000_000
                boot = np.where(view.has("boot_ms"), in_record, boot)
            by_boot = np.where(boot > 0, boot + value.astype(np.int64) * 1_000_000 - offset, 0)
            use = view.has(uptime)
            made = np.where(use, np.where(version9, by_uptime, by_boot), made)
        for name, scale in (
            (seconds, 1_000_000_000),
            (milliseconds, 1_000_000),
            (micro, 1),
            (nano, 1),
        ):
            if view.any(name):
                stated = view.slot(name).astype(np.int64) * scale
                good = view.has(name) & (stated != 0)
                made = np.where(good, stated - offset, made)
        if view.any(delta):
            before = export_ns - view.slot(delta).astype(np.int64) * 1_000
            made = np.where(view.has(delta), before, made)
        return made

    def _exporter_in_record(self, view: "_Rows", columns: dict[str, NDArray[Any]]) -> None:
        """Elements 130/131 name the true exporter where a mediator relays its records."""
        if view.any("exporter_address_low"):
            high, low = view.slot("exporter_address_high"), view.slot("exporter_address_low")
            use = view.has("exporter_address_low") & ((high | low) != 0)
            use &= low != np.uint64(0xFFFF << 32)
            columns["exporter_address_high"] = np.where(use, high, columns["exporter_address_high"])
            columns["exporter_address_low"] = np.where(use, low, columns["exporter_address_low"])

    def _fill_override(
        self,
        rate: NDArray[np.uint32],
        unknown: NDArray[np.bool_],
        block: DatagramBlock,
        d: NDArray[Any],
    ) -> None:
        high, low = block.exporter_high[d], block.exporter_low[d]
        pairs = np.unique(np.stack([high[unknown], low[unknown]], axis=1), axis=0)
        for exporter_high, exporter_low in pairs.tolist():
            found = self._sampling.override(exporter_high, exporter_low)
            if found:
                rate[unknown & (high == exporter_high) & (low == exporter_low)] = found

    def _flow_batch(
        self, columns: dict[str, NDArray[Any]], rows: int, block: DatagramBlock, source: str
    ) -> Batch:
        for spec in FLOW.fields:
            if spec.name not in columns:
                columns[spec.name] = np.zeros(rows, spec.dtype)
        self._records.array[0] += np.uint64(rows)
        newest = int(block.arrival_ns[-1]) if block.datagrams else 0
        return Batch(FLOW, columns, {}, {}, source, newest, block.frontier_ns)

    # ---- what is rare: templates, options, sets that wait

    def _learn(self, data: bytes, stream: StreamKey, options: bool, arrival_ns: int) -> list[Held]:
        """Learn the templates of a set; return the data sets that waited for them."""
        ready: list[Held] = []
        version = stream[2] >> 16
        for template in read_templates(data, stream, version, options, arrival_ns):
            if template is None:
                self._templates_seen.add("malformed")
            elif not template.fields:
                gone = self.templates.withdraw(stream, template.template_id)
                self._templates_seen.add("withdrawn", max(gone, 1))
            else:
                result = self.templates.put(template)
                self._templates_seen.add(result)
                if result != "refused":
                    ready += self._release((stream, template.template_id))
        return ready

    def _hold(self, part: "_Part", d: int, set_id: int, data: bytes, stream: StreamKey) -> None:
        exporter = stream[:2]
        header = part.header(d)
        held = Held(_message(header, set_id, data), stream[2] & 0xFFFF, part.arrival(d))
        size = len(held.data)
        own = self._held_bytes.get(exporter, 0)
        if (
            own + size > self._settings.held_bytes_per_exporter_max
            or self._held_total + size > self._settings.held_bytes_max
        ):
            self._sets.add("held_dropped")
            return
        self._sets.add("held")
        self._held.setdefault((stream, set_id), deque()).append(held)
        self._held_bytes[exporter] = own + size
        self._held_total += size

    def _release(self, key: tuple[StreamKey, int]) -> list[Held]:
        waiting = list(self._held.pop(key, ()))
        freed = sum(len(held.data) for held in waiting)
        if freed:
            self._held_bytes[key[0][:2]] -= freed
            self._held_total -= freed
        return waiting

    def _decode_held(self, held: Held, stream: StreamKey) -> list[Batch]:
        """Decode a set whose template has come; its rows keep their own times."""
        self._sets.add("decoded_later")
        block = DatagramBlock(
            np.frombuffer(held.data, np.uint8),
            np.zeros(1, np.int64),
            np.array([len(held.data)], np.int32),
            np.array([stream[0]], np.uint64),
            np.array([stream[1]], np.uint64),
            np.array([held.exporter_port], np.uint16),
            np.array([held.arrival_ns], np.int64),
        )
        located = self._locate(block)
        nothing = np.zeros(1, np.int64)
        flags = np.zeros(1, np.uint8)
        return self._decode_templated(
            block, np.zeros(1, np.int64), located, nothing, flags, flags.copy(), again=True
        )

    def _read_options(
        self,
        part: "_Part",
        d: int,
        set_id: int,
        data: bytes,
        stream: StreamKey,
        found: list[dict[str, Any]],
    ) -> int:
        template = self.templates.get(stream, set_id)
        assert template is not None  # the kernel found it a moment ago
        records, rows = self._options.read(template, data, part.arrival(d))
        found += rows
        row = int(part.stream[d])
        boot_ms = self._options.boot_ms
        if boot_ms:
            # By the options' domain; data may come under another stream of the same exporter.
            same = self._same_exporter(stream)
            self._streams.boot_ns[same] = boot_ms * 1_000_000
        self._sampling.refresh(self._streams, row, self._same_domain(stream))
        return records

    def _same_exporter(self, stream: StreamKey) -> NDArray[np.int64]:
        key = self._streams.key[: self._streams.rows]
        return np.flatnonzero((key[:, 0] == stream[0]) & (key[:, 1] == stream[1]))

    def _same_domain(self, stream: StreamKey) -> NDArray[np.int64]:
        """Rows of the same exporter and domain, whatever port: options may leave from another."""
        key = self._streams.key[: self._streams.rows]
        same = (key[:, 0] == stream[0]) & (key[:, 1] == stream[1]) & (key[:, 3] == stream[3])
        return np.flatnonzero(same)

    # ---- time and state

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Expire templates; return a ledger row for each stream heard of since the last call."""
        horizon = frontier_ns - round(self._settings.template_expiry_seconds * 1e9)
        expired = self.templates.expire(horizon)
        if expired:
            self._templates_seen.add("expired", expired)
        batch = ledger_batch(self._streams, VERSIONS, frontier_ns)
        return [batch] if batch.rows else []

    def waiting_sets(self) -> list[tuple[str, int, int]]:
        """Return (stream as people read it, set id, sets) of what waits for a template."""
        return [(describe(key[0]), key[1], len(sets)) for key, sets in self._held.items() if sets]

    def waiting_bytes(self) -> int:
        """Return how many bytes of data sets wait for a template."""
        return self._held_total

    def snapshot(self, out: Any) -> None:
        """Write templates, streams and sampling rates. Sets that wait are not kept."""
        rows = self._streams.rows
        for name in ("key", "state", "counts", "reported", "boot_ns", "rate"):
            write_array(out, f"streams.{name}", getattr(self._streams, name)[:rows])
        heads, fields = [], []
        for template in self.templates.all():
            heads.append(
                (
                    *template.stream,
                    template.template_id,
                    template.scopes,
                    len(template.fields),
                    template.learned_ns,
                )
            )
            fields += [(f.element, f.width, f.enterprise) for f in template.fields]
        write_array(out, "templates", np.array(heads, np.uint64).reshape(-1, 8))
        write_array(out, "template_fields", np.array(fields, np.uint32).reshape(-1, 3))
        self._sampling.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take back what `snapshot` wrote."""
        key = read_array(state, "streams.key")
        if key is None:
            return
        self._streams.rows = len(key)
        for name in ("key", "state", "counts", "reported", "boot_ns", "rate"):
            kept = read_array(state, f"streams.{name}")
            if kept is not None:
                getattr(self._streams, name)[: len(kept)] = kept
        self._streams.reindex()
        heads, fields = read_array(state, "templates"), read_array(state, "template_fields")
        if heads is not None and fields is not None:
            at = 0
            for high, low, port, domain, template_id, scopes, count, learned in heads.tolist():
                specs = tuple(Field(*map(int, f)) for f in fields[at : at + count].tolist())
                at += count
                self.templates.put(
                    Template((high, low, port, domain), template_id, specs, scopes, learned)
                )
        self._sampling.restore(state)


@dataclass(frozen=True, slots=True)
class _Located:
    stream: NDArray[np.int32]
    export_ns: NDArray[np.int64]
    offset_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]
    uptime_ms: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _Buffers:
    out: NDArray[np.uint64]  # one row a slot
    segment: NDArray[np.int32]  # datagram, plan, first row, rows, first byte, end
    active: NDArray[np.uint8]
    rate: NDArray[np.uint32]  # stream-wide sampling rate of each segment


class _Part:
    """The datagrams of a block that one kernel call works on, with what is known of them."""

    def __init__(self, block: DatagramBlock, chosen: NDArray[np.int64], located: _Located) -> None:
        self.block = block
        self.chosen = chosen
        self.payload = block.payload
        self.offset = block.offset[chosen]
        self.length = block.length[chosen]
        self.exporter_high = block.exporter_high[chosen]
        self.exporter_low = block.exporter_low[chosen]
        self.exporter_port = block.exporter_port[chosen]
        self.arrival_ns = block.arrival_ns[chosen]
        self.stream = located.stream[chosen]
        self.export_ns = located.export_ns[chosen]
        self.offset_ns = located.offset_ns[chosen]
        self.uptime_ms = located.uptime_ms[chosen]

    def arrival(self, d: int) -> int:
        return int(self.arrival_ns[d])

    def header(self, d: int) -> bytes:
        start = int(self.offset[d])
        version = int(self.payload[start + 1])
        size = templated.V9_HEADER_BYTES if version == 9 else templated.IPFIX_HEADER_BYTES
        return self.payload[start : start + size].tobytes()

    def stream_key(self, d: int) -> StreamKey:
        """Return the key as the template table has it, also where streams overflowed."""
        header = self.header(d)
        domain = int.from_bytes(header[-4:], "big")
        version = header[1]
        return (
            int(self.exporter_high[d]),
            int(self.exporter_low[d]),
            int(self.exporter_port[d]) | version << 16,
            domain,
        )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The raw slots of decoded rows, and which of them each row's template has."""

    part: _Part
    out: NDArray[np.uint64]
    rows: int
    d: NDArray[np.int32]
    masks: NDArray[np.uint64]
    union: int

    def any(self, name: str) -> bool:
        return bool(self.union >> SLOT[name] & 1)

    def has(self, name: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.masks >> np.uint64(SLOT[name])) & np.uint64(1) != 0
        return found

    def slot(self, name: str) -> NDArray[np.uint64]:
        if not self.any(name):
            return np.zeros(self.rows, np.uint64)
        return self.out[SLOT[name], : self.rows]


def _uptime_ns(
    value_ms: NDArray[np.uint32], uptime_ms: NDArray[np.uint32], export_ns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the time of an uptime stamp. Uptime wraps every 49.7 days: only differences count."""
    ago = (uptime_ms - value_ms).astype(np.int32).astype(np.int64)  # modulo 2^32, signed
    return export_ns - ago * 1_000_000


def _icmp(view: _Rows, columns: dict[str, NDArray[Any]]) -> None:
    """ICMP type and code stand in the destination port, as v5 has them."""
    if not (view.any("icmp_type_code") or view.any("icmp_type")):
        return
    combined = view.slot("icmp_type_code") | (
        view.slot("icmp_type") << np.uint64(8) | view.slot("icmp_code")
    )
    port = columns.get("destination_port", np.zeros(view.rows, np.uint16))
    columns["destination_port"] = np.where(port == 0, combined.astype(np.uint16), port)


def _message(header: bytes, set_id: int, body: bytes) -> bytes:
    """Return a message of one set under a copy of the header it came with."""
    one = set_id.to_bytes(2, "big") + (len(body) + 4).to_bytes(2, "big") + body
    if header[1] == 10:
        header = header[:2] + (16 + len(one)).to_bytes(2, "big") + header[4:]
    return header + one


def read_templates(
    data: bytes, stream: StreamKey, version: int, options: bool, arrival_ns: int
) -> list[Template | None]:
    """Return the templates of a set body; one without fields is a withdrawal, None is malformed.

    Source: RFC 7011 sections 3.4.1 to 3.4.3 and 8.1; RFC 3954 sections 5.2 and 6.1 (there the
    scope and option lengths are in bytes, and there is no enterprise bit: ids above 32767 are
    plain ids).
    """
    found: list[Template | None] = []
    at = 0
    while at + 4 <= len(data):
        template_id = int.from_bytes(data[at : at + 2], "big")
        count = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        scopes = 0
        if template_id < 256 and not (version == 10 and count == 0 and template_id in (2, 3)):
            if template_id or count:
                found.append(None)
            break  # zeros are padding; anything else has lost us
        if options and count and version == 10:
            scopes = int.from_bytes(data[at : at + 2], "big")
            at += 2
            if scopes == 0 or scopes > count:
                found.append(None)
                break
        elif options and version == 9:
            scope_bytes, option_bytes = count, int.from_bytes(data[at : at + 2], "big")
            at += 2
            scopes, count = scope_bytes // 4, (scope_bytes + option_bytes) // 4
            scopes = max(scopes, 1)  # an options template without scope is still no data
        fields = []
        for _ in range(count):
            if at + 4 > len(data):
                break
            element = int.from_bytes(data[at : at + 2], "big")
            width = int.from_bytes(data[at + 2 : at + 4], "big")
            at += 4
            enterprise = 0
            if version == 10 and element & 0x8000:
                if at + 4 > len(data):
                    break
                enterprise = int.from_bytes(data[at : at + 4], "big")
                element &= 0x7FFF
                at += 4
            fields.append(Field(element, width, enterprise))
        if len(fields) < count:
            found.append(None)
            break
        if version == 9 and not fields:
            found.append(None)
            continue
        found.append(Template(stream, template_id, tuple(fields), scopes, arrival_ns))
    return found


def describe(stream: StreamKey) -> str:
    """Return a stream as people read it: `192.0.2.1:2055 ipfix domain 7`."""
    high, low, port_version, domain = stream
    name = VERSIONS.get(port_version >> 16, "?")
    return f"{address_text(high, low)}:{port_version & 0xFFFF} {name} domain {domain}"
