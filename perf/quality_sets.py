"""Labelled series: ours generated, and the sets of `shared/datasets` where that folder is there.

Only the parts that the folder's MANIFEST.tsv marks for tuning lie in it. Nothing of it is packed.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHARED = Path(__file__).parents[2] / "shared" / "datasets"
START_S = 1_700_006_400  # a midnight


@dataclass(frozen=True, slots=True)
class Labelled:
    """One series; a label of 1 marks rows of an event."""

    name: str
    time_s: NDArray[np.int64]
    value: NDArray[np.float64]
    label: NDArray[np.int8]
    windows: list[tuple[int, int]] | None = None  # NAB: first and last second; [] = all is well
    truth: tuple[int, int, int] | None = None  # UCR: end of the learning part, first and last row


def kpis(folder: str, every: int) -> Iterator[Labelled]:
    """Yield every n-th series of a folder of parquet files."""
    import pyarrow.parquet as parquet

    for path in sorted((SHARED / folder).glob("*.parquet"))[::every]:
        table = parquet.read_table(path)
        time_s, value, label = (table[name].to_numpy() for name in ("timestamp", "value", "label"))
        yield Labelled(
            path.stem, time_s.astype(np.int64), value.astype(float), label.astype(np.int8)
        )


def nab_like(every: int) -> Iterator[Labelled]:
    """Yield the mixed series with their windows."""
    root = SHARED / "proxies" / "nab-like"
    windows = json.loads((root / "combined_windows.json").read_text())
    for name in sorted(windows)[::every]:
        time_s, value = _read(root / "data" / f"{name.removesuffix('.csv')}.csv.gz")
        spans = [(_second(first), _second(last)) for first, last in windows[name]]
        label = np.zeros(len(value), np.int8)
        for first, last in spans:
            label[(time_s >= first) & (time_s <= last)] = 1
        yield Labelled(name, time_s, value, label, spans)


def ucr_like(every: int) -> Iterator[Labelled]:
    """Yield the series with one odd shape each."""
    root = SHARED / "proxies" / "ucr-like"
    truth = json.loads((root / "ucr.json").read_text())
    for name in sorted(truth)[::every]:
        time_s, value = _read(root / "data" / f"{name}.csv.gz")
        end, first, last = truth[name]
        label = np.zeros(len(value), np.int8)
        label[first : last + 1] = 1
        yield Labelled(name, time_s, value, label, None, (end, first, last))


def generated(count: int = 24, days: int = 14, step_s: int = 300) -> Iterator[Labelled]:
    """Yield daily waves, counts and walks with spikes, dips, steps, ramps and stuck values."""
    rows = days * 86400 // step_s
    time_s = START_S + step_s * np.arange(rows)
    for seed in range(count):
        random = np.random.default_rng([7, seed])
        day = np.sin(2 * np.pi * (time_s / 86400.0 + random.uniform()))
        level = 10.0 ** random.uniform(0, 5)
        kind = seed % 4
        if kind == 0:
            value = level * (1 + 0.4 * day + random.normal(0, 0.03, rows))
        elif kind == 1:
            value = random.poisson(30 * (1 + 0.6 * day)).astype(float)
        elif kind == 2:
            value = level * np.exp(0.4 * random.standard_normal(rows))
        else:
            value = level + np.cumsum(random.normal(0, level * 0.002, rows))
        label = np.zeros(rows, np.int8)
        usual = float(np.std(np.diff(value))) + 1e-9
        for at in np.sort(random.choice(np.arange(3 * 288, rows - 200, 150), 6, replace=False)):
            length = int(random.integers(2, 40))
            span, size = slice(at, at + length), random.uniform(5, 12) * usual
            fault = random.integers(0, 4)
            if fault == 0:
                span = slice(at, at + min(length, 3))
                value[span] += size * 2
            elif fault == 1:
                value[span] -= size
            elif fault == 2:
                value[span] += np.linspace(0.2, 1.0, length) * size
            else:
                value[span] = value[at] + size
            label[span] = 1
        yield Labelled(f"generated-{seed:02d}", time_s, value, label)


NOISE = ("normal", "Poisson", "t3", "lognormal", "AR", "trended counts")


def clean(count: int, days: int = 7, step_s: int = 60) -> dict[str, list[NDArray[np.float64]]]:
    """Return series of noise by kind, `count` of each, without a single fault."""
    return {kind: list(noise(kind, count, days, step_s)) for kind in NOISE}


def noise(
    kind: str, count: int, days: int = 7, step_s: int = 60, *, seed: int = 11
) -> Iterator[NDArray[np.float64]]:
    """Yield series of one kind of noise."""
    rows = days * 86400 // step_s
    time = np.arange(rows)
    day = 1.0 + 0.6 * np.sin(2 * np.pi * time * step_s / 86400.0)
    random = np.random.default_rng([seed, NOISE.index(kind)])
    for _ in range(count):
        yield _noise(kind, random, rows, day, time)


def real_clean(count: int, days: int = 7) -> Iterator[Labelled]:
    """Yield week-long cuts of the KPIs sampled each minute, without what is labelled and half an hour around."""
    whole = [*kpis("wsd", 1), *kpis("aiops-kpi", 1)]
    random, rows = np.random.default_rng(13), days * 1440
    usable = []
    for one in whole:
        struck = np.convolve(one.label, np.ones(61), "same") > 0.5
        if np.median(np.diff(one.time_s[:200])) == 60 and (~struck).sum() >= rows:
            usable.append((one, np.flatnonzero(~struck)))
    for n in range(count):
        one, kept = usable[n % len(usable)]
        first = int(random.integers(0, len(kept) - rows + 1))
        cut = kept[first : first + rows]
        yield Labelled(f"{one.name}+{first}", one.time_s[cut], one.value[cut], one.label[cut])


def _noise(
    kind: str,
    random: np.random.Generator,
    rows: int,
    day: NDArray[np.float64],
    time: NDArray[np.int64],
) -> NDArray[np.float64]:
    if kind == "normal":
        return 100.0 + 10.0 * random.standard_normal(rows)
    if kind == "Poisson":
        return random.poisson(20.0, rows).astype(float)
    if kind == "t3":
        return 100.0 + 10.0 * random.standard_t(3, rows)
    if kind == "lognormal":
        return np.exp(random.normal(3.0, 1.0, rows))
    if kind == "AR":
        # An autoregression of .9 as a sum that fades: 200 terms are all of it.
        shocks = random.standard_normal(rows + 200)
        return 100.0 + np.convolve(shocks, 0.9 ** np.arange(200))[200 : 200 + rows]
    return random.poisson(30.0 * day * (1.0 + 0.3 * time / rows)).astype(float)


def _read(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    times = [row["timestamp"] for row in rows]
    return (
        np.array([_second(text) for text in times], np.int64),
        np.array([float(row["value"] or "nan") for row in rows]),
    )


def _second(text: str) -> int:
    if "-" in text or ":" in text:
        return int(np.datetime64(text.strip().replace(" ", "T"), "s").astype(np.int64))
    return int(float(text))
