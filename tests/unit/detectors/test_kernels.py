"""The detection kernels: figures worked out by hand, and what they must never do."""

import math

import numpy as np
import pytest

from detectors import baseline, calibration

HOUR = 3600
MONDAY_S = 1_790_553_600
ROW = np.array([0], np.int64)
NONE = np.zeros(1, np.float32)


def state() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.zeros((1, baseline.STATE), np.float32),
        np.zeros((1, baseline.SLOTS), np.float32),
        np.zeros((1, baseline.SLOTS), np.uint8),
    )


def learn(value: float, time_s: int, kept: tuple, *, mask: int = 1, tick_s: float = 900.0) -> int:
    return baseline.learn(
        ROW, np.array([value]), np.array([mask], np.uint8), time_s, tick_s, tick_s, tick_s,
        86_400.0, 1_800.0, 21_600.0, *kept,
    )  # fmt: skip


def expect(value: float, time_s: int, kept: tuple, **shares: float) -> tuple[float, float]:
    expected, scale = np.zeros(1), np.zeros(1)
    lost = np.array([shares.get("lost", 0.0)], np.float32)
    moved = np.array([shares.get("moved", 0.0)], np.float32)
    baseline.expect(ROW, np.array([value]), lost, moved, time_s, 900.0, *kept, expected, scale)
    return float(expected[0]), float(scale[0])


@pytest.mark.parametrize(
    ("time_s", "slot"),
    [
        (MONDAY_S, 0),
        (MONDAY_S + 13 * HOUR + 59, 13),
        (MONDAY_S + 5 * 86_400, 24),  # Saturday
        (MONDAY_S + 6 * 86_400 + 23 * HOUR, 47),
        (0, 0),  # 1970-01-01 was a Thursday
    ],
)
def test_slot_of_the_week(time_s: int, slot: int) -> None:
    assert baseline._slot_of(time_s) == slot


def test_profile_is_learned_and_told_apart_by_weekend() -> None:
    kept = state()
    for quarter in range(14 * 96):
        at = MONDAY_S + quarter * 900
        weekend = baseline._slot_of(at) >= 24
        hour = (at % 86_400) // HOUR
        learn((50.0 if weekend else 100.0) * (2.0 if 8 <= hour < 20 else 1.0), at + 450, kept)
    monday = MONDAY_S + 14 * 86_400
    kept[0][0, baseline.LOCAL] = 1.0
    assert expect(0.0, monday + 14 * HOUR + 1800, kept)[0] == pytest.approx(200.0, rel=0.1)
    assert expect(0.0, monday + 3 * HOUR + 1800, kept)[0] == pytest.approx(100.0, rel=0.1)
    saturday = monday + 5 * 86_400
    assert expect(0.0, saturday + 3 * HOUR + 1800, kept)[0] == pytest.approx(50.0, rel=0.1)


def test_workdays_leave_the_doubt_of_the_weekend_as_it_is() -> None:
    kept = state()
    for k in range(14 * 96):
        learn(100.0, MONDAY_S + k * 900, kept)
    monday, saturday = MONDAY_S + 14 * 86_400, MONDAY_S + 19 * 86_400
    doubts = [kept[0][0, baseline.doubt_at(at)] for at in (monday, saturday)]
    for k in range(5 * 1440):
        learn(100.0, monday + k * 60, kept, tick_s=60.0)
    assert kept[0][0, baseline.doubt_at(monday)] < 0.5 * doubts[0]
    assert kept[0][0, baseline.doubt_at(saturday)] == pytest.approx(doubts[1], rel=0.05)


def test_spread_of_long_ticks_is_that_of_short_ones_per_second() -> None:
    """Poisson counts: 15-minute ticks teach the spread that 5-second ticks will show."""
    random = np.random.default_rng(5)
    kept = state()
    for k in range(400):
        learn(random.poisson(20.0 * 900) / 900, MONDAY_S + k, kept)
    expected, scale = np.zeros(1), np.zeros(1)
    baseline.expect(ROW, np.array([20.0]), NONE, NONE, MONDAY_S + 400, 5.0, *kept, expected, scale)
    assert scale[0] == pytest.approx(math.sqrt(20.0 / 5.0), rel=0.35)


