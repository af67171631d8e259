"""A stream of log messages gives the same rows wherever TCP cuts it, and whatever blocks hold."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.syslog_messages import SYSLOG_LINES, block, make_syslog
from tocsin.testing.rows import rows_of

TEXTS = [text for text in SYSLOG_LINES if b"\n" not in text]
TABLES = ("log", "alarm", "option", "series", "sample")
message = st.tuples(st.sampled_from(TEXTS), st.booleans())
Rows = dict[str, list[dict[str, object]]]


def decoded(parts: list[bytes], blocks: list[int]) -> Rows:
    """Return what one connection's chunks give, in blocks that end at these places."""
    decoder, _ = make_syslog("tcp://[::]:1", patterns_max=256, hosts_max=64, series_max=256)
    edges = [0, *sorted(set(blocks)), len(parts)]
    made = [
        batch
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if b > a
        for batch in decoder.decode(block(*parts[a:b]))
    ]
    made += decoder.advance(1 << 62)
    return {table: rows_of(made, table) for table in TABLES}


@given(st.lists(message, max_size=25), st.data())
def test_cuts_change_no_row(messages: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    stream = b"".join(
        str(len(text)).encode() + b" " + text if counted else text + b"\n"
        for text, counted in messages
    )
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(set(cuts)), len(stream)]
    parts = [stream[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]
    blocks = data.draw(st.lists(st.integers(0, len(parts) + 1), max_size=4))
    whole = decoded([stream, b""] if stream else [b""], [])
    assert decoded([*parts, b""], blocks) == whole
    assert len(whole["log"]) == len([text for text, _ in messages if text.strip()])
