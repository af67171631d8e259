"""sFlow v5: sampled packets as flow records, interface counters as samples.

A record is one sampled packet: octets is the frame's length, packets 1, and the sampling rate stands
beside them. Unknown samples and records are skipped by their length. The agent's address is the
exporter: datagrams may be relayed.

Source: sFlow version 5 (sflow.org, July 2004), sections 5 and appendix; discarded packets: sFlow
dropped packet notification structures, format 5.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings
from collectors.packet import FIELDS, parse_headers
from collectors.sampling import SamplingRates
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.kernels import inline, kernel
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_text, stable_id
from telemetry.schema import Schema
from telemetry.schemas import FLOW, FLOW_FIELD_BIT, LEDGER, SAMPLE, SERIES

ROWS_PER_BYTES = 40  # the smallest sample with a record is longer than this
AGENTS_MAX = 8192


class Verdict(IntEnum):
    """What the decoder thought of one datagram; the lower-case name is a metric label."""

    OK = 0
    TRUNCATED = 1
    NOT_VERSION_5 = 2
    BAD_LENGTH = 3  # a sample says more than there is; what is whole before it is decoded


# Rows of the kernel's flow matrix.
FLOW_ROWS = (
    "datagram",
    "header_start",
    "header_length",
    "header_protocol",
    "octets",
    "sampling_rate",
    "ingress_interface",
    "egress_interface",
    "drop_reason",
    "source_id",
    "vlan_id",
    "packets",
    "protocol",
    "source_port",
    "destination_port",
    "tcp_flags",
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
)
# Rows of the kernel's counter matrix: generic interface counters, in the order of the standard.
COUNTER_ROWS = (
    "datagram",
    "interface",
    "speed",
    "in_octets",
    "in_unicast",
    "in_discards",
    "in_errors",
    "out_octets",
    "out_unicast",
    "out_discards",
    "out_errors",
)


@inline
def _u32(payload, at):  # type: ignore[no-untyped-def]
    return (
        (np.uint64(payload[at]) << np.uint64(24))
        | (np.uint64(payload[at + 1]) << np.uint64(16))
        | (np.uint64(payload[at + 2]) << np.uint64(8))
        | np.uint64(payload[at + 3])
    )


@inline
def _u64(payload, at):  # type: ignore[no-untyped-def]
    return (_u32(payload, at) << np.uint64(32)) | _u32(payload, at + 4)


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], u8[:,::1], u8[:,::1], u8[:,::1], u1[::1],"
    " i8[::1])"
)
def decode_sflow(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    flows: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    head: NDArray[np.uint64],
    verdict: NDArray[np.uint8],
    tally: NDArray[np.int64],
) -> int:
    """Decode D datagrams and return the number of flow rows.

    In      D datagrams as in DatagramBlock.
    Out     flows uint64[20, R], rows as in FLOW_ROWS, a sampled header given by its place in
            payload (length 0: addresses were in a sampled-IP record instead); counters
            uint64[11, C]; head uint64[5, D]: agent high, low, sub-agent, sequence, samples;
            verdict uint8[D]; tally int64[3]: counter rows, unknown samples, unknown records.
    Errors  none raised; a length beyond the datagram ends it, what came before is kept.
    """
    rows = 0
    tally[0] = 0
    rows_max = flows.shape[1]
    for d in range(length.size):
        at = offset[d]
        end = at + length[d]
        verdict[d] = 1
        for k in range(5):
            head[k, d] = np.uint64(0)
        if at + 28 > end:
            continue
        if _u32(payload, at) != np.uint64(5):
            verdict[d] = 2
            continue
        family = _u32(payload, at + 4)
        at += 8
        if family == 1:
            head[1, d] = _u32(payload, at) | (np.uint64(0xFFFF) << np.uint64(32))
            at += 4
        elif family == 2:
            if at + 32 > end:
                continue
            head[0, d] = _u64(payload, at)
            head[1, d] = _u64(payload, at + 8)
            at += 16
        else:
            continue
        if at + 16 > end:
            continue
        head[2, d] = _u32(payload, at)
        head[3, d] = _u32(payload, at + 4)
        samples = np.int64(_u32(payload, at + 12))
        head[4, d] = np.uint64(samples)
        at += 16
        verdict[d] = 0
        for _ in range(samples):
            if at + 8 > end:
                verdict[d] = 3
                break
            tag = _u32(payload, at)
            size = np.int64(_u32(payload, at + 4))
            body = at + 8
            stop = body + size
            if stop > end or size > 65535:
                verdict[d] = 3
                break
            at = stop + (-size & 3) if stop + (-size & 3) <= end else stop
            if tag == 1 or tag == 3 or tag == 5:
                need = 32 if tag == 1 else (44 if tag == 3 else 32)
                if size < need:
                    verdict[d] = 3
                    continue
                rate = np.uint64(1)
                reason = np.uint64(0)
                if tag == 1:
                    source = _u32(payload, body + 4) & np.uint64(0xFFFFFF)
                    rate = _u32(payload, body + 8)
                    into = _u32(payload, body + 20)
                    out = _u32(payload, body + 24)
                    # The top two bits say what kind of number it is; 0 is an ifIndex.
                    into = into & np.uint64(0x3FFFFFFF)
                    if out >> np.uint64(30) == np.uint64(0):
                        out = out & np.uint64(0x3FFFFFFF)
                    else:
                        out = np.uint64(0)
                    count = np.int64(_u32(payload, body + 28))
                    record = body + 32
                elif tag == 3:
                    source = _u32(payload, body + 8)
                    rate = _u32(payload, body + 12)
                    into = _u32(payload, body + 28)
                    out = _u32(payload, body + 36)
                    if _u32(payload, body + 32) != np.uint64(0):
                        out = np.uint64(0)
                    count = np.int64(_u32(payload, body + 40))
                    record = body + 44
                else:
                    source = _u32(payload, body + 8)
                    into = _u32(payload, body + 16)
                    out = _u32(payload, body + 20)
                    reason = _u32(payload, body + 24) + np.uint64(1)
                    count = np.int64(_u32(payload, body + 28))
                    record = body + 32
                if rows >= rows_max:
                    verdict[d] = 3
                    break
                for k in range(20):
                    flows[k, rows] = np.uint64(0)
                used = False  # a record has said how long the packet was
                for _ in range(count):
                    if record + 8 > stop:
                        break
                    kind = _u32(payload, record)
                    part = np.int64(_u32(payload, record + 4))
                    data = record + 8
                    if data + part > stop:
                        verdict[d] = 3
                        break
                    record = data + part + (-part & 3)
                    if kind == 1 and part >= 16:
                        header = np.int64(_u32(payload, data + 12))
                        header = min(header, part - 16)
                        flows[1, rows] = np.uint64(data + 16)
                        flows[2, rows] = np.uint64(header)
                        flows[3, rows] = _u32(payload, data)
                        flows[4, rows] = _u32(payload, data + 4)
                        used = True
                    elif kind == 3 and part >= 32:
                        mapped = np.uint64(0xFFFF) << np.uint64(32)
                        if not used:
                            flows[4, rows] = _u32(payload, data)
                        flows[12, rows] = _u32(payload, data + 4)
                        flows[17, rows] = _u32(payload, data + 8) | mapped
                        flows[19, rows] = _u32(payload, data + 12) | mapped
                        flows[13, rows] = _u32(payload, data + 16)
                        flows[14, rows] = _u32(payload, data + 20)
                        flows[15, rows] = _u32(payload, data + 24)
                        used = True
                    elif kind == 4 and part >= 56:
                        if not used:
                            flows[4, rows] = _u32(payload, data)
                        flows[12, rows] = _u32(payload, data + 4)
                        flows[16, rows] = _u64(payload, data + 8)
                        flows[17, rows] = _u64(payload, data + 16)
                        flows[18, rows] = _u64(payload, data + 24)
                        flows[19, rows] = _u64(payload, data + 32)
                        flows[13, rows] = _u32(payload, data + 40)
                        flows[14, rows] = _u32(payload, data + 44)
                        flows[15, rows] = _u32(payload, data + 48)
                        used = True
                    elif kind == 1001 and part >= 16:
                        flows[10, rows] = _u32(payload, data)
                    elif kind != 1002 and kind != 1003 and kind != 2:
                        tally[2] += 1
                flows[0, rows] = np.uint64(d)
                flows[5, rows] = rate
                flows[6, rows] = into
                flows[7, rows] = out
                flows[8, rows] = reason
                flows[9, rows] = source
                flows[11, rows] = np.uint64(1)
                rows += 1
            elif tag == 2 or tag == 4:
                skip = 12 if tag == 2 else 16
                if size < skip:
                    verdict[d] = 3
                    continue
                count = np.int64(_u32(payload, body + skip - 4))
                record = body + skip
                for _ in range(count):
                    if record + 8 > stop:
                        break
                    kind = _u32(payload, record)
                    part = np.int64(_u32(payload, record + 4))
                    data = record + 8
                    if data + part > stop:
                        verdict[d] = 3
                        break
                    record = data + part + (-part & 3)
                    if kind == 1 and part >= 88 and tally[0] < counters.shape[1]:
                        c = tally[0]
                        counters[0, c] = np.uint64(d)
                        counters[1, c] = _u32(payload, data)
                        counters[2, c] = _u64(payload, data + 8)
                        counters[3, c] = _u64(payload, data + 24)
                        counters[4, c] = _u32(payload, data + 32)
                        counters[5, c] = _u32(payload, data + 44)
                        counters[6, c] = _u32(payload, data + 48)
                        counters[7, c] = _u64(payload, data + 56)
                        counters[8, c] = _u32(payload, data + 64)
                        counters[9, c] = _u32(payload, data + 76)
                        counters[10, c] = _u32(payload, data + 80)
                        tally[0] += 1
            else:
                tally[1] += 1
    return rows


_PRESENT = sum(
    1 << FLOW_FIELD_BIT[name]
    for name in (
        "export_ns",
        "arrival_ns",
        "exporter_address_high",
        "exporter_address_low",
        "observation_domain_id",
        "ingress_interface",
        "egress_interface",
        "octets",
        "packets",
        "sampling_rate",
    )
)
_IP_PRESENT = sum(
    1 << FLOW_FIELD_BIT[name]
    for name in (
        "source_address_high",
        "source_address_low",
        "destination_address_high",
        "destination_address_low",
        "protocol",
        "source_port",
        "destination_port",
        "tcp_flags",
        "ip_class_of_service",
    )
)


class SflowDecoder:
    """Turn sFlow datagrams into `flow`, `sample` and `ledger` batches. Owns no socket."""

    emits: tuple[Schema, ...] = (FLOW, SAMPLE, SERIES, LEDGER)

    def __init__(self, settings: FlowDecoderSettings, context: Context) -> None:
        self._settings = settings
        self._sampling = SamplingRates(settings.sampling_override)
        # (agent high, low, sub-agent) → [expected sequence, sent, decoded, lost, undecodable,
        # datagrams, records]; sequence numbers count datagrams of a sub-agent.
        self._agents: dict[tuple[int, int, int], list[int]] = {}
        self._known: set[int] = set()
        self._verdict = context.metrics.counter(
            "collector_sflow5_datagrams_total",
            "sFlow datagrams by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in Verdict),
        )
        self._unknown = context.metrics.counter(
            "collector_sflow5_skipped_total",
            "sFlow structures skipped by their length",
            label="structure",
            values=("sample", "record"),
        )
        self._records = context.metrics.counter("collector_records_total", "flow records decoded")

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams; see the class."""
        count = block.datagrams
        if not count:
            return []
        capacity = int(block.length.sum()) // ROWS_PER_BYTES + 1
        flows = np.empty((len(FLOW_ROWS), capacity), np.uint64)
        counters = np.empty((len(COUNTER_ROWS), capacity), np.uint64)
        head = np.empty((5, count), np.uint64)
        verdict = np.zeros(count, np.uint8)
        tally = np.zeros(3, np.int64)
        rows = decode_sflow(
            block.payload, block.offset, block.length, flows, counters, head, verdict, tally
        )
        self._verdict.array += np.bincount(verdict, minlength=len(Verdict)).astype("u8")
        self._unknown.array += tally[1:].astype("u8")
        self._records.array[0] += np.uint64(rows)
        self._account(head, verdict, np.bincount(flows[0, :rows].astype("i8"), minlength=count))
        batches = []
        if rows:
            batches.append(self._flow_batch(block, head, flows[:, :rows]))
        if tally[0]:
            batches += self._counter_batches(block, head, counters[:, : int(tally[0])])
        return batches

    def _account(
        self, head: NDArray[np.uint64], verdict: NDArray[np.uint8], records: NDArray[np.int64]
    ) -> None:
        for d in range(len(verdict)):
            if verdict[d] in (Verdict.TRUNCATED, Verdict.NOT_VERSION_5):
                continue
            key = (int(head[0, d]), int(head[1, d]), int(head[2, d]))
            sequence = int(head[3, d])
            state = self._agents.get(key)
            if state is None:
                if len(self._agents) >= AGENTS_MAX:
                    continue
                state = self._agents[key] = [sequence, 0, 0, 0, 0, 0, 0]
            gap = (sequence - state[0] + 2**31) % 2**32 - 2**31
            if 0 <= gap < 1 << 20:
                state[3] += gap
                state[0] = (sequence + 1) % 2**32
            elif -4096 < gap < 0:
                state[3] -= 1
            else:
                state[0] = (sequence + 1) % 2**32
            state[2] += 1
            state[5] += 1
            state[6] += int(records[d])

    def _flow_batch(
        self, block: DatagramBlock, head: NDArray[np.uint64], flows: NDArray[np.uint64]
    ) -> Batch:
        raw = dict(zip(FLOW_ROWS, flows, strict=True))
        rows = flows.shape[1]
        d = raw["datagram"].astype(np.int64)
        parsed = np.zeros((len(FIELDS), rows), np.uint64)
        parse_headers(
            block.payload,
            raw["header_start"].astype(np.int64),
            raw["header_length"].astype(np.int32),
            raw["header_protocol"].astype(np.int32),
            parsed,
        )
        seen = dict(zip(FIELDS, parsed, strict=True))
        arrival = block.arrival_ns[d]
        by_header = raw["header_length"] > 0
        is_ip = (seen["is_ip"] > 0) | (~by_header & (raw["source_address_low"] > 0))
        columns: dict[str, NDArray[Any]] = {
            "flow_start_ns": np.zeros(rows, np.int64),
            "flow_end_ns": np.zeros(rows, np.int64),
            "export_ns": arrival,
            "arrival_ns": arrival,
            "exporter_address_high": head[0, d],
            "exporter_address_low": head[1, d],
            "observation_domain_id": head[2, d].astype(np.uint32),
            "vlan_id": np.where(seen["vlan_id"] > 0, seen["vlan_id"], raw["vlan_id"]).astype("u2"),
            "mpls_top_label": seen["mpls_top_label"].astype(np.uint32),
            "ip_class_of_service": seen["ip_class_of_service"].astype(np.uint8),
            "forwarding_status": np.where(raw["drop_reason"] > 0, 128, 0).astype(np.uint8),
            "fields_present": np.where(
                is_ip, np.uint64(_PRESENT | _IP_PRESENT), np.uint64(_PRESENT)
            ),
        }
        for name in (
            "source_address_high",
            "source_address_low",
            "destination_address_high",
            "destination_address_low",
            "protocol",
            "source_port",
            "destination_port",
            "tcp_flags",
        ):
            value = np.where(by_header, seen[name], raw[name])
            columns[name] = value.astype(FLOW.by_name[name].dtype)
        for name in ("octets", "packets", "sampling_rate", "ingress_interface", "egress_interface"):
            columns[name] = raw[name].astype(FLOW.by_name[name].dtype)
        for spec in FLOW.fields:
            if spec.name not in columns:
                columns[spec.name] = np.zeros(rows, spec.dtype)
        return Batch(FLOW, columns, {}, {}, "sflow5", int(arrival[-1]), block.frontier_ns)

    def _counter_batches(
        self, block: DatagramBlock, head: NDArray[np.uint64], counters: NDArray[np.uint64]
    ) -> list[Batch]:
        samples, series = [], []
        for c in range(counters.shape[1]):
            d = int(counters[0, c])
            agent = address_text(int(head[0, d]), int(head[1, d]))
            index = int(counters[1, c])
            time_ns = int(block.arrival_ns[d])
            for k, name in enumerate(COUNTER_ROWS[3:], 3):
                key = f"exporter={agent},interface={index},metric={name}"
                series_id = stable_id(f"interface_counters|{key}")
                if series_id not in self._known:
                    self._known.add(series_id)
                    series.append(
                        {
                            "series_id": series_id,
                            "entity_id": stable_id(f"{agent}:{index}"),
                            "view": "interface_counters",
                            "entity": f"{agent}:{index}",
                            "key": key,
                        }
                    )
                samples.append(
                    {
                        "time_ns": time_ns,
                        "arrival_ns": time_ns,
                        "series_id": series_id,
                        "value": float(counters[k, c]),
                        "kind": 1,
                    }
                )
        made = [batch_from_rows(SERIES, series, source="sflow5")] if series else []
        return [*made, batch_from_rows(SAMPLE, samples, source="sflow5")]

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return a ledger row for each agent heard of since the last call."""
        rows = []
        for (high, low, sub), state in self._agents.items():
            if not any(state[2:]):
                continue
            rows.append(
                {
                    "arrival_ns": frontier_ns,
                    "exporter_address_high": high,
                    "exporter_address_low": low,
                    "observation_domain_id": sub,
                    "protocol": "sflow5",
                    "sent": max(state[2] + state[3] + state[4], 0),
                    "decoded": state[2],
                    "lost_wire": state[3],
                    "undecodable": state[4],
                    "datagrams": state[5],
                    "records": state[6],
                }
            )
            state[1:] = [0] * 6
        return (
            [batch_from_rows(LEDGER, rows, source="ledger", frontier_ns=frontier_ns)]
            if rows
            else []
        )

    def snapshot(self, out: Any) -> None:
        """Write the sequence state."""
        rows = [(*key, state[0]) for key, state in self._agents.items()]
        write_array(out, "agents", np.array(rows, np.uint64).reshape(-1, 4))

    def restore(self, state: Any) -> None:
        """Take it back."""
        rows = read_array(state, "agents")
        for high, low, sub, expected in [] if rows is None else rows.tolist():
            self._agents[high, low, sub] = [expected, 0, 0, 0, 0, 0, 0]
