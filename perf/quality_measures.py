"""Measures of detection quality: events at a budget of false alarms, VUS-PR, NAB, UCR.

Numpy only. NAB's published corpus figures are reproduced to 1e-6; VUS-PR is its authors' published
definition to four digits. tests/unit/perf/test_quality.py holds each against its definition.
"""

import numpy as np

PROFILES = {  # tp, fp, fn weights of the published application profiles
    "standard": (1.0, 0.11, 1.0),
    "low FP": (1.0, 0.22, 1.0),
    "low FN": (1.0, 0.11, 2.0),
}
_SQUASH_AT_START = 2.0 / (1.0 + np.exp(-5.0)) - 1.0  # value at the window's first row


def fill_nan(score):
    """A missing score counts as the lowest one."""
    s = np.asarray(score, float).copy()
    bad = ~np.isfinite(s)
    if bad.any():
        good = s[~bad]
        s[np.isposinf(s)] = good.max() if good.size else 0.0
        s[~np.isfinite(s)] = good.min() if good.size else 0.0
    return s


def segments(label, gap=0):
    """Inclusive (start, end) index pairs of runs of label > 0; runs <= gap apart join."""
    on = np.asarray(label) > 0
    edge = np.diff(np.concatenate(([0], on.astype(np.int8), [0])))
    segs = list(
        zip(
            np.flatnonzero(edge == 1).tolist(),
            (np.flatnonzero(edge == -1) - 1).tolist(),
            strict=False,
        )
    )
    if gap:
        joined = []
        for s, e in segs:
            if joined and s - joined[-1][1] - 1 <= gap:
                joined[-1] = (joined[-1][0], e)
            else:
                joined.append((s, e))
        segs = joined
    return segs


def probation(n, share=0.15):
    """Leading rows that are never scored: 15 % of the file, at most 15 % of 5000."""
    return int(min(np.floor(share * n), share * 5000))


def squash(y):
    """2 * sigmoid(-5y) - 1 for a relative position y; beyond 3 widths flat -1."""
    y = np.asarray(y, float)
    out = 2.0 / (1.0 + np.exp(5.0 * np.clip(y, -50, 50))) - 1.0
    return np.where(y > 3.0, -1.0, out)


def nab_point_values(times, windows):
    """Per row: window number (-1 none, -2 probation) and its value before weights.

    Inside a window the value is the sigmoid of the position (-1 at the first row up to
    just under 0 at the last) over its value at -1; outside it is the sigmoid of the
    distance to the last window's right edge in window widths, and -1 before any window.
    """
    n = len(times)
    which = np.full(n, -1, np.int64)
    value = np.full(n, -1.0)
    spans = []
    for k, (a, b) in enumerate(windows):
        i = int(np.searchsorted(times, a, "left"))
        j = int(np.searchsorted(times, b, "right")) - 1
        spans.append((i, j))
        which[i : j + 1] = k
        width = float(j - i + 1)
        rows = np.arange(i, j + 1)
        value[i : j + 1] = squash(-(j - rows + 1) / width) / _SQUASH_AT_START
    for k, (i, j) in enumerate(spans):
        stop = spans[k + 1][0] if k + 1 < len(spans) else n
        rows = np.arange(j + 1, stop)
        span = max(float(j - i), 1.0)
        value[j + 1 : stop] = squash((rows - j) / span)
    which[: probation(n)] = -2
    return which, value


def nab_raw(which, value, n_windows, alert, weights):
    """Raw score of one file: best alert per window, -fn per empty one, all false ones."""
    tp, fp, fn = weights
    on = np.asarray(alert) > 0
    total = fp * value[on & (which == -1)].sum()
    for k in range(n_windows):
        hit = on & (which == k)
        total += tp * value[hit].max() if hit.any() else -fn
    return float(total)


def nab_normal(raw, n_windows, weights):
    """0 for a silent detector, 100 for one that alerts on every window's first row."""
    tp, _, fn = weights
    null = -fn * n_windows
    return 100.0 * (raw - null) / (tp * n_windows - null)


def outside_mask(n, segs, tol):
    out = np.ones(n, bool)
    for s, e in segs:
        out[max(0, s - tol) : e + tol + 1] = False
    return out


