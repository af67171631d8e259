"""What River learns, and that the node says the same with our kernel and without River."""

import json
from typing import Any

import numpy as np
import pytest

from alerting.life.triage import Model, Triage, check, features, logistic
from correlator.views import views_for
from detectors.config import AlsoSettings, DetectionSettings
from detectors.detector import ScoreColumns
from detectors.river_scores import RiverOptions, RiverScores
from detectors.river_scores import check as check_scores
from detectors.stage import DetectionStage
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import CONTROL
from tocsin.desk.teaching import DriftWatch, RiverDetector, learn_triage, model_class
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEW = next(v for v in views_for(tick_seconds=5) if v.name == "interface")
HST = RiverOptions(
    model="river.anomaly.HalfSpaceTrees", view="interface", measure="octets",
    params={"n_trees": 10, "height": 6, "window_size": 50, "seed": 3},
)  # fmt: skip


def raise_one(world: AlarmWorld, kind: str, entity: str) -> Any:
    (alert,) = world.told(world.report(kind, entity))
    return alert


def judge_many(world: AlarmWorld) -> None:
    """Ann finds that link flaps of ams1 are noise and power alarms are not."""
    for i in range(6):
        for kind, entity, verdict in (("linkFlap", "ams1", "false"), ("psu", f"c{i}", "true")):
            alert = raise_one(world, kind, entity)
            world.told(world.act("feedback", alarm=alert.id, verdict=verdict, by="ann"))
            world.told(world.report(kind, entity, "cleared"))
            world.second(seconds=4000)


def taught(world: AlarmWorld) -> Any:
    rows = [
        {"features": one.features, "verdict": one.verdict} for one in world.stage.triage.feedback
    ]
    model, river = learn_triage(rows)
    payload = {"names": model.names, "weights": model.weights, "intercept": model.intercept,
               "learned": model.learned}  # fmt: skip
    world.told(world.act("triage", **payload))
    return river


def test_the_kernel_says_what_river_says() -> None:
    random = np.random.default_rng(4)
    names = [f"f{i}" for i in range(12)]
    rows = [
        {"features": {n: float(random.random()) for n in random.choice(names, 5, replace=False)},
         "verdict": ("true", "false", "expected")[int(random.integers(3))]}
        for _ in range(300)
    ]  # fmt: skip
    model, river = learn_triage(rows)
    table = np.array([[row["features"].get(n, 0.0) for n in model.names] for row in rows])
    out = np.zeros(len(rows))
    assert logistic(table, np.array(model.weights), model.intercept, out) == len(rows)
    expected = [river.predict_proba_one(dict(row["features"]))[True] for row in rows]
    assert np.abs(out - expected).max() < 1e-12
    assert logistic(table, np.zeros(3), 0.0, out) == -1


def test_verdicts_become_priority_and_advice_with_evidence_and_nothing_is_muted() -> None:
    world = AlarmWorld()
    judge_many(world)
    assert "triage" not in raise_one(world, "linkFlap", "fra1").explain
    river = taught(world)
    noise, real = raise_one(world, "linkFlap", "ams1"), raise_one(world, "psu", "d9")
    assert (noise.state, real.state) == ("raised", "raised")
    said, other = noise.explain["triage"], real.explain["triage"]
    assert said["priority"] < 0.3 < 0.6 < other["priority"]
    assert "never worth it here: consider" in said["advice"]
    assert said["evidence"][0].endswith("6 false")
    assert "mostly worth it" in other["advice"]
    alarm = world.stage.alarm(int(noise.id, 16))
    assert alarm is not None
    proba = river.predict_proba_one(features(alarm))[True]
    assert said["priority"] == pytest.approx(proba, abs=6e-4)


def test_a_restart_keeps_verdicts_and_model_and_a_second_verdict_replaces_the_first() -> None:
    world = AlarmWorld()
    judge_many(world)
    taught(world)
    alert = raise_one(world, "psu", "x1")
    for verdict in ("true", "expected"):
        world.told(world.act("feedback", alarm=alert.id, verdict=verdict, by="bob"))
    out = Snapshot()
    world.stage.snapshot(out)
    world.stage = world.make_stage()
    world.stage.restore(out)
    mine = [one for one in world.stage.triage.feedback if one.by == "bob"]
    assert [(one.verdict, one.number) for one in mine] == [("expected", world.stage.triage.newest)]
    assert "priority" in raise_one(world, "linkFlap", "ams1").explain["triage"]


def judge(world: AlarmWorld, kind: str, entity: str, verdict: str, by: str = "ann") -> Any:
    alert = raise_one(world, kind, entity)
    world.told(world.act("feedback", alarm=alert.id, verdict=verdict, by=by))
    world.told(world.report(kind, entity, "cleared"))
    world.second(seconds=4000)
    return alert


