"""The detection stage: barrier, findings, what is learned, and that a restart changes nothing."""

import json
from typing import Any

import numpy as np
import pytest

from correlator.views import views_for
from detectors.config import DetectionSettings
from detectors.detector import Finding
from detectors.stage import DetectionStage
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from telemetry.schemas import ANOMALY, FrameFlag
from tocsin.testing import make_context
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEWS = {v.name: v for v in views_for(tick_seconds=5, lateness_seconds=1)}
SETTINGS = DetectionSettings(warmup_ticks=60, warmup_seconds=300.0, false_alerts_per_day=10.0)
SIZE = 60_000.0


def make_stage() -> DetectionStage:
    return DetectionStage(list(VIEWS.values()), SETTINGS, make_context("detectors"))


def values(view: str, k: int, rows: int = 40) -> dict[str, Any]:
    random = np.random.default_rng([11, k])
    flows = random.poisson(60.0, rows)
    made: dict[str, Any] = {
        "octets": flows * SIZE * random.lognormal(0, 0.1, rows),
        "packets": flows * 80,
        "flows": flows,
    }
    if view == "exporter":
        made = {"records": flows, "octets": made["octets"]}
    if view.endswith("prefix"):
        name = "distinct_source" if view.startswith("destination") else "distinct_destination"
        made[name] = np.minimum(flows * 0.8, 60.0)
    return made


def tick(stage: DetectionStage, view: str, k: int, made: dict[str, Any], **more: Any) -> list[dict]:
    start = (MONDAY_S + 36_000 + 5 * k) * SECOND
    stage.process(frame(VIEWS[view], start, made, **more))
    found = rows_of(stage.advance(start + 5 * SECOND))
    stage.learn()
    return found


def rows_of(batches: list[Batch]) -> list[dict]:
    found = []
    for batch in batches:
        assert batch.schema is ANOMALY
        texts = {
            n: batch.texts(n) for n in ("view", "detector", "disposition", "measure", "detail")
        }
        for i in range(batch.rows):
            row = {name: column[i] for name, column in texts.items()}
            for name in ("series_id", "p_value", "since_ns", "tick_start_ns", "score", "expected"):
                row[name] = batch[name][i]
            found.append(row)
    return found


def trained(view: str, ticks: int = 120) -> DetectionStage:
    stage = make_stage()
    for k in range(ticks):
        assert not [
            r for r in tick(stage, view, k, values(view, k)) if r["disposition"] != "digest"
        ]
    return stage


def test_silent_exporter_is_hard_within_three_ticks() -> None:
    stage = trained("exporter")
    for k in (120, 121, 122):
        made = values("exporter", k)
        made["records"][3], made["octets"][3] = 0, 0
        found = [r for r in tick(stage, "exporter", k, made) if r["detector"] == "exporter_silent"]
        if found:
            break
    assert k <= 122
    assert [(r["series_id"], r["disposition"]) for r in found] == [(1003, "hard")]
    assert json.loads(found[0]["detail"])["ticks"] == k - 119


@pytest.mark.parametrize("unseen", ["incomplete", "lost"])
def test_a_silence_does_not_reach_over_a_tick_that_we_did_not_see(unseen: str) -> None:
    """What came while a process was down is not known; a silence that was told before goes on."""
    more: dict[str, Any] = {"flags": FrameFlag.INCOMPLETE}
    if unseen == "lost":
        more = {"lost_share": np.where(np.arange(40) == 3, 1.0, 0.0)}

    def silent(k: int, **more: Any) -> bool:
        made = values("exporter", k)
        made["records"][3], made["octets"][3] = 0, 0
        return any(
            r["detector"] == "exporter_silent" for r in tick(stage, "exporter", k, made, **more)
        )

    stage = trained("exporter")
    ticks = SETTINGS.silent_ticks
    assert not any(silent(120 + k) for k in range(ticks - 1))
    assert not silent(130, **more)
    assert [silent(131 + k) for k in range(ticks)] == [False] * (ticks - 1) + [True]
    assert not silent(140, **more)
    assert silent(141)


def test_silence_with_lost_exports_is_not_the_networks() -> None:
    stage = trained("exporter")
    for k in range(120, 126):
        made = values("exporter", k)
        made["records"][3], made["octets"][3] = 0, 0
        lost = np.zeros(40)
        lost[3] = 1.0
        assert not tick(stage, "exporter", k, made, lost_share=lost)


def test_lost_exports_do_not_look_like_lost_traffic() -> None:
    stage = trained("interface")
    for k in range(120, 160):
        made = {name: column * 0.6 for name, column in values("interface", k).items()}
        assert not tick(stage, "interface", k, made, lost_share=0.4)


