"""Whatever is sent: no exception, the same rows for any cut, and the plain reader agrees."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from collectors.config import FlowDecoderSettings
from collectors.flow import FlowDecoder
from telemetry.batch import Batch
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


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_bytes_crash_the_decoder(datagrams: list[bytes]) -> None:
    made = decoder()
    made.decode(block(*datagrams))
    made.decode(block(*(b"\x00\x0a" + data for data in datagrams)))
    made.decode(block(*(b"\x00\x09" + data for data in datagrams)))
    made.decode(block(*(b"\x00\x05" + data for data in datagrams)))


messages = st.lists(
    st.one_of(
        st.just(ipfix(template_set(256, FIELDS))),
        st.just(ipfix(template_set(256, FIELDS[:3]))),
        st.lists(st.tuples(u32, u32, u32), min_size=1, max_size=3).map(
            lambda flows: ipfix(data_set(256, b"".join(encode(f, b"ab") for f in flows)))
        ),
        st.lists(st.tuples(u32, u32, u32), min_size=1, max_size=3).map(lambda flows: v5(*flows)),
    ),
    min_size=2,
    max_size=10,
)


@given(messages, st.data())
def test_any_cut_gives_the_same_rows(datagrams: list[bytes], data: st.DataObject) -> None:
    whole = block(*datagrams)
    at = data.draw(st.integers(0, whole.datagrams))
    made = decoder()
    parts = made.decode(whole.slice(0, at)) + made.decode(whole.slice(at, whole.datagrams))
    # Families keep their own order: v5 rows and template rows come in batches of their own.
    assert sorted(rows(parts)) == sorted(rows(decoder().decode(whole)))
