"""Fixed limits: what they say, of whom, and that the stage runs them beside the baseline."""

import numpy as np
import pytest

from correlator.views import views_for
from detectors.config import AlsoSettings, DetectionSettings
from detectors.detector import ScoreColumns
from detectors.stage import DetectionStage
from detectors.threshold import ThresholdDetector, ThresholdOptions
from telemetry.errors import ConfigError
from tocsin.testing import make_context
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEWS = views_for(tick_seconds=5, lateness_seconds=1)
VIEW = next(v for v in VIEWS if v.name == "interface")


def tick(k: int, octets: list[float]):  # type: ignore[no-untyped-def]
    values = {name: np.array(octets) for name in ("octets", "packets", "flows")}
    return frame(VIEW, (MONDAY_S + 5 * k) * SECOND, values)


def test_beyond_the_limit_is_a_finding_and_within_is_none() -> None:
    options = ThresholdOptions(view="interface", measure="octets", above=100.0, below=2.0)
    detector = ThresholdDetector(VIEW, options)
    batch = tick(0, [5 * 50.0, 5 * 150.0, 5 * 1.0])  # totals of ticks of 5 s
    detector.admit(batch)
    detector.learn(batch, "octets", np.ones(batch.rows, bool))
    out = ScoreColumns.empty(batch.rows)
    detector.score(batch, "octets", out)
    assert (out.p_value < 1e-9).tolist() == [False, True, True, False]
    assert out.z[1] > 0 > out.z[2]
    assert out.upper[1] == 100.0
    assert out.lower[2] == 2.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"view": "interface", "measure": "octets"}, "above"),
        ({"view": "interface", "measure": "colour", "above": 1.0}, "none of octets"),
    ],
)
def test_options_that_say_nothing_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ThresholdDetector(VIEW, ThresholdOptions(**options))  # type: ignore[arg-type]


def test_the_stage_runs_it_beside_the_baseline_and_names_it() -> None:
    also = {
        "full": AlsoSettings(
            kind="threshold", options={"view": "interface", "measure": "octets", "above": 100.0}
        )
    }
    stage = DetectionStage(VIEWS, DetectionSettings(also=also), make_context())
    found = []
    for k in range(3):
        batch = tick(k, [5 * 50.0, 5 * 150.0])
        list(stage.process(batch))
        found += list(stage.advance(int(batch["tick_start_ns"][0]) + 5 * SECOND))
    rows = [
        (text, int(i))
        for b in found
        for text, i in zip(b.texts("detector"), b["series_id"], strict=True)
    ]
    assert {text for text, _ in rows} == {"full"}
    assert len({i for _, i in rows}) == 1