def test_an_incomplete_tick_raises_nothing_and_teaches_nothing() -> None:
    stage = trained("interface")
    state = stage._models["interface"].rows["state"].copy()
    made = {name: column * 0 for name, column in values("interface", 120).items()}
    for k in (120, 121, 122):
        assert not tick(stage, "interface", k, made, flags=FrameFlag.INCOMPLETE)
    assert stage._models["interface"].rows["state"].tobytes() == state.tobytes()


def test_attack_is_found_in_two_ticks_and_goes_on_under_one_start() -> None:
    stage = trained("destination_prefix")
    first = 0
    for k in range(120, 140):
        made = values("destination_prefix", k)
        made["octets"][5] *= 12
        made["packets"][5] *= 20
        made["flows"][5] *= 6
        found = [r for r in tick(stage, "destination_prefix", k, made) if r["detector"] == "attack"]
        if found and not first:
            first = k
        for row in found:
            assert row["series_id"] == 1005
            assert row["since_ns"] == (MONDAY_S + 36_000 + 5 * first) * SECOND
    assert first <= 121
    assert found[0]["disposition"] == "alert"
    assert json.loads(found[0]["detail"])["extra_packets_per_flow"] > 100


def test_an_attack_of_ten_minutes_does_not_become_normal() -> None:
    stage = trained("destination_prefix")
    for k in range(120, 240):
        made = values("destination_prefix", k)
        made["octets"][5] *= 10
        found = tick(stage, "destination_prefix", k, made)
    row = next(r for r in found if r["detector"] == "attack")
    usual = 60 * SIZE / 5
    assert row["expected"] < 1.5 * usual


def test_scan_is_thin_and_wide_and_a_busy_server_is_not() -> None:
    stage = trained("source_prefix")
    scanning, busy = [], []
    for k in range(120, 124):
        made = values("source_prefix", k)
        made["flows"][2] += 400
        made["packets"][2] += 400
        made["octets"][2] += 400 * 44
        made["distinct_destination"][2] += 400
        made["flows"][8] += 400
        made["packets"][8] += 400 * 400 * 4
        made["octets"][8] += 400 * SIZE * 4
        made["distinct_destination"][8] += 400
        for row in tick(stage, "source_prefix", k, made):
            if row["detector"] == "scan":
                (scanning if row["series_id"] == 1002 else busy).append(row)
    assert len(scanning) >= 3
    assert not busy


def test_a_new_prefix_alone_alerts_nobody_but_a_new_scanner_does() -> None:
    stage = trained("source_prefix")
    for k in range(120, 190):
        made = {name: np.append(column, column[:2]) for name, column in
                values("source_prefix", k).items()}  # fmt: skip
        made["flows"] = made["flows"].astype(float)
        for name, extra in (("flows", 900), ("packets", 900), ("octets", 900 * 44),
                            ("distinct_destination", 900)):  # fmt: skip
            made[name] = made[name].astype(float)
            made[name][41] = extra
        found = tick(stage, "source_prefix", k, made)
        assert {r["series_id"] for r in found} <= {1041}
        assert {r["detector"] for r in found} == {"scan"}


def test_slow_rise_is_a_trend_and_a_step_is_not() -> None:
    stage = make_stage()
    for k in range(7 * 96):
        start = (MONDAY_S - 7 * 86_400 + 900 * k) * SECOND
        stage.bootstrap(
            frame(VIEWS["source_prefix"], start, values("source_prefix", k)), stands_for_seconds=900
        )
    rising, stepping = [], []
    for k in range(1_100):
        made = values("source_prefix", k)
        made["octets"][1] *= 1.0 + 1.5 * k / 1_440
        if k > 300:
            made["octets"][4] *= 2.0
        start = (MONDAY_S + 5 * k) * SECOND
        stage.process(frame(VIEWS["source_prefix"], start, made))
        for row in rows_of(stage.advance(start + 5 * SECOND)):
            if row["detector"] == "trend":
                (rising if row["series_id"] == 1001 else stepping).append(row)
    assert rising
    assert rising[0]["disposition"] == "alert"
    assert not stepping


