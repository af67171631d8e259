"""`tocsin forecast` on a file: rows, track record, breach and exit code."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from telemetry.errors import ConfigError
from tocsin.cli import cli
from tocsin.cli.forecast import ROWS_PAGE, STEPS_PAGE, _one, pages


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["forecast", *map(str, arguments)])


@pytest.fixture
def leak(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    rows = 600
    value = 50.0 + 0.05 * np.arange(rows) + random.normal(0, 0.2, rows)
    lines = [f"{1_790_553_600 + 300 * n},{one:.4f}" for n, one in enumerate(value)]
    path = tmp_path / "leak.csv"
    path.write_text("\n".join(["timestamp,value", *lines]))
    return path


def test_a_breach_is_told_with_its_probability(leak: Path) -> None:
    done = run(leak, "--file", "--horizon", "2h", "--above", 80.3, "-o", "json")
    assert done.exit_code == 3, done.output
    (one,) = json.loads(done.output)
    assert one["shown"]
    assert len(one["forecast"]) == 24
    assert one["breach"]["probability"] > 0.6
    assert 0 < one["breach"]["seconds_until_likely"] <= 7200
    assert one["track_record"]["mean_error"] <= one["track_record"]["mean_error_seasonal_naive"]


def test_a_table_for_people(leak: Path) -> None:
    done = run(leak, "--file", "--above", 1000)
    assert done.exit_code == 0, done.output
    assert "seasonal naive" in done.output
    assert "1000 is passed with probability 0.00" in done.output


def test_too_little_history_is_said(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("timestamp,value\n0,1\n300,2\n")
    done = run(tmp_path / "short.csv", "--file")
    assert done.exit_code == 0
    assert "no forecast" in done.output
    assert "too few" in done.output


def test_mistakes(leak: Path) -> None:
    assert run(leak, "--file", "--above", 1, "--below", 2).exit_code == 2
    done = run(leak, "--file", "--by", "site")
    assert (done.exit_code, "not both" in done.output) == (2, True)
    for limit in ("nan", "inf"):
        done = run(leak, "--file", "--above", limit)
        assert (done.exit_code, "no finite number" in done.output) == (2, True)
    assert "no such file" in str(run("nowhere.csv", "--file").exception)
    assert "is no time" in str(run(leak, "--file", "--horizon", "soon").exception)


def test_times_that_are_made_up_are_said(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("value\n" + "\n".join(str(n % 7) for n in range(600)))
    done = run(tmp_path / "one.csv", "--file", "--horizon", "10m")
    assert done.exit_code == 0, done.output
    assert "rows are taken as 60 s apart" in done.output


def test_an_absurd_value_is_missing(leak: Path) -> None:
    made = []
    for value in ("", "1e300"):
        rows = leak.read_text().splitlines()
        rows[200] = rows[200].split(",")[0] + "," + value
        leak.write_text("\n".join(rows))
        done = run(leak, "--file", "-o", "json")
        assert done.exit_code == 0, done.output
        made.append(json.loads(done.output))
    assert made[0] == made[1]


def test_values_that_come_each_hour_are_forecast_hour_by_hour(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = [f"{3600 * n},{random.normal(100.0, 5.0):.3f}" for n in range(400)]
    (tmp_path / "hours.csv").write_text("\n".join(["timestamp,value", *lines]))
    (one,) = json.loads(run(tmp_path / "hours.csv", "--file", "-o", "json").output)
    assert [row["time_s"] for row in one["forecast"]] == [400 * 3600, 401 * 3600]


def test_a_series_that_ended_is_not_forecast_as_if_it_went_on() -> None:
    points = [(300 * n, float(n % 7)) for n in range(600)]
    end_s = 300 * 600
    assert "forecast" in _one("x", points, 300, 24, 1e9, None, now_s=end_s + 600)
    said = _one("x", points, 300, 24, 1e9, None, now_s=end_s + 86_400)
    assert not said["shown"]
    assert "its last value is of 1970-01-03 02:00Z" in said["why"]


def test_a_history_of_many_series_is_read_to_its_end() -> None:
    stored = [{"time_s": 300 * t, "entity": e} for t in range(50) for e in range(30_000)]

    def read(since_ns: int, until_ns: int) -> list[dict[str, Any]]:
        found = [row for row in stored if since_ns <= row["time_s"] * 10**9 < until_ns]
        return found[:ROWS_PAGE]

    end_ns = 300 * 50 * 10**9
    got = [row for page in pages(read, 0, end_ns, step_s=300, what="x") for row in page]
    assert got == stored
    assert sum(map(len, pages(read, 0, end_ns, step_s=300, what="x", most=math.inf))) == len(stored)
    with pytest.raises(ConfigError, match="more than 1000000 values"):
        list(pages(read, 0, end_ns, step_s=300, what="x", most=1_000_000))
    with pytest.raises(ConfigError, match="no series matches"):
        list(pages(lambda _, __: [], 0, end_ns, step_s=300, what="x"))
    with pytest.raises(ConfigError, match="fewer series"):
        list(pages(lambda _, __: [{"time_s": 0}] * ROWS_PAGE, 0, end_ns, step_s=300, what="x"))


def test_a_history_of_many_steps_is_asked_for_as_much_as_it_answers_at_once() -> None:
    from history.reader import POINTS_MAX

    assert STEPS_PAGE <= POINTS_MAX
    asked, got = [], []

    def read(since_ns: int, until_ns: int) -> list[dict[str, Any]]:
        asked.append((until_ns - since_ns) / 60e9)
        first, end = (-(-ns // (60 * 10**9)) for ns in (since_ns, until_ns))
        return [{"time_s": 60 * n} for n in range(first, end)]

    until_ns = 14 * 86_400 * 10**9
    for page in pages(read, 7 * 10**9, until_ns, step_s=60, what="x"):
        got += [row["time_s"] for row in page]
    assert got == list(range(60, 14 * 86_400, 60))
    assert max(asked) <= POINTS_MAX
