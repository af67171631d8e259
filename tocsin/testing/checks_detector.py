"""The exam of a detector: what the driver and replay rely on, whoever wrote it.

A maker gives a detector for VIEW; the exam looks at its measure MEASURE.
"""

from collections.abc import Callable

import numpy as np

from correlator.views import views_for
from detectors.detector import Detector, ScoreColumns
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from tocsin.testing.frames import MONDAY_S, SECOND, Carrier, frame

VIEW = next(v for v in views_for(tick_seconds=5, lateness_seconds=1) if v.name == "interface")
MEASURE = "octets"
MakeDetector = Callable[[], Detector]


def ticks(carrier: Carrier, count: int, *, rows: list[int] | None = None) -> list[Batch]:
    """Return frames of a small carrier, 5 s apart; `rows` chooses and places its series."""
    made = []
    for k in range(count):
        values = carrier.tick(MONDAY_S + 5.0 * k)
        if rows is not None:
            values = {name: column[rows] for name, column in values.items()}
        made.append(frame(VIEW, (MONDAY_S + 5 * k) * SECOND, values, rows=rows))
    return made


def step(detector: Detector, batch: Batch, *, learn: bool = True) -> ScoreColumns:
    """Score a frame as the driver does, and learn it whole."""
    detector.admit(batch)
    out = ScoreColumns.empty(batch.rows)
    detector.score(batch, MEASURE, out)
    if learn:
        detector.learn(batch, MEASURE, np.ones(batch.rows, bool))
    return out


def bits(columns: ScoreColumns) -> list[bytes]:
    """Return all score columns as bytes."""
    return [
        getattr(columns, name).tobytes()
        for name in ("expected", "lower", "upper", "score", "p_value", "z")
    ]


def score_changes_nothing(make: MakeDetector) -> None:
    """Any number of calls of `score` give what the first gave."""
    once, often = make(), make()
    for batch in ticks(Carrier(8, seed=1), 80):
        first = step(once, batch)
        for _ in range(3):
            assert bits(step(often, batch, learn=False)) == bits(first)
        often.learn(batch, MEASURE, np.ones(batch.rows, bool))


def an_unseen_series_scores_nothing(make: MakeDetector) -> None:
    """What was never learned says nothing."""
    out = step(make(), ticks(Carrier(8, seed=1), 1)[0])
    assert not out.score.any()
    assert (out.p_value == 1.0).all()


def probabilities_are_probabilities(make: MakeDetector) -> None:
    """p in (0, 1], finite bands in order, the last row (`__other__`) is never judged."""
    detector = make()
    for batch in ticks(Carrier(8, seed=9), 80):
        out = step(detector, batch)
        assert ((out.p_value > 0.0) & (out.p_value <= 1.0)).all()
        assert (out.lower <= out.upper).all()
        assert out.p_value[-1] == 1.0


def a_snapshot_goes_on_bit_for_bit(make: MakeDetector) -> None:
    """A restart changes no score."""
    whole, first = make(), make()
    batches = ticks(Carrier(12, seed=3), 120)
    for batch in batches[:60]:
        step(whole, batch)
        step(first, batch)
    kept = Snapshot()
    first.snapshot(kept)
    again = make()
    again.restore(kept)
    for batch in batches[60:]:
        assert bits(step(again, batch)) == bits(step(whole, batch))


def the_same_input_gives_the_same_bits(make: MakeDetector) -> None:
    """No clock, no chance."""
    one, two = make(), make()
    for batch in ticks(Carrier(6, seed=4), 60):
        assert bits(step(one, batch)) == bits(step(two, batch))


def a_series_does_not_see_which_row_it_is_in(make: MakeDetector) -> None:
    """The same series in other dense rows gets the same expectation."""
    near, far = make(), make()
    carrier = Carrier(5, seed=5)
    for k in range(80):
        values = carrier.tick(MONDAY_S + 5.0 * k)
        start = (MONDAY_S + 5 * k) * SECOND
        a = step(near, frame(VIEW, start, values))
        b = step(far, frame(VIEW, start, values, rows=[300, 7, 41, 900, 2]))
        assert a.expected.tobytes() == b.expected.tobytes()
        assert a.p_value.tobytes() == b.p_value.tobytes()


def a_row_in_new_hands_starts_afresh(make: MakeDetector) -> None:
    """What was learned of one series is not held against the next one in its row."""
    detector = make()
    for batch in ticks(Carrier(3, seed=6), 60):
        step(detector, batch)
    other = ticks(Carrier(3, seed=6), 1)[0]
    ids = other["series_id"].copy()
    ids[1] = 77
    out = step(detector, other.with_columns(other.schema, {**other.columns, "series_id": ids}))
    assert out.score[1] == 0.0
    assert out.p_value[1] == 1.0


CHECKS = (
    score_changes_nothing,
    an_unseen_series_scores_nothing,
    probabilities_are_probabilities,
    a_snapshot_goes_on_bit_for_bit,
    the_same_input_gives_the_same_bits,
    a_series_does_not_see_which_row_it_is_in,
    a_row_in_new_hands_starts_afresh,
)