def test_all_views_of_a_tick_pass_the_barrier_together() -> None:
    one, two = make_stage(), make_stage()
    for k in range(130):
        start = (MONDAY_S + 5 * k) * SECOND
        frames = [frame(VIEWS[v], start, values(v, k)) for v in ("exporter", "interface")]
        if k > 120:
            frames = [
                f.with_columns(f.schema, {**f.columns, "octets": f["octets"] // np.uint64(50)})
                for f in frames
            ]
        for batch in frames:
            one.process(batch)
        for batch in reversed(frames):
            two.process(batch)
        assert one.advance(start) == []
        first, second = (rows_of(s.advance(start + 5 * SECOND)) for s in (one, two))
        assert first == second
    assert {r["view"] for r in first} == {"exporter", "interface"}


def test_restart_goes_on_bit_for_bit() -> None:
    def run(stage: DetectionStage, ks: range) -> list[dict]:
        found = []
        for k in ks:
            made = values("destination_prefix", k)
            if k > 130:
                made["octets"][5] *= 9
            found += tick(stage, "destination_prefix", k, made)
        return found

    whole = trained("destination_prefix")
    expected = run(whole, range(120, 160))
    first = trained("destination_prefix")
    begun = run(first, range(120, 140))
    kept = Snapshot()
    first.snapshot(kept)
    again = make_stage()
    again.restore(kept)
    assert begun + run(again, range(140, 160)) == expected
    assert len(expected) > 10


def test_frames_come_back_widened_and_unchanged() -> None:
    stage = make_stage()
    batch = frame(VIEWS["interface"], MONDAY_S * SECOND, values("interface", 0))
    (widened,) = stage.process(batch)
    for name in batch.schema.names():
        assert widened[name].tobytes() == batch[name].tobytes()
    assert widened["octets_p_value"].dtype == np.float64
    assert widened["flows_score"].shape == (41,)


def test_nothing_over_budget_is_muted() -> None:
    """With next to no budget every finding is still told, as digest or, where hard, as hard."""
    tight = DetectionSettings(warmup_ticks=60, warmup_seconds=300.0, false_alerts_per_day=1e-30)
    stage = DetectionStage(list(VIEWS.values()), tight, make_context("detectors"))
    for k in range(120):
        tick(stage, "interface", k, values("interface", k))
    found = []
    for k in range(120, 130):
        made = values("interface", k)
        made["octets"][5] *= 20
        for name in made:
            made[name][9] = 0
        found += tick(stage, "interface", k, made)
    assert {r["disposition"] for r in found if r["series_id"] == 1005} == {"digest"}
    assert "hard" in {r["disposition"] for r in found if r["series_id"] == 1009}


def test_prefixes_that_speak_seldom_are_no_news() -> None:
    """A flow every twenty minutes, nothing wrong: on the second day within twice the budget."""
    settings = DetectionSettings(false_alerts_per_day=10.0)
    view = next(v for v in views_for(tick_seconds=120.0) if v.name == "source_prefix")
    stage = DetectionStage([view], settings, make_context("detectors"))
    random, alerts, day = np.random.default_rng(7), 0, 86_400 // 120
    for k in range(2 * day):
        flows = random.poisson(0.1, 60).astype(float)
        octets = np.array([random.lognormal(0.0, 1.0, int(n)).sum() * SIZE for n in flows])
        made = {"octets": octets, "packets": np.ceil(octets / 800.0), "flows": flows,
                "distinct_destination": np.minimum(flows, 1.0)}  # fmt: skip
        start = (MONDAY_S + 120 * k) * SECOND
        stage.process(frame(view, start, made, tick_seconds=120.0))
        found = rows_of(stage.advance(start + 120 * SECOND))
        new = [
            r for r in found if r["disposition"] == "alert" and r["since_ns"] == r["tick_start_ns"]
        ]
        alerts += len(new) if k >= day else 0
    assert alerts <= 20


@pytest.mark.parametrize("rows", [0, 1])
def test_frames_of_no_series(rows: int) -> None:
    stage = make_stage()
    made = {name: column[:rows] for name, column in values("interface", 0).items()}
    assert tick(stage, "interface", 0, made) == []


def test_a_signature_is_believed_as_its_own_record_allows() -> None:
    stage = make_stage()
    one = Finding(0, "octets", "attack", False, 9.0, 1.0, 0.5, 2.0, 4.0, 1e-4, {})
    assert stage._calibrated(one).p_value == pytest.approx(1e-4)  # no record yet: no credit
    stage._fired["attack"] = [0.0, 1e6]
    seldom = stage._calibrated(one).p_value
    stage._fired["attack"] = [1e4, 1e6]
    often = stage._calibrated(one).p_value
    assert seldom < 1e-8 < often < 1e-4
    hard = Finding(0, "octets", "silence", True, 0.0, 9.0, 0.5, 2.0, 4.0, 1e-4, {})
    assert stage._calibrated(hard) is hard