def event_parts(times, label, score, tol=0, gap=0, skip=0):
    """What a threshold sweep needs of one series.

    At threshold h an alert run starts at i when score[i-1] < h <= score[i].  Returns
    lows and highs of those intervals for starts outside the (widened) segments, all
    scores outside, each event's highest score, and the length in days.
    """
    n = len(score)
    s = np.asarray(score, float)[skip:]
    label = np.asarray(label)[skip:]
    times = np.asarray(times)[skip:]
    segs = segments(label, gap)
    out = outside_mask(n - skip, segs, tol)
    prev = np.concatenate(([-np.inf], s[:-1]))
    rise = out & (s > prev)
    peaks = np.array([s[a : b + 1].max() for a, b in segs]) if segs else np.zeros(0)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    days = (float(times[-1] - times[0]) + step) / 86400.0 if len(times) else 0.0
    return prev[rise], s[rise], s[out], peaks, days


def sweep_events(parts, budgets, max_duty=0.02):
    """Recall at the lowest common threshold within each budget of false alarms a day.

    Going down from the highest score, stop at the first threshold where false alarms per
    series-day exceed the budget or the time in alarm outside events exceeds max_duty (so
    a score that stays high for days cannot pass as one false alarm).
    """
    low = np.concatenate([p[0] for p in parts])
    high = np.concatenate([p[1] for p in parts])
    outs = np.concatenate([p[2] for p in parts])
    peaks = np.sort(np.concatenate([p[3] for p in parts]))
    days = sum(p[4] for p in parts)
    high_s, low_s, outs_s = np.sort(high), np.sort(low), np.sort(outs)
    cand = np.unique(np.concatenate([high, peaks]))[::-1]
    # runs open at h: highs >= h less lows >= h
    false = (high_s.size - np.searchsorted(high_s, cand, "left")) - (
        low_s.size - np.searchsorted(low_s, cand, "left")
    )
    duty = (outs_s.size - np.searchsorted(outs_s, cand, "left")) / max(outs_s.size, 1)
    hits = peaks.size - np.searchsorted(peaks, cand, "left")
    res = {}
    for b in budgets:
        bad = np.flatnonzero((false / max(days, 1e-9) > b) | (duty > max_duty))
        stop = int(bad[0]) if bad.size else cand.size
        if stop == 0:
            res[str(b)] = {"recall": 0.0, "threshold": None, "fa_per_day": 0.0, "duty": 0.0}
            continue
        j = stop - 1
        res[str(b)] = {
            "recall": round(float(hits[j]) / max(peaks.size, 1), 4),
            "threshold": float(cand[j]),
            "fa_per_day": round(float(false[j]) / max(days, 1e-9), 4),
            "duty": round(float(duty[j]), 5),
        }
    return res, int(peaks.size), float(days)


