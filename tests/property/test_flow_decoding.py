"""Whatever is sent: no exception, the same rows for any cut, and the plain reader agrees."""

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.config import FlowDecoderSettings
from collectors.flow.columns import FlowMemory
from collectors.flow.decoder import FlowDecoder
from collectors.flow.elements import DIRECT, SLOTS, Convert, superseded, target
from telemetry.batch import Batch
from telemetry.schemas import LEDGER
from tests.support.flow_messages import block, data_set, ipfix, template_set, v5, v9
from tocsin.testing import make_context

u32 = st.integers(0, 2**32 - 1)
FIELDS = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 4), (95, 65535)]


def decoder() -> FlowDecoder:
    return FlowDecoder(FlowDecoderSettings(), make_context())


def rows(batches: list[Batch]) -> list[tuple[int, ...]]:
    names = (
        "source_address_low",
        "source_port",
        "octets",
        "packets",
        "fields_present",
        "export_ns",
    )
    for batch in batches:  # decoders build them unchecked
        assert not any(column.flags.writeable for column in batch.columns.values())
        Batch(batch.schema, batch.columns, batch.blobs, batch.dictionaries)
    return [
        tuple(int(batch[name][i]) for name in names)
        for batch in batches
        if batch.schema.name == "flow"
        for i in range(batch.rows)
    ]


def encode(flow: tuple[int, int, int], text: bytes) -> bytes:
    source, octets, packets = flow
    fixed = struct.pack("!IIHHBQI", source, 2, source & 0xFFFF, 5, 6, octets, packets)
    return fixed + bytes([len(text)]) + text


@given(st.lists(st.tuples(u32, u32, u32), max_size=30), st.integers(0, 0x3FFF))
def test_every_legal_v5_datagram_decodes(flows: list[tuple[int, int, int]], interval: int) -> None:
    made = rows(decoder().decode(block(v5(*flows, interval=interval))))
    assert [row[0] & 0xFFFFFFFF for row in made] == [source for source, _, _ in flows]
    assert [row[2] for row in made] == [octets for _, _, octets in flows]


@given(
    st.lists(st.tuples(u32, st.integers(0, 2**64 - 1), u32), max_size=12),
    st.binary(max_size=40),
    st.sampled_from([9, 10]),
)
def test_every_legal_record_decodes(
    flows: list[tuple[int, int, int]], text: bytes, version: int
) -> None:
    fields = FIELDS if version == 10 else FIELDS[:-1]
    body = b"".join(encode(f, text) if version == 10 else encode(f, b"")[:-1] for f in flows)
    sets = [template_set(256, fields, version=version), data_set(256, body)]
    message = ipfix(*sets) if version == 10 else v9(*sets)
    made = rows(decoder().decode(block(message)))
    assert [(row[0] & 0xFFFFFFFF, row[2], row[3]) for row in made] == flows


