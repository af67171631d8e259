"""`tocsin score`: files in, files out, mistakes in one sentence."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tocsin.cli import cli
from tocsin.files.series import parse_times

HEAD = ["timestamp", "value", "expected", "lower", "upper", "score", "alert"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["score", *map(str, arguments)])


def lines(rows: int = 600, *, label: bool = True) -> list[str]:
    random = np.random.default_rng(1)
    value = 50.0 + random.normal(0.0, 2.0, rows)
    value[500:503] += 60.0
    made = ["timestamp,value" + (",label" if label else "")]
    for n in range(rows):
        made.append(f"{1_700_000_000 + 60 * n},{value[n]:.3f}" + (",1" if label else ""))
    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_scored_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.csv").write_text("\n".join(lines()) + "\n")
    (folder / "deep" / "two.csv.gz").write_bytes(gzip.compress("\n".join(lines()).encode()))
    (folder / "notes.txt").write_text("not a series")
    done = run(folder, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    one, two = rows_of(tmp_path / "out/one.csv"), rows_of(tmp_path / "out/deep/two.csv")
    assert list(one[0]) == HEAD
    assert one == two
    assert [row["timestamp"] for row in one[:2]] == ["1700000000", "1700000060"]
    assert [n for n, row in enumerate(one) if row["alert"] == "1"] == [500]
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]
    assert set(kept) == {"one", "deep/two"}
    assert kept["one"]["sampling_seconds"] == 60.0
    assert kept["one"]["warm_up_end"]["row"] == 21
    assert kept["one"]["alerts"] == 1
    assert sum(kept["one"]["alerts_by_detector"].values()) == 1


def test_labels_are_never_read(tmp_path: Path) -> None:
    for name, label in (("with", True), ("without", False)):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines(label=label)) + "\n")
        run(tmp_path / f"{name}.csv", "--output", tmp_path / name)
    assert rows_of(tmp_path / "with/with.csv") == rows_of(tmp_path / "without/without.csv")


def test_many_columns_become_many_files(tmp_path: Path) -> None:
    head, *body = lines(label=False)
    text = [head.replace("value", "in") + ",out,name"] + [
        f"{line},{n},eth0" for n, line in enumerate(body)
    ]
    (tmp_path / "wide.csv").write_text("\n".join(text))
    done = run(tmp_path / "wide.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out/wide").iterdir()) == ["in.csv", "out.csv"]
    notes = json.loads((tmp_path / "out/summary.json").read_text())["series"]["wide/in"]["notes"]
    assert notes == ["column 'name' holds no number and is left out"]


def test_only_what_is_held_from_rows_before_is_said_to_be(tmp_path: Path) -> None:
    calm = lines(300)
    for n in range(12):
        spike = f"{1_700_000_000 + 60 * 300},{130 + 7.7 * n}"
        rest = f"{1_700_000_000 + 60 * 301},50"
        (tmp_path / "one.csv").write_text("\n".join([*calm, spike + ",1", rest + ",1"]))
        assert "is held from" not in run(tmp_path / "one.csv", "--explain", 301).output, n
    assert "is held from" in run(tmp_path / "one.csv", "--explain", 302).output


def test_a_row_is_explained(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("\n".join(lines()))
    done = run(tmp_path / "one.csv", "--explain", 501)
    assert done.exit_code == 0, done.output
    assert "ALERT" in done.output
    assert "forecast" in done.output
    assert "first day" in done.output
    calm = run(tmp_path / "one.csv", "--explain", 400)
    assert "no alert" in calm.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("timestamp,name\n1,a\n", "no column of numbers"),
    ],
)
def test_a_file_that_cannot_be_scored_is_named_and_the_others_are(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    (tmp_path / "good.csv").write_text("\n".join(lines()))
    done = run(tmp_path, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert f"bad.csv: {said}" in done.output
    assert (tmp_path / "out/good.csv").exists()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("\n".join(lines()))
    assert run(tmp_path / "one.csv").exit_code == 2
    assert "is a file" in str(run(tmp_path / "one.csv", "--output", tmp_path / "one.csv").exception)
    assert run(tmp_path, "--output", tmp_path / "o", "--false-alerts-per-day", "nan").exit_code == 2
    assert run(tmp_path / "one.csv", "--explain", 3, "--column", "nothing").exit_code == 2
    assert "no such file" in str(run(tmp_path / "none", "--output", tmp_path / "o").exception)
    assert "row 9999" in str(run(tmp_path / "one.csv", "--explain", 9999).exception)


def summary_of(output: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((output / "summary.json").read_text())[
        "series"
    ]
    return found


def test_an_input_is_never_written_over(tmp_path: Path) -> None:
    folder, text = tmp_path / "in", "\n".join(lines())
    folder.mkdir()
    (folder / "base.csv").write_text(text)
    assert "is the folder of the input" in str(run(folder, "--output", folder).exception)
    done = run(folder / "base.csv", "--output", folder)
    assert done.exit_code == 1
    assert "would be written over" in done.output
    (tmp_path / "base.csv").write_text(text)  # somebody's file that is no input
    assert run(folder, "--output", tmp_path).exit_code == 1
    assert (folder / "base.csv").read_text() == (tmp_path / "base.csv").read_text() == text


def test_scores_below_the_input_are_no_input_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "base.csv").write_text("\n".join(lines()))
    for _ in range(2):
        done = run(tmp_path, "--output", tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert list(summary_of(tmp_path / "out")) == ["base"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("lis", "ams/a", "ams/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "base.csv").write_text("\n".join(lines()))
    (tmp_path / "lis/alone.csv").write_text("\n".join(lines()))
    (tmp_path / "ams/a/base.csv.gz").write_bytes(gzip.compress("\n".join(lines()).encode()))
    out = tmp_path / "out"
    done = run(*sorted(tmp_path.rglob("base.csv")), "--output", out)
    assert done.exit_code == 0, done.output
    assert set(summary_of(out)) == {"a/base", "b/base", "lis/base"}
    done = run(tmp_path / "lis", tmp_path / "ams", tmp_path / "lis/base.csv", "--output", out)
    assert done.exit_code == 0, done.output
    assert set(summary_of(out)) == {"alone", "base", "a/base", "a/base-2", "b/base"}
    assert len({str(one["file"]) for one in summary_of(out).values()}) == 5
    assert all((out / f"{key}.csv").is_file() for key in summary_of(out))


def test_a_first_time_that_cannot_be_read_makes_no_gap(tmp_path: Path) -> None:
    head, *body = lines(label=False)
    for n in (0, 1, 300):
        body[n] = "soon," + body[n].split(",")[1]
    body[400] = body[399].split(",")[0] + ",50"  # a time that does come twice
    (tmp_path / "one.csv").write_text("\n".join([head, *body]))
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    kept = summary_of(tmp_path / "out")["one"]
    assert kept["gaps"] == {"count": 0, "longest_seconds": 0, "first": []}
    assert (kept["repeated_times"], kept["times_unreadable"]) == (1, 3)


def test_messy_fields_are_missing_values(tmp_path: Path) -> None:
    made = lines(label=False)
    made[100] = "oops,12"
    made[101] = "1700006060,n/a"
    made[102] = "1700006120"
    (tmp_path / "one.csv").write_text("\n".join(made))
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]["one"]
    assert (kept["missing"], kept["times_unreadable"]) == (2, 1)
    assert len(rows_of(tmp_path / "out/one.csv")) == 600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("1700000000123", 1_700_000_000.123),
        ("1700000000123456", 1_700_000_000.123456),
        ("1700000000123456789", 1_700_000_000.123457),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20.5", 1_700_000_000.5),
        ("2023-11-14 22:13:20", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14 23:13:20+01", 1_700_000_000),
        ("2023-11-14 23:13:20 CET", 1_700_000_000),
        ("2023-11-14 17:13:20 EST", 1_700_000_000),
        ("14.11.2023 23:13:20 CET", 1_700_000_000),
        ("11/14/2023 05:13:20 PM EST", 1_700_000_000),
        ("14.11.2023 20:43:20 -01:30", 1_700_000_000),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
        ("17", 17),
    ],
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    made, unread = parse_times([text])
    assert (made.round(6).tolist(), unread.any()) == ([seconds], False)


START = np.datetime64(1_700_000_000, "s")
ISO = [str(START + 60 * n).replace("T", " ") for n in range(600)]
DATES = [(text[:4], text[5:7], text[8:10], text[11:16]) for text in ISO]
VALUES = [line.split(",")[1] for line in lines(label=False)[1:]]
WAYS = {  # of writing the same series
    "semicolons, decimal comma": ["Zeit (time);cpu"]
    + [f"{time};{value.replace('.', ',')}" for time, value in zip(ISO, VALUES, strict=True)],
    "tabs": ["timestamp\tvalue"] + [f"{a}\t{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "bars, comment": ["# by hand", "ts|y"] + [f"{a}|{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "no header": [f"{a},{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "unknown header": ["ds,y"] + [f"{a},{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "month first": ["Date Time,load"]
    + [f"{m}/{d}/{y} {clock},{b}" for (y, m, d, clock), b in zip(DATES, VALUES, strict=True)],
    "day first": ["date,load"]
    + [f"{d}.{m}.{y} {clock},{b}" for (y, m, d, clock), b in zip(DATES, VALUES, strict=True)],
    "date and clock": ["Date;Time;load"]
    + [f"{d}.{m}.{y};{clock};{b}" for (y, m, d, clock), b in zip(DATES, VALUES, strict=True)],
    "ms": ["ts,load"] + [f"{1_700_000_000_000 + 60_000 * n},{b}" for n, b in enumerate(VALUES)],
    "decimal comma behind tabs": ["time\tload"]
    + [f"{a}\t{b.replace('.', ',')}" for a, b in zip(ISO, VALUES, strict=True)],
    "decimal comma in quotes": ["time,load"]
    + [f'{a},"{b.replace(".", ",")}"' for a, b in zip(ISO, VALUES, strict=True)],
    "commas in a quoted name": ['"time";"CPU, all, %"']
    + [f"{a};{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "digits to the second": ["timestamp,value"]
    + [
        f"{y}{m}{d}{clock.replace(':', '')}00,{b}"
        for (y, m, d, clock), b in zip(DATES, VALUES, strict=True)
    ],
    "digits to the minute": [
        f"{y}{m}{d}{clock.replace(':', '')},{b}"
        for (y, m, d, clock), b in zip(DATES, VALUES, strict=True)
    ],
    "a duration is no time": ["recorded_at,response_time"]
    + [f"{a},{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "epoch": ["epoch,load"] + [f"{1_700_000_000 + 60 * n},{b}" for n, b in enumerate(VALUES)],
    "joined name": ["load,EventTime"]
    + [f"{b},{1_700_000_000 + 60 * n}" for n, b in enumerate(VALUES)],
    "thousands apart": ["time;load"]
    + [f"{a};1 {int(float(b)):03d},5" for a, b in zip(ISO, VALUES, strict=True)],
    "thousands with apostrophes": ["time,load"]
    + [f"{a},1'{int(float(b)):03d}.25" for a, b in zip(ISO, VALUES, strict=True)],
    "zones": ["time,load"] + [f"{a} CEST,{b}" for a, b in zip(ISO, VALUES, strict=True)],
    "percent": ["time,load"] + [f"{a},{b} %" for a, b in zip(ISO, VALUES, strict=True)],
}


@pytest.mark.parametrize("way", WAYS)
def test_files_as_people_have_them(tmp_path: Path, way: str) -> None:
    (tmp_path / "one.csv").write_text("\n".join(WAYS[way]) + "\n")
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]["one"]
    assert (kept["rows"], kept["missing"], kept["sampling_seconds"]) == (600, 0, 60.0)
    assert (kept["out_of_order"], kept["times_unreadable"], kept["notes"]) == (0, 0, [])
    rows = rows_of(tmp_path / "out/one.csv")
    assert [n for n, row in enumerate(rows) if row["alert"] == "1"] == [500]


def test_what_a_file_leaves_open_is_said(tmp_path: Path) -> None:
    head, *body = lines(label=False)
    (tmp_path / "newest.csv").write_text("\n".join([head, *reversed(body)]))
    (tmp_path / "timeless.csv").write_text(
        "date,value\n" + "\n".join(f"soon,{n}" for n in range(9))
    )
    (tmp_path / "twice.csv").write_text("ts,a,a\n" + "\n".join(f"{n},{n},7" for n in range(9)))
    done = run(tmp_path, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "sort the file by time" in done.output
    assert "such as 'soon': rows are taken as 60 s apart" in done.output
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]
    assert set(kept) == {"newest", "timeless", "twice/a", "twice/a-3"}
    assert kept["timeless"]["sampling_seconds"] == 60.0


def test_row_numbers_and_labels_of_any_name_are_no_series(tmp_path: Path) -> None:
    head, *body = lines(label=False)
    rows = [f"{n},{line},0" for n, line in enumerate(body)]
    (tmp_path / "framed.csv").write_text("\n".join([f",{head},is_outlier", *rows]))
    run(tmp_path, "--output", tmp_path / "out")
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]
    assert set(kept) == {"framed"}
    assert kept["framed"]["notes"] == ["column '' numbers the rows and is left out"]
    assert kept["framed"]["alerts"] == 1


def test_months_are_times_and_values_with_units_are_told(tmp_path: Path) -> None:
    months = [f"{2000 + n // 12}-{n % 12 + 1:02d}" for n in range(48)]
    (tmp_path / "months.csv").write_text(
        "month,sold\n" + "\n".join(f"{one},{n % 5}" for n, one in enumerate(months))
    )
    (tmp_path / "units.csv").write_text(
        "time,value\n" + "\n".join(f"{60 * n},{n} ms" for n in range(9))
    )
    done = run(tmp_path, "--output", tmp_path / "out")
    assert "no field of column 'value' is a number, such as '0 ms'" in done.output
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]
    assert kept["months"]["sampling_seconds"] == 31 * 86_400.0
    assert kept["months"]["times_unreadable"] == 0


@pytest.mark.parametrize("first", ["", "nan"])
def test_a_missing_first_value_is_no_header(tmp_path: Path, first: str) -> None:
    body = [f"{1_700_000_000 + 60 * n},{b}" for n, b in enumerate(VALUES)]
    (tmp_path / "one.csv").write_text("\n".join([f"1699999940,{first}", *body]))
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]["one"]
    assert (kept["rows"], kept["missing"], kept["notes"]) == (601, 1, [])


def test_a_text_of_an_old_code_page_cuts_no_row(tmp_path: Path) -> None:
    rows = [f"{60 * n},{b},wait\x85" for n, b in enumerate(VALUES)]
    (tmp_path / "one.csv").write_bytes("\n".join(["time,value,note", *rows]).encode("latin-1"))
    run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert len(rows_of(tmp_path / "out/one.csv")) == 600


def test_a_pipe_is_read_once_and_whole(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        out.write("\n".join(lines(500)))  # within what a pipe holds
    done = run(f"/dev/fd/{read}", "--output", tmp_path / "out")
    os.close(read)
    assert done.exit_code == 0, done.output
    assert len(rows_of(tmp_path / f"out/{read}.csv")) == 500


def test_files_of_capital_letters_are_found(tmp_path: Path) -> None:
    (tmp_path / "ONE.CSV").write_text("\n".join(lines()))
    run(tmp_path, "--output", tmp_path / "out")
    assert len(rows_of(tmp_path / "out/ONE.csv")) == 600


def test_sampling_is_that_of_most_rows_in_any_order(tmp_path: Path) -> None:
    late = [10 * n for n in range(21)] + [200 + 300 * n for n in range(1, 300)]
    for name, times in {"late": late, "newest": [300 * n for n in range(300, 0, -1)]}.items():
        (tmp_path / f"{name}.csv").write_text(
            "\n".join(["time,value", *(f"{one},{n % 7}" for n, one in enumerate(times))])
        )
    run(tmp_path, "--output", tmp_path / "out")
    kept = json.loads((tmp_path / "out/summary.json").read_text())["series"]
    for one in kept.values():
        assert (one["sampling_seconds"], one["gaps"]["count"]) == (300.0, 0)
        assert one["sampling_regular"] > 0.9


def test_a_zone_that_nobody_knows_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(
        "\n".join(["time,v", *(f"{a} XYZ,{b}" for a, b in zip(ISO, VALUES, strict=True))])
    )
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert "no time in column 'time' can be read, such as '2023-11-14 22:13:20 XYZ'" in done.output


@pytest.mark.parametrize(("step_s", "mark"), [(0.1, "."), (0.25, "T"), (0.02, "ms")])
def test_rows_within_a_second_are_told_apart(tmp_path: Path, step_s: float, mark: str) -> None:
    at = [1_700_000_000 + step_s * n for n in range(600)]
    texts = {
        ".": [f"{one:.3f}" for one in at],
        "ms": [str(round(one * 1000)) for one in at],
        "T": [str(np.datetime64(round(one * 1000), "ms")) for one in at],  # 2023-11-14T22:13:20.250
    }[mark]
    rows = [f"{a},{b}" for a, b in zip(texts, VALUES, strict=True)]
    (tmp_path / "one.csv").write_text("\n".join(["timestamp,value", *rows]))
    run(tmp_path / "one.csv", "--output", tmp_path / "out")
    kept = summary_of(tmp_path / "out")["one"]
    assert (kept["sampling_seconds"], kept["sampling_regular"]) == (step_s, 1.0)
    assert (kept["repeated_times"], kept["notes"]) == (0, [])


def serials(step_s: int) -> list[str]:
    return [f"{25_569 + (1_700_000_000 + step_s * n) / 86_400:.6f}" for n in range(600)]


@pytest.mark.parametrize(
    ("head", "times", "step_s"),
    [
        ("date,value", serials(60), 60.0),
        ("Time,value", serials(3_600), 3_600.0),
        ("date;value", [one.replace(".", ",") for one in serials(60)], 60.0),
        ("date,value", [str(45_000 + n) for n in range(600)], 86_400.0),
        ("time,value", [str(45_000 + n) for n in range(600)], 1.0),  # seconds since it began
        ("time,value", [f"{0.5 * n:.1f}" for n in range(600)], 0.5),
    ],
)
def test_days_of_spreadsheets_are_times(
    tmp_path: Path, head: str, times: list[str], step_s: float
) -> None:
    mark = head[4]
    (tmp_path / "one.csv").write_text(
        "\n".join([head, *(f"{a}{mark}{n % 7}" for n, a in enumerate(times))])
    )
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    kept = summary_of(tmp_path / "out")["one"]
    assert (kept["sampling_seconds"], kept["sampling_regular"]) == (step_s, 1.0)
    assert ("as spreadsheets do" in done.output) is (step_s >= 60.0)


def long_rows(*, blocks: bool) -> list[str]:
    rows = [
        (n, f"{1_700_000_000 + 60 * n},{host},{value}")
        for host in ("ams1", "lis/2", "vie3")
        for n, value in enumerate(VALUES)
    ]
    return [row for _, row in (rows if blocks else sorted(rows))]


@pytest.mark.parametrize("blocks", [True, False])
def test_each_name_of_a_long_file_is_a_series(tmp_path: Path, blocks: bool) -> None:
    (tmp_path / "one.csv").write_text("\n".join(lines()))
    (tmp_path / "long.csv").write_text(
        "\n".join(["timestamp,host,value", *long_rows(blocks=blocks)])
    )
    done = run(tmp_path, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "3 series by 'host': each is judged by itself" in done.output
    assert set(summary_of(tmp_path / "out")) == {"one", "long/ams1", "long/lis_2", "long/vie3"}
    for name in ("ams1", "lis_2", "vie3"):
        assert rows_of(tmp_path / f"out/long/{name}.csv") == rows_of(tmp_path / "out/one.csv")


def test_names_may_be_of_two_columns_or_numbers_and_series_of_several_values(
    tmp_path: Path,
) -> None:
    many = [
        f"{60 * n},{host},{metric},{n % 7}"
        for n in range(90)
        for host in "ab"
        for metric in ("cpu", "io")
    ]
    (tmp_path / "two.csv").write_text("\n".join(["time,host,metric,value", *many]))
    wide = [f"{60 * n},{sensor},{n % 7},{n % 5},ok" for n in range(90) for sensor in (7, 8, 9)]
    (tmp_path / "wide.csv").write_text("\n".join(["time,sensor_id,in,out,note", *wide]))
    run(tmp_path, "--output", tmp_path / "out")
    kept = summary_of(tmp_path / "out")
    assert set(kept) == {f"two/{host} {metric}" for host in "ab" for metric in ("cpu", "io")} | {
        f"wide/{sensor} {way}" for sensor in (7, 8, 9) for way in ("in", "out")
    }
    assert {one["rows"] for one in kept.values()} == {90}
    assert {one["repeated_times"] for one in kept.values()} == {0}


def test_times_that_repeat_without_a_name_are_said(tmp_path: Path) -> None:
    rows = [f"{60 * (n // 3)},{n % 7}" for n in range(90)]
    (tmp_path / "one.csv").write_text("\n".join(["time,value", *rows]))
    done = run(tmp_path / "one.csv", "--output", tmp_path / "out")
    assert "no column of names tells their rows apart" in done.output
    noted = [f"{60 * n},{n % 7},{'ok' if n % 3 else 'late'}" for n in range(90)]
    (tmp_path / "noted.csv").write_text("\n".join(["time,value,note", *noted]))
    run(tmp_path / "noted.csv", "--output", tmp_path / "out")
    assert set(summary_of(tmp_path / "out")) == {"noted"}


def test_columns_with_names_that_no_file_can_have_are_scored(tmp_path: Path) -> None:
    names = ["é" * 300, "a/../b", "x\x01y"]
    plain = lines(300, label=False)[1:]
    text = [",".join(["timestamp", *names])]
    text += [f"{row},{row.split(',')[1]},{row.split(',')[1]}" for row in plain]
    (tmp_path / "wide.csv").write_text("\n".join(text) + "\n", "utf-8")
    done = run(tmp_path / "wide.csv", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").rglob("*.csv"))) == 3
    kept = json.loads((tmp_path / "out" / "summary.json").read_text())["series"]
    assert sorted(one["rows"] for one in kept.values()) == [300, 300, 300]
