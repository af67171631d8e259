"""Ingest: files and uploads in every form, what comes again, what is wrong, what is cut off."""

import gzip
import http.client
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from collectors.http.body import HttpRefusedError
from collectors.http.input import Request
from collectors.mapped.ingest import IngestSource
from collectors.mapped.records import CHUNK_ROWS
from telemetry.batch import Batch
from telemetry.errors import ConfigError, TransientError
from tests.support.source_world import source_of, world

MAPPING = """
format = "csv"
[sample]
entity = "node"
time = "time"
values = ["rtt"]
dimensions = { site = "site" }
"""
HEAD = "time,node,site,rtt\n"


def rows(count: int, *, start: int = 0) -> str:
    return "".join(f"{1774000000 + i},n{i % 7},BER,{i}.5\n" for i in range(start, start + count))


class Here:
    def __init__(self, folder: Path, mapping: str = MAPPING, **options: Any) -> None:
        self.node, self.clock, self.context = world("files")
        self.state, self.drop = folder / "state", folder / "drop"
        self.drop.mkdir()
        (folder / "m.toml").write_text(mapping)
        self.options = {"mappings": {"probe": str(folder / "m.toml")}, "folders": {"probe": str(self.drop)},
                        **options}  # fmt: skip
        self.source = self.make()

    def make(self) -> IngestSource:
        made = source_of("ingest", self.options, self.node, self.context, self.state)
        self.source = cast(IngestSource, made)
        self.source.open()
        return self.source

    def put(self, name: str, data: str | bytes) -> None:
        (self.drop / name).write_bytes(data.encode() if isinstance(data, str) else data)

    def look(self) -> None:
        """Look twice: a file must not change between two looks."""
        self.source.turn()
        self.source.turn()

    def names(self, folder: str) -> list[str]:
        return sorted(p.name for p in (self.drop / folder).glob("*"))

    def values(self) -> list[float]:
        return sorted(row["value"] for row in self.node.rows("sample"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.source.stop()


def test_a_file_is_taken_and_moved_and_adds_nothing_when_it_comes_again(here: Here) -> None:
    here.put("a.csv", HEAD + rows(100))
    here.look()
    assert here.values() == [i + 0.5 for i in range(100)]
    assert here.names("done") == ["a.csv"]
    here.put("a.csv", HEAD + rows(100))
    here.put("copy.csv", HEAD + rows(100))
    here.look()
    assert len(here.values()) == 100
    assert here.names("done") == ["a.csv", "a.csv.1", "copy.csv"]
    assert here.context.metrics.value("ingest_records_total", end="repeated") == 200


def test_a_file_that_still_grows_or_is_not_finished_is_left(here: Here) -> None:
    here.put("a.csv", HEAD + rows(10))
    here.put("b.csv.part", HEAD + rows(10))
    here.put(".hidden", "x")
    here.source.turn()
    here.put("a.csv", HEAD + rows(20))
    here.source.turn()
    assert here.values() == []
    here.source.turn()
    assert len(here.values()) == 20
    assert here.names(".") == [".hidden", "b.csv.part", "done"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.csv", "what,is,this\n1,2,3\n", "entity or time is empty or none"),
        ("a.csv", HEAD + "yesterday,n1,BER,1\n", "entity or time is empty or none"),
        ("a.csv.gz", b"no gzip at all", "no whole gzip file"),
        ("a.csv.gz", gzip.compress((HEAD + rows(50)).encode())[:-20], "no whole gzip file"),
        ("a.parquet", b"PAR1 nonsense", "no parquet file"),
        ("a.arrow", b"nonsense", "no arrow file"),
        ("a.json", "{", "no JSON"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_moved_with_the_reason(
    here: Here, name: str, data: str | bytes, reason: str
) -> None:
    here.put(name, data)
    here.look()
    assert here.names("failed") == [name, f"{name}.reason"]
    assert reason in (here.drop / "failed" / f"{name}.reason").read_text()
    assert here.source.health() == ""


def table() -> dict[str, list[Any]]:
    count = 30
    return {
        "time": [1774000000 + i for i in range(count)], "node": [f"n{i % 7}" for i in range(count)],
        "site": ["BER"] * count, "rtt": [i + 0.5 for i in range(count)],
    }  # fmt: skip


def forms(folder: Path) -> dict[str, bytes]:
    import pyarrow
    import pyarrow.parquet

    columns = table()
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    arrow = pyarrow.table(columns)
    pyarrow.parquet.write_table(arrow, folder / "x")
    made = {"a.parquet": (folder / "x").read_bytes()}
    for name, opener in (("a.arrow", pyarrow.ipc.new_file), ("b.arrows", pyarrow.ipc.new_stream)):
        sink = pyarrow.BufferOutputStream()
        with opener(sink, arrow.schema) as writer:
            writer.write_table(arrow)
        made[name] = sink.getvalue().to_pybytes()
    lines = "\n".join(json.dumps(record) for record in records).encode()
    made |= {
        "a.jsonl": lines,
        "a.ndjson.gz": gzip.compress(lines),
        "a.json": json.dumps(records).encode(),
    }
    made["a.csv.gz"] = gzip.compress((HEAD + rows(30)).encode())
    return made


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.arrow", "b.arrows", "a.jsonl", "a.ndjson.gz", "a.json", "a.csv.gz"]
)
def test_every_form(here: Here, tmp_path: Path, name: str) -> None:
    here.put(name, forms(tmp_path)[name])
    here.look()
    assert here.values() == table()["rtt"]
    assert {row["time_ns"] for row in here.node.rows("sample")} == {
        t * 10**9 for t in table()["time"]
    }


class CutOffError(Exception):
    """The process ends here."""


def test_a_run_that_is_cut_off_goes_on_where_it_was(here: Here) -> None:
    total = 3 * CHUNK_ROWS
    here.put("a.csv", HEAD + rows(total))
    offered = 0
    node = here.node

    def cut(batches: Sequence[Batch], *, token: str = "") -> None:
        nonlocal offered
        offered += 1
        node(batches, token=token)
        if offered == 2:  # journalled, but we do not live to know it
            raise CutOffError

    here.source._offer = cut
    here.source.open()
    with pytest.raises(CutOffError):
        here.look()
    here.make()
    here.look()
    assert len(here.node.rows("sample")) == total
    assert here.names("done") == ["a.csv"]


def test_a_node_that_is_away_leaves_the_file_where_it_is(here: Here) -> None:
    here.put("a.csv", HEAD + rows(10))
    here.node.away = True
    here.source.turn()
    with pytest.raises(TransientError):
        here.source.turn()
    assert here.names(".") == ["a.csv"]
    here.node.away = False
    here.look()
    assert len(here.values()) == 10


def test_rejected_lines_are_counted_and_the_good_ones_taken(here: Here) -> None:
    here.put("a.csv", HEAD + rows(3) + "short\n1774000000,n1,BER,-\n")
    here.look()
    assert len(here.values()) == 3
    assert here.names("done") == ["a.csv"]
    assert here.context.metrics.value("ingest_records_total", end="rejected") == 2


def upload(here: Here, body: bytes, path: str = "/ingest/probe") -> dict[str, Any]:
    request = Request("POST", path, {}, {}, "192.0.2.1", iter([body]))
    return cast(dict[str, Any], json.loads(here.source.handle(request).body))


def test_uploads(here: Here) -> None:
    body = (HEAD + rows(5) + "short\n").encode()
    assert upload(here, body) == {
        "taken": 5,
        "repeated": 0,
        "rejected": 1,
        "reasons": "1 malformed",
        "by_reason": {"malformed": 1},
    }
    again = {"taken": 0, "repeated": 5, "rejected": 0, "reasons": "", "by_reason": {}}
    assert upload(here, body) == again
    with pytest.raises(HttpRefusedError, match=r"no mapping is called 'x' \(there are: probe\)"):
        upload(here, body, "/ingest/x")
    here.source.turn()
    (row,) = here.node.rows("ledger")
    assert (row["sent"], row["decoded"], row["undecodable"], row["duplicate"]) == (6, 5, 1, 5)


def test_an_upload_of_parquet(tmp_path: Path) -> None:
    here = Here(tmp_path, MAPPING.replace('"csv"', '"parquet"'))
    assert upload(here, forms(tmp_path)["a.parquet"])["taken"] == 30
    assert sorted(p.name for p in here.state.glob("upload-*")) == []
    here.source.stop()


@pytest.mark.parametrize("zone", ["Mars/Olympus", "+25:00", "UTC+2", "../etc/passwd", "Europe"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_of_an_unknown_time_zone_is_refused_and_counted(
    tmp_path: Path, form: str, zone: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    at = pyarrow.array([1774000000], pyarrow.timestamp("s", zone))
    made = pyarrow.table({"time": at, "node": ["n1"], "site": ["BER"], "rtt": [1.5]})
    sink = pyarrow.BufferOutputStream()
    if form == "parquet":
        pyarrow.parquet.write_table(made, sink)
    else:
        with pyarrow.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made)
    body = sink.getvalue().to_pybytes()
    here = Here(tmp_path, MAPPING.replace('"csv"', f'"{form}"'))
    with pytest.raises(HttpRefusedError, match=r"column time, timestamp.*cannot be read"):
        upload(here, body)
    here.source.turn()
    (row,) = here.node.rows("ledger")
    assert (row["decoded"], row["undecodable"]) == (0, 1)
    here.put(f"a.{form}", body)
    here.look()
    assert here.names("failed") == [f"a.{form}", f"a.{form}.reason"]
    assert "column time" in (here.drop / "failed" / f"a.{form}.reason").read_text()
    assert here.source.health() == ""
    here.source.stop()


def test_over_http(tmp_path: Path) -> None:
    here = Here(tmp_path, listen="http://127.0.0.1:0")
    here.source.stop()
    here.source.start()
    made = http.client.HTTPConnection("127.0.0.1", here.source.port, timeout=10)
    body = gzip.compress((HEAD + rows(5)).encode())
    made.request("POST", "/ingest/probe", body, {"Content-Encoding": "gzip"})
    answer = made.getresponse()
    assert (answer.status, json.loads(answer.read())["taken"]) == (200, 5)
    made.close()
    here.source.stop()


def test_keys_are_bounded(tmp_path: Path) -> None:
    here = Here(tmp_path, keys_max=3)
    for i in range(6):
        upload(here, (HEAD + rows(2, start=i)).encode())
    assert upload(here, (HEAD + rows(2, start=5)).encode())["repeated"] == 2
    assert upload(here, (HEAD + rows(2, start=0)).encode())["taken"] == 2  # forgotten here
    assert len(here.node.rows("sample")) == 12  # the node still knows it
    here.source.stop()


def test_mistakes_in_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folders\.other"):
        Here(tmp_path, folders={"other": "/x"})
