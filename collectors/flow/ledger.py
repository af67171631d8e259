"""The ledger: what each export stream sent, and where every unit of it went."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from collectors.flow import streams
from collectors.flow.stream_table import Streams
from runtime.metrics import Counter, Gauge, Metrics
from telemetry.batch import Batch, empty
from telemetry.schemas import LEDGER


def ledger_batch(known: Streams, names: Mapping[int, str], frontier_ns: int) -> Batch:
    """Return a row for each stream with news since the last call, and mark it as reported.

    The counts are deltas in the stream's own unit. `sent` is how far the sequence numbers went, and
    sent = decoded + lost_wire + lost_kernel + undecodable + shed holds for every row.
    """
    rows = known.rows
    _blame_kernel(known)
    delta = known.counts[:rows] - known.reported[:rows]
    news = np.flatnonzero(delta.any(axis=1))
    news = news[news > 0]
    if not news.size:
        return empty(LEDGER, source="ledger")
    known.reported[:rows] = known.counts[:rows]
    delta = delta[news]
    key = known.key[news]
    versions = (key[:, 2] >> np.uint64(16)).astype(np.int64)
    words = tuple(names.values())
    codes = np.array([list(names).index(v) if v in names else 0 for v in versions], np.uint32)

    def unsigned(column: int) -> NDArray[np.uint64]:
        return delta[:, column].clip(0).astype(np.uint64)

    return Batch(
        LEDGER,
        {
            "arrival_ns": np.full(news.size, frontier_ns, np.int64),
            "exporter_address_high": key[:, 0],
            "exporter_address_low": key[:, 1],
            "observation_domain_id": key[:, 3].astype(np.uint32),
            "protocol": codes,
            "sent": unsigned(streams.SENT),
            "decoded": unsigned(streams.DECODED),
            "lost_wire": delta[:, streams.LOST],
            "lost_kernel": unsigned(streams.KERNEL),
            "undecodable": delta[:, streams.NO_TEMPLATE] + delta[:, streams.MALFORMED],
            "shed": unsigned(streams.SHED),
            "datagrams": unsigned(streams.DATAGRAMS),
            "records": unsigned(streams.RECORDS),
            "clock_offset_ns": known.state[news, streams.OFFSET],
            "no_template": delta[:, streams.NO_TEMPLATE],
            "malformed": unsigned(streams.MALFORMED),
            "duplicate": unsigned(streams.DUPLICATE),
            "restarts": unsigned(streams.RESETS),
            "uptime_drift_ppm": (known.state[news, streams.DRIFT] / 1000).astype(np.float32),
        },
        {},
        {"protocol": words},
        "ledger",
        frontier_ns,
        frontier_ns,
    )


FATES = (
    "sent",
    "decoded",
    "lost_wire",
    "lost_kernel",
    "no_template",
    "malformed",
    "shed",
    "duplicate",
)
_OF_FATE = [
    streams.SENT, streams.DECODED, streams.LOST, streams.KERNEL, streams.NO_TEMPLATE,
    streams.MALFORMED, streams.SHED, streams.DUPLICATE,
]  # fmt: skip


def ledger_gauge(metrics: Metrics) -> Gauge:
    """Return the gauge that shows where all units of all streams went; see `show`."""
    return metrics.gauge(
        "collector_ledger_units",
        "units of all export streams since the start, each in its own unit (flows, datagrams,"
        " records): sent = decoded + lost_wire + lost_kernel + no_template + malformed + shed",
        label="fate",
        values=FATES,
    )


def shed_counter(metrics: Metrics) -> Counter:
    """Return the count of datagrams that were over a stream's limit; see `collectors.flow.shedding`."""
    return metrics.counter(
        "collector_datagrams_shed_total",
        "flow exports not taken: their stream sent more than datagrams_per_second_max; the sampling"
        " rates of those taken are raised",
    )


def show(known: Streams, gauge: Gauge) -> None:
    """Set the gauge: a unit thought lost may still come, so that it is no counter."""
    gauge.array[:] = known.counts[1 : known.rows, _OF_FATE].sum(axis=0) + known.forgotten[_OF_FATE]


def _blame_kernel(known: Streams) -> None:
    """Share out what the socket lost among the streams that miss something.

    The socket says how many datagrams it dropped, not whose. A stream's hole is turned into
    datagrams by the mean units of those that came; the kernel is blamed for holes in proportion,
    never for more than it dropped. Exact where one stream uses the socket and all its datagrams
    hold the same number of units. Drops that nobody misses yet wait for the next report.
    """
    drops = known.kernel_drops
    if drops <= 0:
        return
    rows = known.rows
    delta = known.counts[:rows] - known.reported[:rows]
    missing = delta[:, streams.LOST].clip(0)
    came = known.counts[:rows, streams.DATAGRAMS].clip(1)
    units = known.counts[:rows, streams.DECODED] + known.counts[:rows, streams.MALFORMED]
    each = np.maximum(units / came, 1.0)
    datagrams = missing / each
    total = float(datagrams.sum())
    if not total:
        return
    blamed = np.floor(missing * min(1.0, drops / total) + 0.5).astype(np.int64)
    blamed[0] = 0
    known.counts[:rows, streams.LOST] -= blamed
    known.counts[:rows, streams.KERNEL] += blamed
    known.kernel_drops = max(0, drops - round(float((blamed / each).sum())))
