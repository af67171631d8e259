"""Sampling rates: what one record stands for, from wherever an exporter says it.

Order: in the record (elements 34, 50, or 305 with 306), else the record's sampler id (48, 302) in
the table that options data filled, else the stream's only rate from options data, else an override
by subnet from the configuration, else 0: not known.

Elements 305 and 306 (RFC 5477): one packet group of `interval` is taken, `space` packets are left
out, so the rate is (interval + space) / interval; Nokia sends 1 and 999 for 1000.
"""

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.streams import Streams
from runtime.checkpoint import read_array, write_array
from telemetry.identity import address_text

SAMPLERS_MAX = 65_536


def rate_of(*, interval: int, packet_interval: int, packet_space: int) -> int:
    """Return the rate that option fields state together; 0 where they state none."""
    if packet_interval:
        return (packet_interval + packet_space) // packet_interval
    return interval


class SamplingRates:
    """The samplers of all exporters: (address, domain, sampler id) → rate."""

    def __init__(self, overrides: Mapping[str, int]) -> None:
        self._samplers: dict[tuple[int, int, int, int], int] = {}
        networks = [
            (ipaddress.ip_network(net, strict=False), rate) for net, rate in overrides.items()
        ]
        self._overrides = sorted(networks, key=lambda pair: -pair[0].prefixlen)
        self._touched: tuple[int, int, int] | None = None

    @property
    def has_overrides(self) -> bool:
        """Whether the configuration names any."""
        return bool(self._overrides)

    def learn(self, high: int, low: int, domain: int, sampler: int, rate: int) -> bool:
        """Keep a sampler's rate; sampler -1 means the whole domain. False where the table is full."""
        if rate <= 0 or rate >= 1 << 32:
            return True
        key = (high, low, domain, sampler)
        if key not in self._samplers and len(self._samplers) >= SAMPLERS_MAX:
            return False
        self._samplers[key] = rate
        return True

    def refresh(self, known: Streams, row: int, rows: NDArray[np.int64]) -> None:
        """Write the domain's rate to its streams: the stated one, or that of its only sampler."""
        high, low, _, domain = known.key_of(row)
        own = {k[3]: r for k, r in self._samplers.items() if k[:3] == (high, low, domain)}
        rates = set(own.values())
        # Two samplers in one box: without an id in the record its rate is not known (akvorado 997).
        known.rate[rows] = own.get(-1, next(iter(rates)) if len(rates) == 1 else 0)

    def override(self, high: int, low: int) -> int:
        """Return the configured rate of an exporter, 0 where none fits."""
        address = ipaddress.ip_address(address_text(high, low))
        for network, rate in self._overrides:
            if address.version == network.version and address in network:
                return rate
        return 0

    def of_rows(
        self,
        slot: Callable[[str], NDArray[np.uint64]],
        has: Callable[[str], NDArray[np.bool_]],
        stream_rate: NDArray[np.uint32],
        known: Streams,
        stream: NDArray[np.int32],
    ) -> NDArray[np.uint32]:
        """Return uint32[R], the rate of each row; 0 = not known."""
        rate = stream_rate.astype(np.uint64)
        with_id = has("sampler_id")
        if with_id.any():
            sampler = slot("sampler_id")
            pairs = np.stack([stream[with_id].astype(np.uint64), sampler[with_id]], axis=1)
            unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
            found = np.zeros(len(unique), np.uint64)
            for i, (row, sampler_id) in enumerate(unique.tolist()):
                high, low, _, domain = known.key_of(row)
                found[i] = self._samplers.get((high, low, domain, sampler_id), int(known.rate[row]))
            rate[with_id] = found[inverse.reshape(-1)]
        packet_interval = slot("sampling_packet_interval")
        stated = has("sampling_packet_interval") & (packet_interval > 0)
        if stated.any():
            total = packet_interval + slot("sampling_packet_space")
            rate = np.where(stated, total // np.maximum(packet_interval, np.uint64(1)), rate)
        interval = slot("sampling_interval")
        rate = np.where(has("sampling_interval") & (interval > 0), interval, rate)
        return np.minimum(rate, np.uint64(0xFFFFFFFF)).astype(np.uint32)

    def snapshot(self, out: Any) -> None:
        """Write the table."""
        rows = [
            (*key[:3], key[3] & 0xFFFFFFFFFFFFFFFF, rate) for key, rate in self._samplers.items()
        ]
        write_array(out, "samplers", np.array(rows, np.uint64).reshape(-1, 5))

    def restore(self, state: Any) -> None:
        """Take it back."""
        rows = read_array(state, "samplers")
        for high, low, domain, sampler, rate in [] if rows is None else rows.tolist():
            self._samplers[(high, low, domain, -1 if sampler >> 63 else sampler)] = rate
