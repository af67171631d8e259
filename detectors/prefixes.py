"""A few thousand networks, asked which of them covers each of many others: longest match in columns."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

Network = IPv4Network | IPv6Network
Words = NDArray[np.uint64]
_MIX = np.uint64(0x9E3779B97F4A7C15)


class PrefixSet:
    """Networks by their length, each length a sorted column of hashes."""

    def __init__(self, networks: Sequence[Network]) -> None:
        """`networks` keep their places: `covering` answers with them."""
        words = [_words(network) for network in networks]
        self._lengths: list[tuple[int, Words, Words, Words, NDArray[np.int64]]] = []
        for bits in sorted({bits for _, _, bits in words}, reverse=True):
            rows = np.array([i for i, one in enumerate(words) if one[2] == bits], np.int64)
            high = np.array([words[i][0] for i in rows], np.uint64)
            low = np.array([words[i][1] for i in rows], np.uint64)
            order = np.argsort(_hash(high, low), kind="stable")
            high, low = high[order], low[order]
            self._lengths.append((bits, _hash(high, low), high, low, rows[order]))

    def covering(self, high: Words, low: Words, bits: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the place of the longest network that is or covers each asked one, -1 for none.

        high, low uint64: the address, IPv4 mapped into IPv6; bits its length out of 128.
        """
        found = np.full(high.size, -1, np.int64)
        for length, hashes, own_high, own_low, places in self._lengths:
            rows = np.flatnonzero((found < 0) & (bits >= length))
            if not rows.size:
                continue
            upper = high[rows] & _mask(length)
            lower = low[rows] & _mask(length - 64)
            at = np.searchsorted(hashes, _hash(upper, lower))
            at[at == hashes.size] = 0
            same = (own_high[at] == upper) & (own_low[at] == lower)
            found[rows[same]] = places[at[same]]
        return found


def bits_of_128(afi: NDArray[np.uint16], length: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return lengths of networks as if all were IPv6: an IPv4 one is mapped, 96 bits longer."""
    return (length + np.where(afi == 2, 0, 96)).astype(np.uint8)


def _words(network: Network) -> tuple[int, int, int]:
    number = int(network.network_address)
    if network.version == 4:
        return 0, 0xFFFF << 32 | number, network.prefixlen + 96
    return number >> 64, number & (1 << 64) - 1, network.prefixlen


def _mask(bits: int) -> np.uint64:
    """Return a word whose first `bits` are set."""
    bits = min(max(bits, 0), 64)
    return np.uint64(((1 << bits) - 1) << (64 - bits))


def _hash(high: Words, low: Words) -> Words:
    mixed: Words = (high * _MIX ^ low) * _MIX
    return mixed
