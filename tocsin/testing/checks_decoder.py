"""The exam of a decoder: what a Front, replay and a flood of nonsense rely on.

>>> from collectors.config import ListenerSettings
>>> from collectors.registry import make_decoder
>>> from tocsin.testing import make_context
>>> settings = ListenerSettings(kind="flow", listen="udp://127.0.0.1:2055")
>>> for check in CHECKS:
...     check(lambda: make_decoder(settings, make_context()), [bytes(24)])
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collectors.block import DatagramBlock, Decoder
from collectors.datagram import Datagram, pack
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from telemetry.identity import address_pair

MakeDecoder = Callable[[], Decoder]
ARRIVAL_NS = 1_790_000_000_000_000_000
MILLISECOND = 1_000_000
MUTANTS = 300


def blocks(datagrams: Sequence[bytes], cuts: Sequence[int] = ()) -> list[DatagramBlock]:
    """Return the datagrams of one exporter, a millisecond apart, in blocks that end at `cuts`."""
    high, low = address_pair("192.0.2.1")
    parts = [
        Datagram(ARRIVAL_NS + i * MILLISECOND, high, low, 4000, 2055, data)
        for i, data in enumerate(datagrams)
    ]
    edges = [0, *sorted(cuts), len(parts)]
    return [pack(parts[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]


def rows_of(batches: Sequence[Batch]) -> dict[str, dict[str, list[Any]]]:
    """Return all rows by schema and column, whatever batches they came in."""
    found: dict[str, dict[str, list[Any]]] = {}
    for batch in batches:
        columns = found.setdefault(batch.schema.label, {})
        for field in batch.schema.fields:
            kind = field.kind.name
            values = batch[field.name].tolist() if kind == "PLAIN" else batch.texts(field.name)
            columns.setdefault(field.name, []).extend(values)
    return found


def _run(decoder: Decoder, made: Sequence[DatagramBlock]) -> list[Batch]:
    return [batch for block in made for batch in decoder.decode(block)]


def any_cut_gives_the_same_rows(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:
    """One block, one datagram a block, and random cuts."""
    whole = rows_of(_run(make(), blocks(datagrams)))
    assert rows_of(_run(make(), blocks(datagrams, range(1, len(datagrams))))) == whole
    random = np.random.default_rng(1)
    for _ in range(5):
        cuts = random.integers(0, len(datagrams) + 1, 3).tolist()
        assert rows_of(_run(make(), blocks(datagrams, cuts))) == whole


def batches_are_of_the_schemas_it_names(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:
    """`emits` is what a decoder may give, from `decode` and from `advance`."""
    decoder = make()
    made = _run(decoder, blocks(datagrams))
    made += decoder.advance(ARRIVAL_NS + 1_000 * MILLISECOND)
    assert {batch.schema.name for batch in made} <= {schema.name for schema in decoder.emits}


def a_snapshot_goes_on_row_for_row(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:
    """What a restart restores decodes what follows as if there had been none."""
    half = len(datagrams) // 2
    first, rest = datagrams[:half], blocks(datagrams, [half])[1 if half else 0 :]
    once = make()
    _run(once, blocks(first))
    kept = Snapshot()
    once.snapshot(kept)
    again = make()
    again.restore(kept)
    assert rows_of(_run(again, rest)) == rows_of(_run(once, rest))


def no_bytes_raise(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:
    """Nothing, nonsense, and mutants of what is right: bit flips, cuts, doubled ends."""
    random = np.random.default_rng(2)
    wild = [b"", bytes(1), bytes(1500), b"\xff" * 1500]
    for i in range(MUTANTS):
        data = bytearray(datagrams[i % len(datagrams)])
        if data:
            data[int(random.integers(0, len(data)))] ^= 1 << int(random.integers(0, 8))
            data = data[: int(random.integers(0, len(data) + 1))] if i % 3 == 0 else data
            data = data + data[-8:] if i % 5 == 0 else data
        wild.append(bytes(data))
    decoder = make()
    _run(decoder, blocks(wild, range(0, len(wild), 37)))
    decoder.advance(ARRIVAL_NS + 86_400_000 * MILLISECOND)


def the_same_input_gives_the_same_rows(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:
    """No clock, no chance."""
    assert rows_of(_run(make(), blocks(datagrams))) == rows_of(_run(make(), blocks(datagrams)))


def nothing_gives_nothing(make: MakeDecoder, datagrams: Sequence[bytes]) -> None:  # noqa: ARG001
    """An empty block has no rows; time that passes without a datagram has none either."""
    decoder = make()
    assert sum(batch.rows for batch in _run(decoder, [pack([])])) == 0
    assert sum(batch.rows for batch in decoder.advance(ARRIVAL_NS)) == 0


CHECKS = (
    any_cut_gives_the_same_rows,
    batches_are_of_the_schemas_it_names,
    a_snapshot_goes_on_row_for_row,
    no_bytes_raise,
    the_same_input_gives_the_same_rows,
    nothing_gives_nothing,
)