def test_mask_keeps_the_baseline_but_not_the_observations() -> None:
    kept = state()
    for k in range(50):
        learn(10.0, MONDAY_S + k * 5, kept, tick_s=5.0)
    before = kept[0].copy()
    assert learn(1000.0, MONDAY_S + 250, kept, mask=0, tick_s=5.0) == 0
    for column in (baseline.LEVEL, baseline.LOCAL, baseline.MEAN, baseline.SPREAD, baseline.SEEN):
        assert kept[0][0, column] == before[0, column]
    learn(0.0, MONDAY_S + 255, kept, mask=0, tick_s=5.0)
    assert kept[0][0, baseline.ZERO_RUN] == 1.0


def test_the_silence_of_a_fault_is_not_learned_as_normal() -> None:
    kept = state()
    for k in range(100):
        learn(10.0, MONDAY_S + k * 5, kept, tick_s=5.0)
    for k in range(100, 400):
        learn(0.0, MONDAY_S + k * 5, kept, mask=0, tick_s=5.0)
    learn(10.0, MONDAY_S + 2000, kept, tick_s=5.0)
    assert kept[0][0, baseline.ZERO_RUN_MAX] <= 1.0
    assert kept[0][0, baseline.ZERO_RUN] == 0.0


def test_lost_exports_widen_and_nearly_all_lost_proves_nothing() -> None:
    kept = state()
    for k in range(200):
        learn(100.0 + k % 7, MONDAY_S + k * 900, kept)
    at = MONDAY_S + 200 * 900
    plain = expect(100.0, at, kept)[1]
    assert expect(100.0, at, kept, lost=0.3)[1] > 1.15 * plain
    assert expect(100.0, at, kept, moved=0.3)[1] > 1.15 * plain
    assert expect(100.0, at, kept, lost=0.95)[1] == math.inf


def test_wrong_lengths_write_nothing() -> None:
    kept = state()
    expected, scale = np.ones(2), np.ones(2)
    two = np.zeros(2)
    assert baseline.expect(ROW, two, NONE, NONE, 0, 5.0, *kept, expected, scale) == -1
    assert expected.tolist() == [1.0, 1.0]
    units, pool = np.zeros((1, calibration.STATE), np.float32), np.zeros(4)
    bits = np.ones(1, np.uint8)
    assert calibration.learn(ROW, two, two, two, math.inf, bits, 5.0, units, pool) == -1
    assert not units.any()


def test_row_outside_the_state_is_left_alone() -> None:
    kept = state()
    far = np.array([7], np.int64)
    expected, scale = np.ones(1), np.ones(1)
    baseline.expect(far, np.ones(1), NONE, NONE, 0, 5.0, *kept, expected, scale)
    assert (expected[0], scale[0]) == (0.0, 0.0)


@pytest.mark.parametrize(("unit", "p"), [(0.0, 1.0), (0.5, 0.1), (1.0, 0.01), (2.0, 0.01 / 2**5)])
def test_surprise_is_minus_log_p(unit: float, p: float) -> None:
    assert calibration._surprise(unit, 5.0) == pytest.approx(-math.log(p), rel=1e-3)


def test_surprise_is_ordered_at_the_top() -> None:
    values = [calibration._surprise(10.0**k, 5.0) for k in range(0, 9)]
    assert values == sorted(set(values))


def test_rounding_keeps_twenty_bits() -> None:
    assert calibration._round20(1.0 / 3.0) == pytest.approx(1.0 / 3.0, rel=2**-20)
    assert calibration._round20(1.0 / 3.0) == calibration._round20(1.0 / 3.0 * (1 + 2**-40))
    assert calibration._round20(0.0) == 0.0
    assert math.isinf(calibration._round20(math.inf))


