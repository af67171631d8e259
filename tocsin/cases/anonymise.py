"""Prefix-preserving anonymisation of a case: addresses that shared a prefix share one afterwards.

Addresses in columns, in texts (keys, entities, evidence) and in checkpoints are mapped by one secret
(Xu et al. 2002, Crypto-PAn, with BLAKE2b in the cipher's place). Names of routers, links and customers
stay. Ids are hashes of the true keys and stay too: who guesses a key can recognise its id.
"""

import ipaddress
import re
from functools import cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from correlator.kept_batches import read_batches, write_batches
from correlator.keys import ADDRESSES, key_of, key_text, words_of
from runtime.checkpoint import Snapshot, read_array, write_array
from telemetry.batch import Batch, code_column, text_column
from telemetry.digest import blake2b
from telemetry.identity import V4_MAPPED, address_pair, address_text
from telemetry.schema import Kind
from telemetry.views import View

_ADDRESS = re.compile(
    r"(?<![\w.:])(\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(/\d{1,3})?(?![\w.])"
)
_BATCHES = ("samples", "evidence")  # kept by the merger in their wire form
_TEXTS = ("alarms", "digest")  # kept by alerting as MessagePack
_LEFT_OUT = ("partials", "ledgers")  # open ticks: a case replays closed ones


class Mapper:
    """Maps addresses by a secret; the same secret gives the same addresses in every case."""

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode()).digest()
        self.pair = cache(self._pair)

    def _pair(self, high: int, low: int) -> tuple[int, int]:
        """Return the mapped (high, low) of an address; v4 stays v4, and no address stays none."""
        if not high and low >> 32 == 0xFFFF:
            return 0, V4_MAPPED | self._bits(low & 0xFFFF_FFFF, 32)
        if not high and not low:
            return 0, 0
        mapped = self._bits(high << 64 | low, 128)
        return mapped >> 64, mapped & 0xFFFF_FFFF_FFFF_FFFF

    def _bits(self, address: int, width: int) -> int:
        flips = 0
        for bit in range(width):
            # Whether a bit is flipped depends on those before it alone: prefixes stay prefixes.
            before = f"{width}:{bit}:{address >> (width - bit)}".encode()
            flips = flips << 1 | blake2b(before, key=self._key, digest_size=1).digest()[0] & 1
        return address ^ flips

    def text(self, text: str) -> str:
        """Return a text with every address and prefix in it mapped."""
        return _ADDRESS.sub(self._found, text)

    def _found(self, match: re.Match[str]) -> str:
        try:
            pair = address_pair(match.group(1))
        except ValueError:
            return match.group(0)
        mapped = address_text(*self.pair(*pair))
        if not match.group(2):
            return mapped
        try:
            return str(ipaddress.ip_network(mapped + match.group(2), strict=False))
        except ValueError:
            return mapped

    def value(self, value: Any) -> Any:
        """Return a tree of lists, dictionaries and texts with every text mapped."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.value(part) for part in value]
        if isinstance(value, dict):
            return {self.value(key): self.value(part) for key, part in value.items()}
        return value

    def batch(self, batch: Batch) -> Batch:
        """Return a batch whose address columns and texts are mapped."""
        columns, blobs = dict(batch.columns), dict(batch.blobs)
        dictionaries = dict(batch.dictionaries)
        for field in batch.schema.fields:
            name = field.name
            if field.kind is Kind.TEXT:
                columns[name], blobs[name] = text_column([*map(self.text, batch.texts(name))])
            elif field.kind is Kind.CODE:
                columns[name], dictionaries[name] = code_column(
                    [*map(self.text, batch.texts(name))]
                )
            elif name.endswith("_address_high"):
                low = name.removesuffix("_high") + "_low"
                columns[name], columns[low] = self._columns(batch[name], batch[low])
        return Batch(
            batch.schema, columns, blobs, dictionaries,
            self.text(batch.source), batch.arrival_ns, batch.frontier_ns,
        )  # fmt: skip

    def _columns(
        self, high: NDArray[np.uint64], low: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        mapped = [self.pair(*pair) for pair in zip(high.tolist(), low.tolist(), strict=True)]
        made = np.array(mapped, np.uint64).reshape(-1, 2)
        return np.ascontiguousarray(made[:, 0]), np.ascontiguousarray(made[:, 1])


class AnonymisedState:
    """The state of a checkpoint's `back`, mapped; written like a stage."""

    def __init__(self, state: Snapshot, views: tuple[View, ...], mapper: Mapper) -> None:
        self._state = state
        self._keys = {f"merger.{view.name}.keys": view.key for view in views}
        self._mapper = mapper

    def snapshot(self, out: Any) -> None:
        """Write every array, mapped where it holds addresses."""
        for name in self._state.names():
            array = read_array(self._state, name)
            assert array is not None
            above, _, last = name.rpartition(".")
            kept_as = above.rpartition(".")[2]
            if name in self._keys:
                write_array(out, name, self._words(array, self._keys[name]))
            elif name == "samples.names":
                mapped = self._mapper.text(array.tobytes().decode()).encode()
                write_array(out, name, np.frombuffer(mapped, np.uint8))
            elif last in _TEXTS:
                tree = self._mapper.value(msgspec.msgpack.decode(array.tobytes()))
                write_array(out, name, np.frombuffer(msgspec.msgpack.encode(tree), np.uint8))
            elif last == "sizes" and kept_as in _BATCHES:
                batches = read_batches(self._state, above)
                write_batches(out, above, [*map(self._mapper.batch, batches)])
            elif last == "sizes" and kept_as in _LEFT_OUT:
                write_batches(out, above, [])
            elif last != "bytes" or kept_as not in (*_BATCHES, *_LEFT_OUT):
                write_array(out, name, array)

    def _words(self, keys: NDArray[np.uint64], parts: tuple[str, ...]) -> NDArray[np.uint64]:
        made = np.array(keys)
        if not any(part in ADDRESSES for part in parts):
            return made
        for row, words in enumerate(keys.tolist()):
            if any(words):  # row 0 is `__other__`
                made[row] = words_of(self._mapper.text(key_text(key_of(parts, words))))
        return made