# Elements that become columns as they are, with widths they may have; some of no column between.
MIXED = st.lists(
    st.sampled_from(
        [(1, 4), (1, 8), (2, 3), (85, 8), (231, 5), (4, 1), (5, 1), (6, 1), (6, 2), (7, 2), (11, 2),
         (10, 2), (10, 4), (14, 4), (16, 2), (17, 4), (9, 1), (58, 2), (243, 2), (61, 1), (89, 1),
         (230, 1), (227, 2), (234, 4), (95, 4), (8, 4), (12, 4), (27, 16), (28, 16), (15, 4), (62, 16),
         (225, 4), (70, 3), (9999, 7), (82, 0), (48, 1), (34, 4), (95, 65535), (96, 65535), (8, 2)]
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


def plainly(fields: list[tuple[int, int]], data: bytes, count: int) -> list[dict[str, int]]:
    """Read records the plain way: the first of a column wins, a later one fills in where it was 0."""
    void = superseded({element for element, _ in fields})
    made, at = [], 0
    for _ in range(count):
        row: dict[str, int] = {}
        for element, stated in fields:
            width = stated
            if stated == 65535:
                width, at = data[at], at + 1
            value, at = data[at : at + width], at + width
            slot, how = target(element, 8 if stated == 65535 else width)
            if slot < 0 or element in void or (stated == 65535 and not 1 <= width <= 8):
                continue
            if stated == 65535 and how is not Convert.UNSIGNED:
                continue
            number = int.from_bytes(value, "big")
            if how in (Convert.IPV4, Convert.IPV6):
                low = number if how is Convert.IPV6 else 0xFFFF << 32 | number
                pair = SLOTS[slot], SLOTS[slot + 1]
                before = row.get(pair[0], 0) << 64 | row.get(pair[1], 0)
                if before in (0, 0xFFFF << 32) and (number or pair[0] not in row):
                    row[pair[0]], row[pair[1]] = low >> 64, low & 2**64 - 1
            elif row.get(SLOTS[slot], 0) == 0:
                row[SLOTS[slot]] = number >> 4 if how is Convert.MPLS else number
        made.append(row)
    return made


@given(
    st.lists(MIXED, min_size=1, max_size=3), st.integers(1, 5), st.randoms(use_true_random=False)
)
def test_the_plain_reader_agrees_on_any_template(
    layouts: list[list[tuple[int, int]]], count: int, random: Random
) -> None:
    sets, wanted = [], []
    for n, fields in enumerate(layouts):
        parts = []
        for _ in range(count):
            for _, width in fields:
                size = random.randrange(0, 12) if width == 65535 else width
                head = bytes([size]) if width == 65535 else b""
                zero = random.random() < 0.3
                parts.append(head + (bytes(size) if zero else random.randbytes(size)))
        data = b"".join(parts)
        if sum(width for _, width in fields) == 0:
            continue
        sets += [template_set(300 + n, fields), data_set(300 + n, data)]
        wanted += plainly(fields, data, count)
    batches = [b for b in decoder().decode(block(ipfix(*sets))) if b.schema.name == "flow"]
    got = [(batch, i) for batch in batches for i in range(batch.rows)]
    assert len(got) == len(wanted)
    for (batch, i), row in zip(got, wanted, strict=True):
        for name in DIRECT:
            width = 8 * batch[name].dtype.itemsize
            assert int(batch[name][i]) == row.get(name, 0) & (1 << width) - 1, name


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_bytes_crash_the_decoder(datagrams: list[bytes]) -> None:
    made = decoder()
    made.decode(block(*datagrams))
    made.decode(block(*(b"\x00\x0a" + data for data in datagrams)))
    made.decode(block(*(b"\x00\x09" + data for data in datagrams)))
    made.decode(block(*(b"\x00\x05" + data for data in datagrams)))


sequences = st.integers(0, 6)
messages = st.lists(
    st.one_of(
        st.builds(lambda n: ipfix(template_set(256, FIELDS), sequence=n), sequences),
        st.builds(lambda n: ipfix(template_set(256, FIELDS[:3]), sequence=n), sequences),
        st.builds(
            lambda n, flows: ipfix(
                data_set(256, b"".join(encode(f, b"ab") for f in flows)), sequence=n
            ),
            sequences,
            st.lists(st.tuples(u32, u32, u32), min_size=1, max_size=3),
        ),
        st.lists(st.tuples(u32, u32, u32), min_size=1, max_size=3).map(lambda flows: v5(*flows)),
    ),
    min_size=2,
    max_size=10,
)


def ledger(made: FlowDecoder) -> list[tuple[int, ...]]:
    names = [f.name for f in LEDGER.fields if f.name not in ("arrival_ns", "uptime_drift_ppm")]
    return [
        tuple(int(batch[name][i]) for name in names)
        for batch in made.advance(1)
        if batch.schema is LEDGER
        for i in range(batch.rows)
    ]


@given(messages, st.data())
def test_any_cut_gives_the_same_rows_and_the_same_ledger(
    datagrams: list[bytes], data: st.DataObject
) -> None:
    """Also between a set and its template, which then waits over the cut."""
    whole = block(*datagrams)
    at = data.draw(st.integers(0, whole.datagrams))
    made, other = decoder(), decoder()
    parts = made.decode(whole.slice(0, at)) + made.decode(whole.slice(at, whole.datagrams))
    # Families keep their own order: v5 rows and template rows come in batches of their own.
    assert sorted(rows(parts)) == sorted(rows(other.decode(whole)))
    assert ledger(made) == ledger(other)


# Elements of which some rows of a batch have a value and others none: all that `finish` looks at.
DERIVED = [(1, 4), (4, 1), (11, 2), (7, 2), (32, 2), (139, 2), (176, 1), (177, 1), (21, 4), (22, 4),
           (152, 8), (153, 8), (34, 4), (48, 1), (8, 4), (12, 4), (27, 16), (130, 4), (160, 8), (258, 4),
           (323, 8), (161, 4)]  # fmt: skip


def decoded_in(octet: int, blocks: list[list[bytes]]) -> list[dict[str, list[int]]]:
    """Return the columns of these blocks where all memory held this octet before."""
    fresh = FlowMemory.room

    def room(rows: int, *, extra: int = 0) -> FlowMemory:
        made = fresh(rows, extra=extra)
        for matrix in made.matrices:
            matrix.view("u1")[:] = octet
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowMemory, "room", room)
        made = decoder()
        batches = [batch for one in blocks for batch in made.decode(block(*one))]
    return [{name: batch[name].tolist() for name in batch.columns} for batch in batches]


@given(st.randoms(use_true_random=False))
def test_nothing_shows_what_the_memory_held_before(random: Random) -> None:
    """Batches of a block share memory: a column that one plan fills must say 0 in rows of another."""
    layouts: dict[int, int] = {}
    messages = []
    for _ in range(random.randrange(1, 7)):
        sets = []
        for _ in range(random.randrange(1, 6)):
            number = random.randrange(256, 261)
            if number not in layouts or random.random() < 0.4:
                fields = random.sample(DERIVED, random.randrange(1, 7))
                layouts[number] = sum(width for _, width in fields)
                sets.append(template_set(number, fields))
            count = random.randrange(0, 5)
            sets.append(data_set(number, random.randbytes(layouts[number] * count)))
        messages.append(ipfix(*sets))
    cut = random.randrange(len(messages) + 1)
    blocks = [one for one in (messages[:cut], messages[cut:]) if one]
    assert decoded_in(0, blocks) == decoded_in(0xA5, blocks)