@pytest.mark.parametrize("verdict", ["true", "false"])
def test_what_other_kinds_are_like_is_no_advice_on_a_kind(verdict: str) -> None:
    world, other = AlarmWorld(), "false" if verdict == "true" else "true"
    for i in range(30):
        judge(world, "linkFlap", f"a{i}", other)
    judge(world, "psu", "x", verdict)
    taught(world)
    for entity in ("x", "y"):
        said = raise_one(world, "psu", entity).explain["triage"]
        assert said["advice"].startswith("not clear"), said
        world.told(world.report("psu", entity, "cleared"))
        world.second(seconds=4000)
    said = raise_one(world, "linkFlap", "b").explain["triage"]
    assert said["advice"].endswith("first" if other == "true" else "later")
    for _ in range(20):
        judge(world, "linkFlap", "c", verdict)
    world.stage.triage.model = None
    taught(world)
    said = raise_one(world, "linkFlap", "c").explain["triage"]
    assert not said["advice"].endswith("first" if other == "true" else "later"), said


def test_what_is_noise_in_one_place_is_shelved_there_and_silenced_nowhere_else() -> None:
    world = AlarmWorld()
    for i in range(10):
        alert = judge(world, "fan", "ams1", "false")
        if i % 5 == 0:
            judge(world, "fan", f"c{i}", "true")
    taught(world)
    said = raise_one(world, "fan", "ams1").explain["triage"]
    assert f"`tocsin alarm shelve {alert.id}`" in said["advice"], said
    assert said["evidence"][:2] == ["fan on ams1: 10 false", "fan anywhere: 2 true, 10 false"]


def test_verdicts_are_bounded_counted_once_and_cost_the_same_however_many_there_are() -> None:
    import time

    import msgspec

    from alerting.life import triage as module

    world = AlarmWorld()
    alert = raise_one(world, "linkFlap", "ams1")
    alarm = world.stage.alarm(int(alert.id, 16))
    assert alarm is not None
    kept, triage = module.FEEDBACK_MAX, Triage()
    took = []
    for i in range(kept + 500):
        one = msgspec.structs.replace(alarm, id=i + 1, entity=f"e{i}")
        began = time.perf_counter()
        triage.say(one, "false", by="ann", note="", now_ns=one.raised_ns + 1)
        took.append(time.perf_counter() - began)
    assert (len(triage.feedback), triage.newest) == (kept, kept + 500)
    assert triage.feedback[0].entity == "e500"
    assert triage._by_kind["linkFlap"] == {"false": kept}
    assert len(triage._by_entity) == len(triage._last) == kept
    assert float(np.median(took[-500:])) < 0.002
    triage.say(one, "true", by="ann", note="", now_ns=one.raised_ns + 2)
    triage.say(one, "true", by="bob", note="", now_ns=one.raised_ns + 2)
    assert triage._by_entity["linkFlap", one.entity] == {"true": 2}
    again = Triage()
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(triage.snapshot())))
    assert again.feedback == triage.feedback
    assert {k: +v for k, v in again._by_kind.items()} == {k: +v for k, v in triage._by_kind.items()}


