"""`tocsin ingest`: files and folders to a source that runs, and what is told of them."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from collectors.mapped.ingest import IngestSource
from runtime.clock import SystemClock
from tests.support.source_world import MemoryNode, source_of
from tocsin.cli.ingest import ingest
from tocsin.testing import make_context

MAPPING = 'format = "csv"\n[sample]\nentity = "node"\ntime = "time"\nvalues = ["rtt"]\n'
HEAD = "time,node,rtt\n"
LINES = "1774000000,a,1.5\n1774000060,a,2.5\n"


class Running:
    def __init__(self, folder: Path) -> None:
        self.node = MemoryNode()
        (folder / "m.toml").write_text(MAPPING)
        (folder / "tokens").write_text("abc\n")
        options = {
            "listen": "http://127.0.0.1:0", "mappings": {"probe": str(folder / "m.toml")},
            "token_file": str(folder / "tokens"),
        }  # fmt: skip
        context = make_context("uploads", clock=SystemClock())  # type: ignore[arg-type]
        self.source = cast(
            IngestSource, source_of("ingest", options, self.node, context, folder / "state")
        )
        self.source.start()
        self.access = ["--url", f"http://127.0.0.1:{self.source.port}", "-m", "probe",
                       "--token-file", str(folder / "tokens")]  # fmt: skip

    def __call__(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(ingest, [*map(str, arguments), *self.access])

    def values(self) -> list[float]:
        return [row["value"] for row in self.node.rows("sample")]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.source.stop()


def test_files_that_are_named_stay_where_they_are(running: Running, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    plain.write_text(HEAD + LINES)
    packed.write_bytes(gzip.compress((HEAD + "1774000120,b,3.5\n").encode()))
    lines = tmp_path / "c.jsonl"
    lines.write_text(json.dumps({"time": 1774000180, "node": "c", "rtt": 4.5}))
    done = running(plain, packed, lines)
    assert done.exit_code == 0, done.output
    assert f"{plain}: 2 records taken" in done.output
    assert running.values() == [1.5, 2.5, 3.5, 4.5]
    again = running(plain)
    assert f"{plain}: 0 records taken, 2 were there before" in again.output
    assert plain.exists()
    assert len(running.values()) == 4


def test_what_is_rejected_is_told_once(running: Running, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + LINES + "short\n" * 2)
    done = running(tmp_path / "a.csv")
    assert done.exit_code == 3
    assert done.output.endswith("a.csv: 2 records taken, 2 rejected: 2 malformed\n")


def test_the_files_of_a_folder_are_moved(running: Running, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "a.csv").write_text(HEAD + LINES)
    (folder / "b.csv").write_text("what\nis this\n")
    done = running(folder)
    assert done.exit_code == 3
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [
        "a.csv",
        "b.csv",
        "b.csv.reason",
    ]
    assert (folder / "done/a.csv").exists()
    assert "entity or time is empty" in (folder / "failed/b.csv.reason").read_text()


def test_trouble_is_one_sentence(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + LINES)
    (tmp_path / "tokens").write_text("wrong")
    done = running(path)
    assert "answered 401" in str(done.exception)
    no_source = CliRunner().invoke(ingest, [str(path)])
    assert 'no source of kind "ingest"' in str(no_source.exception)
    assert "--watch is for folders" in CliRunner().invoke(ingest, [str(path), "--watch"]).output
    running.source.stop()
    assert "refused" in str(running(path).exception)


def test_a_node_that_is_away_leaves_the_file(running: Running, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "a.csv").write_text(HEAD + LINES)
    running.node.away = True
    done: Any = running(folder)
    assert "answered 503" in str(done.exception)
    assert (folder / "a.csv").exists()


def test_the_configuration_says_where_to_send(running: Running, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + LINES)
    config = tmp_path / "tocsin.toml"
    config.write_text(
        f"""
[sources.files]
kind = "ingest"
[sources.files.options]
listen = "http://[::]:{running.source.port}"
token_file = "{tmp_path / "tokens"}"
mappings = {{ probe = "{tmp_path / "m.toml"}" }}
"""
    )
    arguments = [
        str(tmp_path / "a.csv"),
        "-c",
        str(config),
        "--token-file",
        str(tmp_path / "tokens"),
    ]
    done = CliRunner().invoke(ingest, arguments)
    assert (done.exit_code, "2 records taken" in done.output) == (0, True), done.output
    other = CliRunner().invoke(ingest, [*arguments, "-m", "other"])
    assert str(other.exception) == "no mapping 'other' is in the configuration: there is probe"
