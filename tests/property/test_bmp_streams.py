"""BMP: however a stream is cut into chunks and blocks, the rows are the same; a snapshot changes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from collectors.bmp.decoder import BmpDecoder
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from tests.support.bmp_messages import (
    START_NS,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    peer_down,
    peer_up,
    prefix,
    reach,
    statistics,
    update,
    usual,
)
from tocsin.testing.rows import rows_of

PEERS = ("192.0.2.1", "2001:db8::1")
MESSAGES = st.one_of(
    st.builds(
        lambda peer, path, number, flags: monitoring(
            update(usual((64500, path)), prefix(f"10.{number}.0.0/16")), peer, flags=flags
        ),
        st.sampled_from(PEERS),
        st.integers(1, 3),
        st.integers(0, 5),
        st.sampled_from((0, 0x10, 0x40)),
    ),
    st.builds(
        lambda peer, number: monitoring(update(withdrawn=prefix(f"10.{number}.0.0/16")), peer),
        st.sampled_from(PEERS),
        st.integers(0, 5),
    ),
    st.builds(
        lambda peer, port: monitoring(
            update(usual() + reach(1, 133, b"", b"\3\5\x81" + bytes([port]))), peer
        ),
        st.sampled_from(PEERS),
        st.integers(0, 5),
    ),
    st.sampled_from([monitoring(update()), initiation(), *map(peer_up, PEERS), *map(peer_down, PEERS)]),
    st.builds(lambda n: statistics((0, n.to_bytes(4, "big"))), st.integers(0, 2**32 - 1)),
    st.binary(max_size=90),  # no message: the framing breaks
    st.builds(lambda size, kind: b"\x03" + bytes([0, 0, 0, size, kind]), st.integers(0, 255),
              st.integers(0, 7)),
)  # fmt: skip
SCHEMAS = ("route", "series", "sample", "alarm")


def play(stream: bytes, cuts: list[int], *, blocks: bool, decoder: BmpDecoder) -> list[Batch]:
    """Feed a stream in chunks, all of one arrival time, as one block or as many."""
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts} - {0}), len(stream)]
    parts = [stream[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]
    if not blocks:
        return decoder.decode(chunks(parts, step_ns=0)) if parts else []
    return [batch for part in parts for batch in decoder.decode(chunks([part], step_ns=0))]


@given(st.lists(MESSAGES, max_size=14), st.lists(st.integers(0, 4000), max_size=12), st.booleans())
def test_any_cut_gives_the_same_rows(parts: list[bytes], cuts: list[int], blocks: bool) -> None:
    """Also where the framing breaks, and with nothing but single octets."""
    stream = b"".join(parts)
    whole = play(stream, [], blocks=False, decoder=make_decoder())
    for where in (cuts, list(range(min(len(stream), 700)))):
        other = play(stream, where, blocks=blocks, decoder=make_decoder())
        for schema in SCHEMAS:
            assert rows_of(other, schema) == rows_of(whole, schema)


@given(st.lists(MESSAGES, max_size=12), st.integers(0, 4000))
def test_a_snapshot_anywhere_changes_nothing(parts: list[bytes], cut: int) -> None:
    """In the middle of a message too; and taking one does not change the decoder it is of."""
    stream = initiation() + b"".join(parts)
    cut %= len(stream)
    plain, kept, again = make_decoder(), Snapshot(), make_decoder()
    expected = play(stream, [cut], blocks=True, decoder=plain)
    first = make_decoder()
    before = play(stream[:cut], [], blocks=True, decoder=first)
    first.snapshot(kept)
    again.restore(kept)
    for decoder in (first, again):
        after = play(stream[cut:], [], blocks=True, decoder=decoder)
        after += decoder.advance(START_NS + 20 * 10**9)
        ours = [*before, *after]
        theirs = [*expected]
        for schema in ("route", "alarm"):
            assert rows_of(ours, schema) == rows_of(theirs, schema)
    ours = again.advance(START_NS + 40 * 10**9)
    assert rows_of(ours, "sample") == rows_of(first.advance(START_NS + 40 * 10**9), "sample")


@given(st.lists(MESSAGES, max_size=20))
def test_routes_announced_and_gone_add_up(parts: list[bytes]) -> None:
    """What is live by the rows' changes is what the table counts."""
    decoder = make_decoder()
    live: set[tuple[object, ...]] = set()
    for row in rows_of(play(b"".join(parts), [], blocks=False, decoder=decoder), "route"):
        peer = (row["peer_address_high"], row["peer_address_low"])
        if row["withdrawn"] == 2:
            live = {key for key in live if key[:2] != peer}
            continue
        key = (*peer, row["rib"], row["route_key"], row["path_id"])
        assert (key in live) == (row["change"] in (2, 3, 4, 5)), row["change"]
        if row["withdrawn"]:
            live.discard(key)
        else:
            live.add(key)
    decoder.advance(START_NS)
    value = decoder.metrics.value  # type: ignore[attr-defined]
    assert value("collector_bmp_state", what="routes") == len(live)