@pytest.mark.parametrize(
    "payload",
    [
        {}, {"names": ["a"], "weights": [], "intercept": 0.0, "learned": 1},
        {"names": ["a"], "weights": [float("nan")], "intercept": 0.0, "learned": 1},
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="triage"):
        check(payload)
    assert Triage().model is None
    assert Model([], [], 0.0, 0).learned == 0


def test_a_drift_of_the_rate_is_seen_and_a_steady_rate_is_not() -> None:
    random, watch = np.random.default_rng(5), DriftWatch()
    counts = {"interface": [0, 0], "service": [0, 0]}
    for k in range(600):
        for view, rate in (("interface", 0.01 if k < 400 else 0.08), ("service", 0.01)):
            counts[view][0] += 1000
            counts[view][1] += int(random.binomial(1000, rate))
        watch.take(counts, k)
    seen = {one["view"]: one for one in watch.drifts}
    assert set(seen) == {"interface"}
    assert {one["monitor"] for one in watch.drifts} == {"ADWIN", "PageHinkley"}
    assert min(one["at_ns"] for one in watch.drifts) >= 400


def values(k: int, rows: int = 20) -> np.ndarray:
    return 1e8 + np.random.default_rng([8, k]).normal(0.0, 4e6, rows)


def interface(k: int, value: np.ndarray) -> Batch:
    measures = {"octets": value * 5.0, "packets": value, "flows": value / 1e5}
    return frame(VIEW, (MONDAY_S + 5 * k) * SECOND, measures)


def test_any_river_model_is_a_detector_whose_scores_reach_the_alerts_of_the_next_tick() -> None:
    teacher = RiverDetector(HST)
    also = {"trees": AlsoSettings(kind="river", options={
        "model": HST.model, "view": HST.view, "measure": HST.measure, "params": HST.params})}  # fmt: skip
    stage = DetectionStage(
        list(views_for(tick_seconds=5)), DetectionSettings(also=also), make_context("detectors")
    )
    told, reported = [], []
    for k in range(400):
        value = values(k)
        if k >= 380:
            value[4] *= 0.2
        batch = interface(k, value)
        rows = teacher.take(batch)
        stage.process(batch)
        for made in stage.advance((MONDAY_S + 5 * k + 5) * SECOND):
            told += [
                (k, int(i)) for name, i in zip(made.texts("detector"), made["series_id"], strict=True)
                if name == "trees"
            ]  # fmt: skip
        reported += [(k, row[0]) for row in rows]
        payload = {"model": HST.model, "view": HST.view, "measure": HST.measure,
                   "rows": [[f"{s:016x}", p, score] for s, p, score in rows]}  # fmt: skip
        if rows:
            check_scores(payload)
            control = {"tick_start_ns": 0, "kind": "scores", "payload": json.dumps(payload)}
            stage.process(batch_from_rows(CONTROL, [control]))
    found = [(k, series) for k, series in reported if k >= 380]
    assert {series for _, series in found} >= {1004}
    assert len([1 for k, _ in reported if k < 380]) <= 5
    assert {series for k, series in told if k > 380} <= {series for _, series in reported}


def test_a_node_that_began_again_has_no_rate_below_nothing() -> None:
    watch = DriftWatch()
    watch.take({"v": [1000, 100]}, 0)
    watch.take({"v": [1500, 5]}, 1)  # a new start, further than the one before was
    assert watch.watched()[0]["rate"] >= 0.0
    assert abs(watch.watched()[0]["rate"] - 0.1) < 0.01


def reported(model: str, value: Any, ticks: int = 330, **params: Any) -> list[tuple[int, int]]:
    """Return (tick, series) of what a river model reports over ticks of `value(k)`."""
    detector = RiverDetector(
        RiverOptions(
            model=f"river.anomaly.{model}", view="interface", measure="octets", params=params
        )
    )
    return [(k, row[0]) for k in range(ticks) for row in detector.take(interface(k, value(k)))]


@pytest.mark.parametrize(
    "model", ["GaussianScorer", "StandardAbsoluteDeviation", "PredictiveAnomalyDetection"]
)
def test_a_river_model_that_asks_for_a_target_has_the_value_as_one(model: str) -> None:
    detector = RiverDetector(
        RiverOptions(model=f"river.anomaly.{model}", view="interface", measure="octets")
    )
    scored = []
    for k in range(120):
        value = values(k)
        value[4] *= 0.1 if k == 119 else 1.0
        detector.take(interface(k, value))
        scored.append(list(detector._pool)[-len(value) :])
    assert len(detector._pool) > 100 * len(value)
    assert scored[-1][4] > np.median([row[4] for row in scored[20:-1]])


@pytest.mark.parametrize(
    ("model", "params"), [("OneClassSVM", {}), ("HalfSpaceTrees", {"seed": 1})]
)
def test_models_that_are_strange_all_at_once_report_nothing(model: str, params: Any) -> None:
    still = np.full_like(values(0), 1e6)
    assert reported(model, lambda _: still, **params) == []
    wild = reported(model, values, **params)
    per_tick = [sum(k == tick for k, _ in wild) for tick in range(330)]
    assert max(per_tick) <= max(2, 0.05 * len(still))


class Sulking:
    """A model of somebody's that does not take what it is given."""

    def score_one(self, x: dict[str, float]) -> float:
        raise KeyError("nice_feature")

    def learn_one(self, x: dict[str, float]) -> None: ...


def test_a_model_that_fails_is_named_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("sulking")
    module.Sulking = Sulking  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sulking", module)
    detector = RiverDetector(
        RiverOptions(model="sulking.Sulking", view="interface", measure="octets")
    )
    for k in range(10):
        assert detector.take(interface(k, values(k))) == []
    with pytest.raises(ConfigError, match=r"sulking.Sulking.*interface/octets.*nice_feature"):
        detector.take(interface(10, values(10)))


def test_what_river_said_counts_for_one_tick() -> None:
    stands = RiverScores(VIEW, HST)
    batch = interface(0, values(0))
    stands.take({"model": HST.model, "view": "interface", "measure": "octets",
                 "rows": [[f"{1003:016x}", 1e-7, 0.9]]})  # fmt: skip
    out = ScoreColumns.empty(batch.rows)
    stands.score(batch, "octets", out)
    assert (out.p_value[3], out.score[3]) == (1e-7, pytest.approx(7.0))
    assert (np.delete(out.p_value, 3) == 1.0).all()
    stands.learn(batch, "octets", np.ones(batch.rows, bool))
    out = ScoreColumns.empty(batch.rows)
    stands.score(batch, "octets", out)
    assert (out.p_value == 1.0).all()


@pytest.mark.parametrize(
    "payload",
    [
        {"model": "x", "rows": []}, {"model": "x", "view": "interface", "measure": 7, "rows": []},
        {"model": "x", "view": "interface", "measure": "octets", "rows": [["1", None, 1.0]]},
        {"model": "x", "view": "interface", "measure": "octets", "rows": [["zz", 0.1, 1.0]]},
        {"model": "x", "view": "interface", "measure": "octets", "rows": [["1" * 17, 0.1, 1.0]]},
    ],
)  # fmt: skip
def test_scores_that_cannot_be_are_refused_and_harm_no_node(payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="scores"):
        check_scores(payload)
    with pytest.raises(ConfigError, match="scores"):
        RiverScores(VIEW, HST).take(payload)


@pytest.mark.parametrize("path", ["nope", "river.nope.X", "river.stats.Mean", "river.anomaly.Nope"])
def test_a_model_that_cannot_be_had_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]):
        model_class(path)


