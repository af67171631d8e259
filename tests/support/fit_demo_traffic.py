"""The figures that tocsin/demo/traffic.py was fitted to, from public matrices and samples.

Run `python -m tests.support.fit_demo_traffic FOLDER` with the folder that holds `datasets`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

STEP_SECONDS = {"abilene": 300, "geant": 900}


def matrices(folder: Path, name: str) -> tuple[np.ndarray[Any, Any], pd.DataFrame]:
    """Return (seconds since 1970, demands by `from>to`)."""
    table = pq.read_table(folder / "datasets" / "traffic-matrix" / f"{name}.parquet").to_pandas()
    return table["timestamp"].to_numpy(), table.drop(columns="timestamp")


def _total(seconds: np.ndarray[Any, Any], demands: pd.DataFrame) -> Any:
    values = demands.to_numpy(float)
    complete = np.isfinite(values).mean(axis=1) > 0.8
    total = np.where(complete, np.nansum(values, axis=1), np.nan)
    workday = (seconds // 86400 + 3) % 7 < 5
    return total, workday


def day(folder: Path, name: str) -> dict[str, float]:
    """Return amplitude and hour of a peak of the first two harmonics of a workday, and its swing."""
    seconds, demands = matrices(folder, name)
    total, workday = _total(seconds, demands)
    use = workday & np.isfinite(total)
    angle = 2 * np.pi * (seconds[use] % 86400) / 86400
    shape = total[use] / total[use].mean()
    design = np.stack(
        [np.ones_like(angle), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], 1
    )
    c = np.linalg.lstsq(design, shape, rcond=None)[0]
    hour = (seconds[use] % 86400) // 3600
    by_hour = [shape[hour == h].mean() for h in range(24)]
    return {
        "amplitude_1": float(np.hypot(c[1], c[2]) / c[0]),
        "peak_1": float(np.arctan2(c[2], c[1]) / (2 * np.pi) * 24 % 24),
        "amplitude_2": float(np.hypot(c[3], c[4]) / c[0]),
        "peak_2": float(np.arctan2(c[4], c[3]) / (4 * np.pi) * 24 % 12),
        "swing": float(max(by_hour) / min(by_hour)),
    }


def weekend(folder: Path, name: str) -> float:
    """Return the volume of a weekend's day over that of a workday."""
    seconds, demands = matrices(folder, name)
    total, workday = _total(seconds, demands)
    return float(np.nanmean(total[~workday]) / np.nanmean(total[workday]))


def gravity_residual(folder: Path, name: str) -> float:
    """Return the deviation of log(matrix / gravity model), weighted by volume."""
    _, demands = matrices(folder, name)
    pairs = [column.split(">") for column in demands.columns]
    nodes = sorted({node for pair in pairs for node in pair})
    matrix = np.full((len(nodes), len(nodes)), np.nan)
    for (a, b), volume in zip(pairs, demands.mean(), strict=True):
        if a != b and volume > 0:
            matrix[nodes.index(a), nodes.index(b)] = volume
    gravity = np.outer(np.nansum(matrix, 1), np.nansum(matrix, 0)) / np.nansum(matrix)
    residual = np.log(matrix / gravity)
    known = np.isfinite(residual)
    mean = np.average(residual[known], weights=matrix[known])
    return float(np.sqrt(np.average((residual[known] - mean) ** 2, weights=matrix[known])))


def wander(folder: Path, name: str) -> float:
    """Return the deviation of log egress of a node around its two-hour mean; the median node."""
    _, demands = matrices(folder, name)
    window = 7200 // STEP_SECONDS[name] + 1
    found = []
    for node in sorted({column.split(">")[0] for column in demands.columns}):
        own = demands[[c for c in demands.columns if c.startswith(node + ">")]]
        egress = np.nansum(own.to_numpy(float), axis=1)
        log = pd.Series(np.log(np.where(egress > 0, egress, np.nan)))
        around = log - log.rolling(window, center=True, min_periods=window // 2).mean()
        found.append(around.std() * np.sqrt(window / (window - 1)))
    return float(np.nanmedian(found))


def subscriber(folder: Path) -> dict[str, float]:
    """Return octets a packet and TCP's share of octets at one busy address."""
    table = pq.read_table(folder / "datasets" / "cesnet-sample" / "ip_103_1h.parquet").to_pandas()
    return {
        "octets_a_packet": float(table.n_bytes.sum() / table.n_packets.sum()),
        "tcp_share": float(table.tcp_udp_ratio_bytes.mean()),
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    for name in STEP_SECONDS:
        figures = {key: round(value, 3) for key, value in day(folder, name).items()}
        _say(f"{name}: day {figures}")
        _say(
            f"{name}: pairs {gravity_residual(folder, name):.2f}, wander {wander(folder, name):.3f}"
        )
    for name in ("abilene", "germany50"):
        _say(f"{name}: weekend {weekend(folder, name):.2f}")
    _say(f"cesnet: { ({key: round(value, 3) for key, value in subscriber(folder).items()}) }")


if __name__ == "__main__":
    main()
