"""The ledger: what each export stream sent, and where every unit of it went."""

from collections.abc import Mapping

import numpy as np

from collectors import streams
from telemetry.batch import Batch, empty
from telemetry.schemas import LEDGER


def ledger_batch(known: streams.Streams, names: Mapping[int, str], frontier_ns: int) -> Batch:
    """Return a row for each stream with news since the last call, and mark it as reported.

    The counts are deltas in the protocol's own unit; sent = decoded + lost_wire + lost_kernel +
    undecodable + shed holds for every row.
    """
    rows = known.rows
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
    zeros = np.zeros(news.size, np.uint64)
    lost = delta[:, streams.LOST]
    return Batch(
        LEDGER,
        {
            "arrival_ns": np.full(news.size, frontier_ns, np.int64),
            "exporter_address_high": key[:, 0],
            "exporter_address_low": key[:, 1],
            "observation_domain_id": key[:, 3].astype(np.uint32),
            "protocol": codes,
            "sent": (delta[:, streams.DECODED] + delta[:, streams.UNDECODABLE] + lost)
            .clip(0)
            .astype(np.uint64),
            "decoded": delta[:, streams.DECODED].clip(0).astype(np.uint64),
            "lost_wire": lost,
            "lost_kernel": zeros,
            "undecodable": delta[:, streams.UNDECODABLE].clip(0).astype(np.uint64),
            "shed": zeros,
            "datagrams": delta[:, streams.DATAGRAMS].astype(np.uint64),
            "records": delta[:, streams.RECORDS].clip(0).astype(np.uint64),
            "clock_offset_ns": known.state[news, streams.OFFSET],
        },
        {},
        {"protocol": words},
        "ledger",
        frontier_ns,
        frontier_ns,
    )