def test_wrong_parameters_are_said_at_once() -> None:
    with pytest.raises(ConfigError, match="HalfSpaceTrees"):
        RiverDetector(RiverOptions(model=HST.model, view="v", measure="octets", params={"x": 1}))


@pytest.mark.parametrize(
    "payload",
    [{}, {"model": "m", "rows": [[1]]}, {"model": "m", "rows": [["1", 0.0, 1.0]]},
     {"model": "m", "rows": [["1", 0.1, float("inf")]]}],
)  # fmt: skip
def test_scores_that_cannot_be_are_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="scores"):
        check_scores(payload)


def test_the_teacher_turns_verdicts_into_a_model_at_a_real_node_socket(tmp_path: Any) -> None:
    """The process's own loop over a request socket: asks, learns, tells, and learns no second time."""
    import threading

    import msgspec

    from runtime.bus import RequestClient, RequestServer
    from runtime.clock import SteadyClock
    from tocsin import verbs
    from tocsin.config import Config
    from tocsin.desk.teacher import Teacher, _work

    world, asked, ended = AlarmWorld(), [], threading.Event()
    judge_many(world)
    address = f"ipc://{tmp_path}/node.sock"

    def operate(ask: verbs.OperateRequest) -> verbs.OperateAnswer:
        asked.append(ask.kind)
        world.told(world.act(ask.kind, **ask.payload))
        return verbs.OperateAnswer(counts_from_ns=1)

    def feedback(_: verbs.Nothing) -> verbs.FeedbackAnswer:
        triage = world.stage.triage
        return verbs.FeedbackAnswer(
            feedback=msgspec.to_builtins(triage.feedback), model=msgspec.to_builtins(triage.model),
            rates={"interface": [1000, 10]},
        )  # fmt: skip

    says: list[verbs.TeacherSays] = []

    def hear(one: verbs.TeacherSays) -> verbs.Nothing:
        says.append(one)
        return verbs.Nothing()

    def answer() -> None:
        server = RequestServer(address)
        server.start()
        server.handle("operate", verbs.OperateRequest, operate)
        server.handle("feedback", verbs.Nothing, feedback)
        server.handle("teacher", verbs.TeacherSays, hear)
        while not ended.wait(0.002):
            server.serve()
        server.stop()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client = RequestClient(address)
    try:
        teacher = Teacher(Config(), tmp_path, client)
        for k in range(3):
            teacher.turn(k)
        # With neither drift nor a river model it ends by itself.
        _work(teacher, client, SteadyClock(), threading.Event())
        # A later one knows what is learned, also that a verdict was changed since.
        alert = raise_one(world, "psu", "x1")
        for verdict in ("true", "false"):
            world.told(world.act("feedback", alarm=alert.id, verdict=verdict, by="bob"))
            later = Teacher(Config(), tmp_path, client)
            for k in range(2):
                later.turn(k)
    finally:
        client.close()
        ended.set()
        thread.join(30)
    assert asked == ["triage"] * 3
    model = world.stage.triage.model
    assert model is not None
    assert (model.learned, model.newest) == (13, 14)
    assert says[-1].watched == [{"view": "interface", "rate": 0.01}]