def test_tail_index_follows_the_pool_within_its_bounds() -> None:
    assert calibration._tail(np.zeros(4), 0) == 5.0
    light = np.array([5000.0, 5000.0 / 9.0, 5000.0, 1.0])
    assert calibration._tail(light, 0) == pytest.approx(8.9, abs=0.1)
    assert calibration._tail(light, 1) == calibration.TAIL_MOST
    assert calibration._tail(np.array([5000.0, 1e6, 0, 0]), 0) == calibration.TAIL_LEAST


def test_controller_finds_one_in_a_hundred() -> None:
    random = np.random.default_rng(3)
    units, pool = np.zeros((1, calibration.STATE), np.float32), np.zeros(4)
    draws = random.standard_normal(40_000)
    bits = np.ones(1, np.uint8)
    for draw in draws:
        calibration.learn(
            ROW,
            np.array([100.0 + draw]),
            np.array([100.0]),
            np.ones(1),
            math.inf,
            bits,
            5.0,
            units,
            pool,
        )
    unit = math.exp(float(units[0, calibration.UP])) * calibration.MARGIN
    assert float((draws > unit).mean()) == pytest.approx(0.01, rel=0.35)


def test_cumulative_sum_forgets_when_all_is_well() -> None:
    total = 40.0
    for _ in range(3):
        total = calibration._advance(total, 0.5)
    assert math.exp(-calibration.OMEGA * total) > 1e-5


def judged_and_learned(n: int) -> list[bytes]:
    """Return every bit that both kernels write for `n` series, most of them as usual, plainly in Python."""
    random = np.random.default_rng(3)
    units, pool = np.zeros((n, calibration.STATE), np.float32), np.array([9.0, 2.0, 5.0, 1.0])
    units[:, calibration.UP], units[:, calibration.DOWN] = random.uniform(0.2, 2.0, (2, n))
    units[:, calibration.AGE] = random.choice([0, 10, 500, 5000], n)
    units[:, calibration.LIVED] = 5.0 * units[:, calibration.AGE]
    for side in (calibration.SUM_UP, calibration.SUM_DOWN):
        units[:, side] = random.choice([0.0, 0.0, 0.0, 1e-3, 4.0], n)
    units[:, calibration.RUN] = random.choice([0.0, 1.0, calibration.BURST], n)
    units[:, calibration.BURSTS] = random.choice([0.0, 0.5, 3.0], n)
    expected, scale = random.uniform(0.0, 40.0, n), random.choice([0.0, 1.0, 3.0, np.inf], n)
    side = np.where(random.random(n) < 0.5, calibration.UP, calibration.DOWN)
    far = np.exp(units[np.arange(n), side].astype(float)) * np.where(np.isinf(scale), 1.0, scale)
    share = calibration.DRIFT / calibration.AT_UNIT  # where the short way ends
    far *= random.choice([0.0, 0.3, share * (1 - 1e-9), share, share * (1 + 1e-9), 1.0, 9.0], n)
    value = expected + np.where(side == calibration.UP, far, -far)
    value[random.random(n) < 0.02] = np.nan
    rows, mask = np.arange(n), (random.random(n) < 0.8).astype(np.uint8)
    out = [np.zeros(n, np.float32) for _ in range(4)] + [np.zeros(n), np.zeros(n, np.float32)]
    judge, learned = calibration.judge.function, calibration.learn.function
    judge(rows, value, expected, scale, 0.5, 60.0, 300.0, units, pool, *out)
    learned(rows, value, expected, scale, 0.5, mask, 5.0, units, pool)
    return [array.tobytes() for array in (*out, units, pool)]


def test_a_usual_tick_is_judged_and_learned_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    short: list[bool] = []
    usual = calibration._usual

    def noted(*given: object) -> bool:
        short.append(usual(*given))
        return short[-1]

    monkeypatch.setattr(calibration, "_usual", noted)
    made = judged_and_learned(3000)
    assert 0.1 < np.mean(short) < 0.6
    monkeypatch.setattr(calibration, "_usual", lambda state, i, unit: False)
    assert judged_and_learned(3000) == made