def alert_events(times, label, alert, tol=0, gap=0, skip=0, rearm_s=3600):
    """Fixed alert column: hits, events, false alarms, hit delays in seconds.

    A run that stays on outside events counts once more for every rearm_s spent there.
    """
    a = np.asarray(alert)[skip:] > 0
    label = np.asarray(label)[skip:]
    times = np.asarray(times)[skip:]
    segs = segments(label, gap)
    out = outside_mask(len(a), segs, tol)
    false = 0
    for i, j in segments(a & out):
        started_here = i == 0 or not a[i - 1]
        false += int(started_here) + int((times[j] - times[i]) // rearm_s)
    hits, delay = 0, []
    for s, e in segs:
        on = np.flatnonzero(a[s : e + 1])
        if on.size:
            hits += 1
            delay.append(int(times[s + on[0]] - times[s]))
    return hits, len(segs), false, delay


def soft_label(label, width):
    """Continuous labels: + sqrt(1 - d/width) on width//2 rows each side, capped at 1."""
    y = (np.asarray(label) > 0).astype(float)
    half = width // 2
    if half < 1:
        return y
    n = len(y)
    slope = np.sqrt(1.0 - np.arange(1, half + 1) / width)
    out = y.copy()
    for s, e in segments(y):
        r = slope[: max(0, min(half, n - 1 - e))]
        out[e + 1 : e + 1 + r.size] += r
        left = slope[: max(0, min(half, s))][::-1]
        out[s - left.size : s] += left
    return np.minimum(out, 1.0)


def buffered(segs, half, n):
    """Segments widened by half rows; those that overlap are one region."""
    out = []
    for s, e in segs:
        if out and out[-1][1] >= s - half:
            out[-1] = (out[-1][0], min(e + half, n - 1))
        else:
            out.append((max(s - half, 0), min(e + half, n - 1)))
    return out


def range_auc_pr(label, score, width, cuts, paper=False):
    """Range-AUC-PR for one buffer width, slow and plain (the check of vus_pr).

    Per threshold: TP = sum of soft labels of predicted rows, precision = TP / rows
    predicted, recall = min(TP / P, 1) * share of buffered regions touched; area by right
    steps over recall.  Paper: P = (hard + all soft) / 2.  The authors' published code
    counts in P only the predicted part of the buffers; their tables come from the code.
    """
    soft = soft_label(label, width)
    hard = (np.asarray(label) > 0).astype(float)
    regions = buffered(segments(hard), width // 2, len(hard))
    area, before = 0.0, 0.0
    for h in cuts:
        pred = score >= h
        tp = float(soft[pred].sum())
        ramp = soft - hard
        p = hard.sum() + (ramp.sum() if paper else ramp[pred].sum()) / 2.0
        exist = sum(bool(pred[s : e + 1].any()) for s, e in regions) / len(regions)
        recall = min(tp / p, 1.0) * exist
        area += (recall - before) * tp / max(int(pred.sum()), 1)
        before = recall
    return float(area)


def cut_values(score, count=250):
    """Distinct thresholds at evenly spaced ranks, high to low."""
    s = np.sort(np.asarray(score, float))[::-1]
    return np.unique(s[np.linspace(0, len(s) - 1, min(count, len(s))).astype(int)])[::-1]


def vus_pr(label, score, max_width, count=250, paper=False):
    """Mean of range_auc_pr over widths 0..max_width, computed incrementally.

    Each row gets the first threshold that predicts it; only buffer rows change with the
    width, so a width costs in proportion to the buffers and not to the series.
    """
    y = np.asarray(label) > 0
    n = len(y)
    if not y.any():
        return float("nan")
    score = np.asarray(score, float)
    cuts = cut_values(score, count)
    m = len(cuts)
    slot = np.searchsorted(-cuts, -score, "left")  # first threshold at which a row is on
    n_pred = np.cumsum(np.bincount(slot, minlength=m + 1)[:m]).astype(float)
    segs = segments(y)
    hard_slot = np.bincount(slot[y], minlength=m + 1)[:m].astype(float)
    n_hard = float(y.sum())
    far = max_width // 2
    # every (row, distance to a segment edge) pair within reach, outside the segments
    at, gap = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for s, e in segs:
        right = np.arange(e + 1, min(n, e + far + 1))
        left = np.arange(max(0, s - far), s)
        at += [right, left]
        gap += [right - e, s - left]
    at, gap = np.concatenate(at), np.concatenate(gap)
    keep = ~y[at]
    rows, back = np.unique(at[keep], return_inverse=True)
    gap = gap[keep]
    slot_rows = slot[rows]
    vals = []
    cache_half, touched, near = -1, None, None
    for width in range(0, max_width + 1):
        half = width // 2
        if half != cache_half:
            first = np.array([slot[a : b + 1].min() for a, b in buffered(segs, half, n)])
            touched = np.cumsum(np.bincount(first, minlength=m + 1)[:m]) / len(first)
            near = gap <= half
            near_gap, near_back = gap[near], back[near]
            cache_half = half
        if half and len(rows):
            w = np.minimum(
                np.bincount(
                    near_back, weights=np.sqrt(1.0 - near_gap / width), minlength=len(rows)
                ),
                1.0,
            )
            ramp = np.cumsum(np.bincount(slot_rows, weights=w, minlength=m + 1)[:m])
            p = n_hard + (w.sum() if paper else ramp) / 2.0
        else:
            ramp, p = 0.0, n_hard
        tp = np.cumsum(hard_slot) + ramp
        recall = np.minimum(tp / p, 1.0) * touched
        vals.append(
            float((np.diff(np.concatenate(([0.0], recall))) * tp / np.maximum(n_pred, 1)).sum())
        )
    return float(np.mean(vals))


def period_guess(value, lo=3, hi=300, fallback=125, rows=20000):
    """Lag of the highest interior peak of the autocorrelation in lo..hi."""
    x = fill_nan(value)[:rows]
    x = x - x.mean()
    if len(x) < 2 * hi or not x.any():
        return min(fallback, max(1, len(x) // 4))
    k = 1 << int(np.ceil(np.log2(2 * len(x))))
    f = np.fft.rfft(x, k)
    ac = np.fft.irfft(f * np.conj(f), k)[: hi + 2]
    peak = [i for i in range(lo + 1, hi + 1) if ac[i] > ac[i - 1] and ac[i] >= ac[i + 1]]
    return max(peak, key=lambda i: ac[i]) if peak else fallback


def ucr_hit(score, train_end, begin, end):
    """(within 100 rows, within max(100, length) rows) of the one anomaly."""
    loc = train_end + int(np.argmax(score[train_end:]))
    wide = max(100, end - begin + 1)
    return begin - 100 <= loc <= end + 100, begin - wide <= loc <= end + wide, loc
