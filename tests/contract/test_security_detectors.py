"""Every registered security detector keeps the contract of detectors.security.detector."""

import numpy as np
import pytest

from correlator.security_views import SecurityViewsSettings, security_views
from detectors.security.detector import SECURITY, SecurityDetector
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from telemetry.security import FINDINGS
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEWS = {
    view.name: view
    for view in security_views(SecurityViewsSettings(), tick_seconds=60.0, lateness_seconds=1.0)
}


def ticks(one: SecurityDetector, count: int, *, rows: int = 30, loud: bool = False) -> list[Batch]:
    """Return frames of a detector's view: a quiet crowd, and in the last tick a row far beyond it."""
    view, made = VIEWS[one.view], []
    random = np.random.default_rng(3)
    for k in range(count):
        flows = random.poisson(3.0, rows).astype(float) + 1.0
        values = {
            "flows": flows, "packets": 2 * flows, "octets": 160.0 * flows,
            "distinct_destination": flows.copy(), "distinct_source": flows.copy(),
            "octets_m2": 0.0 * flows,
        }  # fmt: skip
        if loud and k == count - 1:
            for name in values:
                values[name][4] = 9e6 if name in ("octets", "packets") else 4000.0
            values["octets"][4] = 9e9
            if one.name in ("dns_tunnel", "upload", "login_tries"):
                values["distinct_destination"][4] = 1.0
        start_s = MONDAY_S + k * view.tick_seconds
        made.append(frame(view, round(start_s) * SECOND,
                          {m.name: values[m.name] for m in view.measures},
                          tick_seconds=view.tick_seconds))  # fmt: skip
    return made


def run(one: SecurityDetector, frames: list[Batch]) -> list[str]:
    """Return what a detector says of frames, as text; it learns what it does not find."""
    said = []
    for batch in frames:
        found = one.find(batch)
        mask = np.ones(batch.rows - 1, bool)
        mask[[f.row for f in found]] = False
        one.learn(batch, mask)
        said.append(repr(found))
    return said


@pytest.mark.parametrize("kind", SECURITY.kinds())
def test_contract(kind: str) -> None:
    make = SECURITY.get(kind).make
    one = make()
    assert one.view in VIEWS
    assert one.name in FINDINGS
    frames = ticks(one, 70, loud=True)
    said = run(one, frames)
    assert set(said[:-1]) == {"[]"}, "a quiet crowd shows no class"
    assert (said[-1] != "[]") == (one.name != "beacon")  # which takes hours
    assert run(make(), frames) == said, "the same input says the same"
    empty = frame(VIEWS[one.view], frames[0]["tick_start_ns"][0], dict.fromkeys(("flows",), ()))
    assert make().find(empty) == []

    half, state = make(), Snapshot()
    run(half, frames[:40])
    half.snapshot(state)
    other = make()
    other.restore(state)
    assert run(other, frames[40:]) == said[40:], "a checkpoint goes on where it was"


@pytest.mark.parametrize("kind", SECURITY.kinds())
def test_a_row_in_new_hands_starts_afresh_and_many_rows_are_taken(kind: str) -> None:
    one = SECURITY.get(kind).make()
    for batch in ticks(one, 3, rows=900):
        run(one, [batch])
    first = ticks(one, 1, rows=900)[0]
    moved = first.with_columns(
        first.schema, {**first.columns, "series_id": first["series_id"] + np.uint64(5)}
    )
    assert run(one, [moved]) == ["[]"]
