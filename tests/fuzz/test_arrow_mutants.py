"""Arrow streams of ours with anything wrong in them: read, or refused with the reason; nothing ends the process."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collectors.present import json_line
from telemetry import wire
from telemetry.batch import batch_from_rows
from telemetry.errors import DecodeError
from telemetry.schemas import CATALOGUE
from tocsin.cases.decoding import Decoding
from tocsin.testing import make_context

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 5_000
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    made = []
    for schema in CATALOGUE.values():
        row = {field.name: "é" if field.kind != "plain" else 3 for field in schema.fields}
        made.append(wire.encode(batch_from_rows(schema, [row] * 3, source="view:x")))
    return made


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    made = bytearray(data)
    for _ in range(int(random.choice([1, 1, 2, 4, 16]))):
        at, what = int(random.integers(len(made) + 1)), int(random.integers(5))
        if what == 0 and at < len(made):
            made[at] ^= 1 << int(random.integers(8))
        elif what == 1:
            made[at : at + 4] = struct.pack("<I", int(random.choice(WORDS)))
        elif what == 2:
            del made[at : at + int(random.integers(1, 64))]
        elif what == 3:
            made[at:at] = random.bytes(int(random.integers(1, 32)))
        elif random.random() < 0.3:
            del made[at:]
    return bytes(made)


def test_damaged_streams_are_refused_or_shown(tmp_path: Path, deep: bool) -> None:
    random, originals = np.random.default_rng(21), seeds()
    file, shown, refused = tmp_path / "x.arrows", 0, 0
    run = Decoding(make_context(), everything=True)
    for n in range(1_000_000 if deep else MUTANTS):
        file.write_bytes(mutate(originals[n % len(originals)], random))
        lines = [json_line(row) for row in run.rows([file])]
        if not run.undecoded:
            shown += bool(lines)
        else:
            refused += 1
            assert not lines
        run.undecoded.clear()  # a third of the reasons are new: a million of them take hours to add up
    assert shown > n // 50
    assert refused > n // 2


def instead_of_words(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(b'["words"]', text.ljust(9))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (instead_of_words(b"[[[[[[[[["), "does not fit its schema"),
        (instead_of_words(b"[]"), "codes without a word"),
        (instead_of_words(b"[1]"), "does not fit its schema"),
        (instead_of_words(b"9"), "does not fit its schema"),
        (lambda data: data[:-8] + data, "not 1 record batch"),
        (lambda data: data[:-8] + data[-16:-8], "no message at byte"),
        (lambda data: data[:80], "not a Tocsin Arrow stream"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(damage: Callable[[bytes], bytes], told: str) -> None:
    row = {"arrival_ns": 7, "host": "words", "message": "m"}
    data = wire.encode(batch_from_rows(CATALOGUE["log"], [row]))
    with pytest.raises(DecodeError, match=told):
        wire.decode(damage(data))


def test_a_stream_that_another_library_wrote_anew_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for data in seeds():
        table = pyarrow.ipc.open_stream(data).read_all()
        out = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        ours, back = wire.decode(data), wire.decode(out.getvalue().to_pybytes())
        assert wire.encode(back) == wire.encode(ours)
    smaller = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(tmp_path / "x"), table.schema, options=smaller) as writer:
        writer.write_table(table)
    with pytest.raises(DecodeError, match="its batch is compressed"):
        wire.decode((tmp_path / "x").read_bytes())
