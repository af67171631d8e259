"""The wire format: what goes in comes out, older and newer writers are understood, damage is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import as_they_lie, wire
from telemetry.batch import batch_from_rows, empty
from telemetry.errors import DecodeError
from telemetry.schema import Schema, plain, text
from telemetry.schemas import CATALOGUE, FRAME, ROUTE, SERIES


@pytest.mark.parametrize("schema", CATALOGUE.values(), ids=lambda schema: schema.name)
def test_every_schema_travels(schema: Schema) -> None:
    row = {field.name: "é" if field.kind != "plain" else 3 for field in schema.fields}
    batch = batch_from_rows(schema, [row, row], source="view:x", arrival_ns=5, frontier_ns=6)
    back = wire.decode(wire.encode(batch))
    assert (back.source, back.arrival_ns, back.frontier_ns) == ("view:x", 5, 6)
    for field in schema.fields:
        if field.kind == "plain":
            assert back[field.name].tolist() == batch[field.name].tolist()
            assert back[field.name].dtype == field.dtype
        else:
            assert back.texts(field.name) == ["é", "é"]


@pytest.mark.parametrize("schema", CATALOGUE.values(), ids=lambda schema: schema.name)
def test_every_schema_is_kept_as_it_lies(schema: Schema) -> None:
    row = {field.name: "é" if field.kind != "plain" else 3 for field in schema.fields}
    batch = batch_from_rows(schema, [row, row], source="view:x", arrival_ns=5, frontier_ns=6)
    none = empty(schema)
    kept = as_they_lie.decode(as_they_lie.encode([batch, none, batch.slice(1, 2)]))
    for back, whole in zip(kept, (batch, none, batch.slice(1, 2)), strict=True):
        assert wire.encode(back) == wire.encode(whole)


def test_what_another_version_kept_as_it_lies_is_left_out_and_damage_is_said() -> None:
    older = Schema("series", 1, 0, SERIES.fields[:2])
    unknown = Schema("nothing", 1, 0, SERIES.fields[:2])
    batches = [batch_from_rows(schema, [{"series_id": 9}]) for schema in (older, unknown, SERIES)]
    (back,) = as_they_lie.decode(as_they_lie.encode(batches))
    assert back.schema is SERIES
    data = as_they_lie.encode(batches[2:])
    for damaged in (b"", data[:-3], data.replace(b"series_id", b"series_ix")):
        with pytest.raises(DecodeError, match="as they lie"):
            as_they_lie.decode(damaged)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.text(max_size=30)), max_size=20))
def test_texts_and_slices_survive(rows: list[tuple[int, str]]) -> None:
    clean = [(n, t.encode("utf-8", "ignore").decode()) for n, t in rows]
    batch = batch_from_rows(SERIES, [{"series_id": n, "key": t} for n, t in clean])
    half = batch.slice(len(clean) // 2, len(clean))
    back = wire.decode(wire.encode(half))
    assert back["series_id"].tolist() == [n for n, _ in clean[len(clean) // 2 :]]
    assert back.texts("key") == [t for _, t in clean[len(clean) // 2 :]]


def test_an_empty_batch_travels() -> None:
    assert wire.decode(wire.encode(empty(SERIES))).rows == 0


def test_a_column_of_a_newer_writer_is_kept_at_the_end() -> None:
    newer = Schema("series", 1, 7, (*SERIES.fields, plain("colour", "u4")))
    back = wire.decode(wire.encode(batch_from_rows(newer, [{"series_id": 9, "colour": 4}])))
    assert back["series_id"].tolist() == [9]
    assert back.schema.names()[-1] == "colour"


def test_a_column_that_an_older_writer_lacks_is_empty() -> None:
    older = Schema("series", 1, 0, SERIES.fields[:2])
    back = wire.decode(wire.encode(batch_from_rows(older, [{"series_id": 9}])))
    assert back.texts("key") == [""]
    assert back.texts("view") == [""]


def test_a_text_of_an_older_writer_becomes_a_code() -> None:
    fields = tuple(text(f.name) if f.name == "flow_actions" else f for f in ROUTE.fields)
    older = Schema("route", 1, 2, fields)
    rows = [{"flow_actions": said} for said in ("discard", "é", "discard", "")]
    back = wire.decode(wire.encode(batch_from_rows(older, rows).slice(1, 4)))
    assert back.texts("flow_actions") == ["é", "discard", ""]
    assert back["flow_actions"].dtype == "u4"


def test_an_unknown_major_is_refused_by_name() -> None:
    later = Schema("frame", 2, 0, FRAME.fields)
    with pytest.raises(DecodeError, match=r"frame/2\.0 was written by a newer Tocsin") as caught:
        wire.decode(wire.encode(batch_from_rows(later, [{}])))
    assert caught.value.reason == "unknown_major"


def test_a_user_schema_needs_no_catalogue() -> None:
    mine = Schema("mine", 3, 1, (plain("value", "f8", "s"), text("word")))
    back = wire.decode(wire.encode(batch_from_rows(mine, [{"value": 2.5, "word": "x"}])))
    assert back.schema.label == "mine/3.1"
    assert back.schema.by_name["value"].unit == "s"


@given(st.integers(0, 1500), st.integers(0, 255))
def test_damaged_bytes_raise_decode_error_only(at: int, value: int) -> None:
    data = bytearray(wire.encode(batch_from_rows(SERIES, [{"series_id": 1, "key": "k"}])))
    data[at % len(data)] = value
    reason = ""
    try:
        wire.decode(bytes(data))
    except DecodeError as error:
        reason = error.reason
    assert reason in {"", "corrupt", "unknown_major"}


def test_columns_are_read_only() -> None:
    batch = batch_from_rows(SERIES, [{"series_id": 1}])
    with pytest.raises(ValueError, match="read-only"):
        batch["series_id"][0] = 2
    assert batch["series_id"].dtype == np.uint64
