"""Sampling rates: what one record stands for, from wherever an exporter says it.

Order: in the record (elements 34, 50, or 305 with 306), else the record's sampler id (48, 302) in
the table that options data filled, else the stream's only rate from options data, else an override
by subnet from the configuration, else 0: not known.

Elements 305 and 306 (RFC 5477): one packet group of `interval` is taken, `space` packets are left
out, so the rate is (interval + space) / interval; Nokia sends 1 and 999 for 1000.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import bit
from collectors.flow.stream_table import Streams
from runtime.checkpoint import read_array, write_array
from telemetry.errors import ConfigError
from telemetry.identity import address_text

_RATE_BIT = np.uint64(bit("sampling_rate"))
_TABLE = 1 << 17  # the kernel's hash table; at most half full


def rate_of(
    *,
    interval: int = 0,
    packet_interval: int = 0,
    packet_space: int = 0,
    size: int = 0,
    population: int = 0,
    probability: float = 0.0,
) -> int:
    """Return the rate that option fields state together; 0 where they state none.

    Elements 305 with 306, 309 with 310 (n out of N), 311 (probability), 34 or 50. RFC 5477.
    """
    if packet_interval:
        return (packet_interval + packet_space) // packet_interval
    if size and population:
        return max(population // size, 1)
    if 0.0 < probability <= 1.0:
        return round(1.0 / probability)
    return interval


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"decoder.sampling_override: {text!r} is no network such as 192.0.2.0/24"
        ) from error


class SamplingRates:
    """The samplers of all exporters: (address, domain, sampler id) → rate."""

    def __init__(self, overrides: Mapping[str, int], *, samplers_max: int = _TABLE // 2) -> None:
        self._samplers_max = min(samplers_max, _TABLE // 2)
        # (exporter high, low, domain) → sampler id → rate; id -1 means the whole domain.
        self._samplers: dict[tuple[int, int, int], dict[int, int]] = {}
        self._count = 0
        # The same for the kernel `finish`: samplers by hash; a rate of 0 is a free place.
        self.table_key = np.zeros((_TABLE, 4), np.uint64)
        self.table_rate = np.zeros(_TABLE, np.uint32)
        networks = [(_network(net), rate) for net, rate in overrides.items()]
        self._overrides = sorted(networks, key=lambda pair: -pair[0].prefixlen)

    @property
    def has_overrides(self) -> bool:
        """Whether the configuration names any."""
        return bool(self._overrides)

    def learn(self, high: int, low: int, domain: int, sampler: int, rate: int) -> bool:
        """Keep a sampler's rate; sampler -1 means the whole domain. False where the table is full."""
        if rate <= 0 or rate >= 1 << 32:
            return True
        own = self._samplers.get((high, low, domain), {})
        if sampler not in own:
            if self._count >= self._samplers_max:
                return False
            self._count += 1
            self._samplers[high, low, domain] = own
        own[sampler] = rate
        self._index((high, low, domain, sampler), rate)
        return True

    def _index(self, key: tuple[int, int, int, int], rate: int) -> None:
        if key[3] < 0:
            return
        at = _sampler_place(*key)
        while self.table_rate[at] and tuple(self.table_key[at].tolist()) != key:
            at = (at + 1) & (_TABLE - 1)
        self.table_key[at] = key
        self.table_rate[at] = rate

    def refresh(self, known: Streams, row: int, rows: NDArray[np.int64]) -> None:
        """Write the domain's rate to its streams: the stated one, or that of its only sampler."""
        high, low, _, domain = known.key_of(row)
        own = self._samplers.get((high, low, domain), {})
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

    def fill(
        self, columns: dict[str, NDArray[Any]], high: NDArray[np.uint64], low: NDArray[np.uint64]
    ) -> None:
        """Write configured rates into the rows of flows that have none; whose they are is given."""
        rate, present = columns["sampling_rate"], columns["fields_present"]
        unknown = rate == 0
        pairs = np.unique(np.stack([high[unknown], low[unknown]], axis=1), axis=0)
        for exporter_high, exporter_low in pairs.tolist():
            found = self.override(exporter_high, exporter_low)
            if found:
                mine = unknown & (high == exporter_high) & (low == exporter_low)
                rate[mine] = found
                present[mine] |= _RATE_BIT

    def snapshot(self, out: Any) -> None:
        """Write the table."""
        rows = [
            (*domain, sampler & 0xFFFFFFFFFFFFFFFF, rate)
            for domain, own in self._samplers.items()
            for sampler, rate in own.items()
        ]
        write_array(out, "samplers", np.array(rows, np.uint64).reshape(-1, 5))

    def restore(self, state: Any) -> None:
        """Take it back."""
        rows = read_array(state, "samplers")
        for high, low, domain, sampler, rate in [] if rows is None else rows.tolist():
            self.learn(high, low, domain, -1 if sampler == (1 << 64) - 1 else sampler, rate)


def _sampler_place(high: int, low: int, domain: int, sampler: int) -> int:
    """Return where probing starts; the kernel's `_sampler_place` computes the same."""
    mask = (1 << 64) - 1
    h = (low * 0x9E3779B97F4A7C15 + high) & mask
    h = ((h ^ (h >> 32)) + domain * 0xC2B2AE3D27D4EB4F + sampler * 0x165667B19E3779F9) & mask
    h ^= h >> 29
    return (h * 0xBF58476D1CE4E5B9 & mask) >> 47
