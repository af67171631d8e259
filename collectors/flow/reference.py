"""Reference tables: what exporters' options data say about the numbers in their flows.

Names of interfaces, VRFs and applications by exporter; samplers are in collectors.flow.sampling. Bounded
per exporter and in all; what is not announced any more is forgotten.
"""

from typing import Any

import numpy as np

from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch

NAME_BYTES_MAX = 256
HOUR_NS = 3_600_000_000_000
TABLES = ("interface", "vrf", "application")
# Column of a flow record: the table that names its values.
COLUMNS = {
    "ingress_interface": "interface",
    "egress_interface": "interface",
    "ingress_vrf_id": "vrf",
    "egress_vrf_id": "vrf",
    "application_id": "application",
}

Exporter = tuple[int, int]


class ReferenceTables:
    """(exporter, table, number) → name."""

    def __init__(self, *, names_max: int = 262_144, per_exporter_max: int = 65_536) -> None:
        self._names_max = names_max
        self._per_exporter_max = per_exporter_max
        self._names: dict[Exporter, dict[tuple[str, int], tuple[str, int]]] = {}
        self._count = 0
        self._expired_ns = -(1 << 62)

    def __len__(self) -> int:
        return self._count

    def learn(self, high: int, low: int, table: str, key: int, name: str, now_ns: int) -> bool:
        """Keep a name; False where there is no room for it."""
        own = self._names.get((high, low), {})
        if (table, key) not in own:
            if len(own) >= self._per_exporter_max or self._count >= self._names_max:
                return False
            self._count += 1
            self._names[high, low] = own
        own[table, key] = (name, now_ns)
        return True

    def name(self, high: int, low: int, table: str, key: int) -> str:
        """Return a name, "" where the exporter never said it."""
        return self._names.get((high, low), {}).get((table, key), ("", 0))[0]

    def join(self, flows: Batch, column: str) -> list[str]:
        """Return the name of each row's value in one of COLUMNS, "" where none is known.

        One look-up per exporter and value, not per row.
        """
        table = COLUMNS[column]
        words = np.stack(
            [
                flows["exporter_address_high"],
                flows["exporter_address_low"],
                flows[column].astype(np.uint64),
            ],
            axis=1,
        )
        unique, inverse = np.unique(words, axis=0, return_inverse=True)
        names = [self.name(high, low, table, key) for high, low, key in unique.tolist()]
        return [names[i] for i in inverse.reshape(-1).tolist()]

    def expire(self, before_ns: int) -> int:
        """Forget names not announced since `before_ns`, once an hour: it looks at all; return how many."""
        if before_ns - self._expired_ns <= HOUR_NS:
            return 0
        self._expired_ns = before_ns
        gone = 0
        for exporter in list(self._names):
            own = self._names[exporter]
            old = [key for key, (_, learned_ns) in own.items() if learned_ns < before_ns]
            for key in old:
                del own[key]
            gone += len(old)
            if not own:
                del self._names[exporter]
        self._count -= gone
        return gone

    def snapshot(self, out: Any) -> None:
        """Write all names."""
        heads, texts = [], []
        for (high, low), own in self._names.items():
            for (table, key), (name, learned_ns) in own.items():
                data = name.encode()
                heads.append((high, low, TABLES.index(table), key, learned_ns, len(data)))
                texts.append(data)
        write_array(out, "names", np.array(heads, np.uint64).reshape(-1, 6))
        write_array(out, "names.text", np.frombuffer(b"".join(texts), np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back, beside what is known."""
        heads, text = read_array(state, "names"), read_array(state, "names.text")
        if heads is None or text is None:
            return
        data, at = text.tobytes(), 0
        for high, low, table, key, learned_ns, size in heads.tolist():
            name = data[at : at + size].decode("utf-8", "replace")
            at += size
            self.learn(high, low, TABLES[table], key, name, learned_ns)
