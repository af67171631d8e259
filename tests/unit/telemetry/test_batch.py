"""Batches: rows taken by place."""

import numpy as np

from telemetry import wire
from telemetry.batch import batch_from_rows
from telemetry.schemas import ALARM


def test_rows_are_taken_in_any_order_and_more_than_once() -> None:
    rows = [{"entity": f"e{n}" * n, "severity": s, "occurrence": n} for n, s in enumerate("abc")]
    made = batch_from_rows(ALARM, rows).take(np.array([2, 0, 2, 1]))
    assert made.texts("entity") == ["e2e2", "", "e2e2", "e1"]
    assert made.texts("severity") == ["c", "a", "c", "b"]
    assert made["occurrence"].tolist() == [2, 0, 2, 1]
    assert made.take(np.zeros(0, np.int64)).rows == 0


def test_no_text_is_refused() -> None:
    """Half surrogate pairs come out of JSON escapes and command lines; UTF-8 has none."""
    rows = [{"entity": "a\ud800b", "severity": "\udfff", "title": "ö"}, {"entity": "é😀"}]
    made = wire.decode(wire.encode(batch_from_rows(ALARM, rows)))
    assert made.texts("entity") == ["a?b", "é😀"]
    assert made.texts("severity") == ["?", ""]


def test_the_text_of_one_row_is_that_of_all() -> None:
    rows = [
        {"entity": "é😀", "severity": "major"},
        {"entity": "", "severity": "minor"},
        {"entity": "plain"},
    ]
    made = batch_from_rows(ALARM, rows)
    for name in ("entity", "severity", "title"):
        if name in made.schema.by_name:
            assert [made.text(name, k) for k in range(3)] == made.texts(name)
    assert made.texts("operator") == ["", "", ""]
