"""The drop folder of PM files: each file once, moved with its fate, KPIs, limits, and a node that is away."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from collectors.pm.source import PmFilesSource
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.errors import ConfigError, TransientError
from tests.support.source_world import MemoryNode, source_of, world
from tests.unit.collectors.test_pm_xml import NAMED, pm, value

SECOND = 10**9
BOTH = value('<r p="1">10</r><r p="2">4</r>')
GOOD = pm(NAMED + BOTH)


@dataclass
class Place:
    """A source on a folder, with a node and a clock; files stand still when the clock says so."""

    inbox: Path
    state: Path
    node: MemoryNode
    clock: ManualClock
    context: Context
    options: dict[str, Any]

    def source(self) -> PmFilesSource:
        made = source_of(
            "pm-files",
            {"folder": str(self.inbox), **self.options},
            self.node,
            self.context,
            self.state,
        )
        assert isinstance(made, PmFilesSource)
        made.load()  # without a thread: the test turns it by hand
        return made

    def drop(self, name: str, data: bytes = GOOD) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def look(self, source: PmFilesSource, times: int = 2) -> None:
        """Look at the folder, six seconds apart."""
        for _ in range(times):
            self.clock.advance(seconds=6)
            source.poller.turn()

    def files(self, folder: str = "") -> list[str]:
        top = self.inbox / folder
        return sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())

    def count(self, name: str, **labels: str) -> float:
        return self.context.metrics.value(name, **labels)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    node, clock, context = world("pm")
    (tmp_path / "in").mkdir()
    return Place(tmp_path / "in", tmp_path / "state", node, clock, context, {})


def keys(place: Place) -> dict[str, float]:
    return {key: found[0] for key, found in place.node.values().items()}


OF = "entity=SubNetwork=1,ManagedElement=A,Cell=7".replace("=1", "%3D1").replace("=A", "%3DA")


def test_a_file_becomes_series_and_goes_to_done(place: Place) -> None:
    """Gauges of the slow view at the start of the period; the ledger says who sent it."""
    place.options = {"units": {"a": "{call}"}}
    place.drop("A.xml")
    place.drop("site2/B.xml.gz", gzip.compress(pm(NAMED + value('<r p="1">3</r>', "Cell=8"))))
    source = place.source()
    place.look(source)
    assert {row["key"].partition("metric=")[2] for row in place.node.rows("series")} == {"a", "b"}
    assert {row["view"] for row in place.node.rows("series")} == {"slow_sample"}
    assert {row["unit"] for row in place.node.rows("series")} == {"{call}", ""}
    samples = place.node.rows("sample")
    assert [(row["value"], row["kind"]) for row in samples] == [(10.0, 0), (4.0, 0), (3.0, 0)]
    assert {row["time_ns"] for row in samples} == {1_772_366_400 * SECOND}
    assert place.files() == ["done/A.xml", "done/site2/B.xml.gz"]
    ledger = place.node.rows("ledger")
    assert [(r["protocol"], r["sent"], r["decoded"]) for r in ledger] == [
        ("pm-files", 2, 2), ("pm-files", 1, 1),
    ]  # fmt: skip
    assert source.health() == ""


def test_a_file_is_read_when_it_stands_still(place: Place) -> None:
    """Not while it grows, and not under the name it is written by."""
    source = place.source()
    place.drop("A.xml", GOOD[:100])
    place.look(source, 1)
    path = place.drop("A.xml", GOOD[:200])
    place.look(source, 1)
    path.write_bytes(GOOD)
    place.look(source, 1)
    assert place.node.batches == []
    place.drop(".B.xml", GOOD + b" ")
    place.drop("C.xml.tmp", GOOD + b"  ")
    place.drop("notes.txt")
    place.look(source, 1)
    assert place.files("done") == ["A.xml"]
    (place.inbox / "C.xml.tmp").rename(place.inbox / "C.xml")
    place.look(source)
    assert place.files("done") == ["A.xml", "C.xml"]
    assert place.files() == [".B.xml", "done/A.xml", "done/C.xml", "notes.txt"]


def test_the_same_contents_count_once(place: Place) -> None:
    """Under another name, packed, and after a restart; nothing in `done` is overwritten."""
    source = place.source()
    place.drop("A.xml")
    place.look(source)
    place.drop("B.xml.gz", gzip.compress(GOOD))
    place.look(source)
    place.drop("A.xml")
    place.look(place.source())
    assert len(place.node.rows("sample")) == 2
    assert place.files("done") == ["A.xml", "A.xml.2", "B.xml.gz"]
    assert place.count("pm_files_total", fate="repeated") == 2
    assert [r["duplicate"] for r in place.node.rows("ledger")][:1] == [0]


def test_a_corrected_file_is_told_and_said_to_be_one(place: Place) -> None:
    source = place.source()
    place.drop("A.xml")
    place.look(source)
    place.drop("A.xml", pm(NAMED + value('<r p="1">11</r><r p="2">4</r>')))
    place.look(source)
    assert [row["value"] for row in place.node.rows("sample")] == [10.0, 4.0, 11.0, 4.0]
    assert place.count("pm_files_total", fate="corrected") == 1
    assert place.count("pm_results_total", fate="value") == 4


def test_what_other_files_say_again_of_an_object_and_period_adds_nothing(place: Place) -> None:
    """Merged and re-exported: other bytes, the same counters of the same objects."""
    source = place.source()
    place.drop("A.xml")
    place.look(source)
    place.drop("merged.xml", GOOD.replace(b"</measCollecFile>", b"<!-- again --></measCollecFile>"))
    place.look(source)
    assert [row["value"] for row in place.node.rows("sample")] == [10.0, 4.0]
    assert place.count("pm_files_total", fate="repeated") == 1
    assert place.count("pm_results_total", fate="repeated") == 2
    assert place.count("pm_results_total", fate="value") == 2
    other = value('<r p="1">7</r><r p="2">8</r>', of="Cell=8")
    place.drop("both.xml", pm(NAMED + BOTH + other))
    place.look(source)
    assert [row["value"] for row in place.node.rows("sample")] == [10.0, 4.0, 7.0, 8.0]
    assert place.count("pm_files_total", fate="done") == 2


def test_a_file_that_failed_to_arrive_is_no_repeat_of_itself(place: Place) -> None:
    source = place.source()
    place.node.away = True
    place.drop("A.xml")
    place.look(source)
    assert place.node.rows("sample") == []
    place.node.away = False
    place.look(source)
    assert [row["value"] for row in place.node.rows("sample")] == [10.0, 4.0]


def test_a_crash_in_the_middle_counts_nothing_twice(place: Place) -> None:
    """The node has the batch, we heard no answer: the same token is offered again."""
    source = place.source()
    place.drop("A.xml")
    place.node.forgets_to_answer = True
    place.look(source)
    assert place.files() == ["A.xml"]
    assert "no answer" in source.health()
    place.node.forgets_to_answer = False
    again = place.source()
    place.look(again)
    assert len(place.node.rows("sample")) == 2
    assert place.files() == ["done/A.xml"]


def test_while_the_node_is_away_files_wait(place: Place) -> None:
    """Nothing is lost, nothing is set aside."""
    source = place.source()
    place.drop("A.xml")
    place.node.away = True
    place.look(source)
    with pytest.raises(TransientError):
        source.turn()
    assert place.files() == ["A.xml"]
    place.node.away = False
    place.look(source)
    assert (place.files(), source.health()) == (["done/A.xml"], "")


BAD = [
    pytest.param("A.xml", GOOD[:-30], "XML is broken", id="cut"),
    pytest.param("A.xml", b"<html></html>" + bytes(70), "none of a measurement file", id="html"),
    pytest.param("A.xml.gz", gzip.compress(GOOD)[:-9], "gzip is damaged or cut", id="gzip-cut"),
    pytest.param("A.xml", gzip.compress(bytes(300_000)), "more than file_bytes_max", id="zip-bomb"),
    pytest.param("A.xml", b"", "empty", id="empty"),
]


@pytest.mark.parametrize(("name", "data", "why"), BAD)
def test_what_cannot_be_read_is_set_aside_with_the_reason(
    place: Place, name: str, data: bytes, why: str
) -> None:
    """No number of it is offered; its neighbour is read."""
    place.options = {"file_bytes_max": 100_000}
    source = place.source()
    place.drop(name, data)
    place.drop("Z.xml")
    place.look(source)
    assert place.files() == ["done/Z.xml", f"failed/{name}", f"failed/{name}.reason.txt"]
    assert why in (place.inbox / f"failed/{name}.reason.txt").read_text()
    assert len(place.node.rows("sample")) == 2
    assert place.count("pm_files_total", fate="failed") == 1


def test_kpis(place: Place) -> None:
    """Of counters that stand in different parts of a file, for each object that has them all."""
    place.options = {
        "kpis": {"ratio": "100 * a / (a + b)", "sum": "a + c", "never": "a / (b - b)"},
        "counters": ("b",),
    }
    more = NAMED.replace(">a<", ">c<").replace(">b<", ">d<") + value('<r p="1">5</r>')
    other = value('<r p="1">1</r><r p="2">3</r>', "Cell=8")
    data = pm(NAMED + BOTH + other).replace(
        b"</measInfo>", b"</measInfo>" + pm(more).partition(b'<managedElement localDn="ManagedElement=A"/>')[2]
        .partition(b"</measData>")[0],
    )  # fmt: skip
    place.drop("A.xml", data)
    place.look(place.source())
    found = {key.partition("metric=")[2]: v for key, v in keys(place).items() if "Cell%3D7" in key}
    assert found == {"b": 4.0, "ratio": pytest.approx(100 * 10 / 14), "sum": 15.0}
    found = {key.partition("metric=")[2]: v for key, v in keys(place).items() if "Cell%3D8" in key}
    assert found == {"b": 3.0, "ratio": 25.0}
    assert place.count("pm_kpis_total", result="none") == 3
    assert place.count("pm_results_total", fate="not_wanted") == 3


@pytest.mark.parametrize(("suspect", "samples"), [("drop", 0), ("keep", 2)])
def test_what_the_element_doubts(place: Place, suspect: str, samples: int) -> None:
    """Dropped and counted, or kept if one says so."""
    place.options = {"suspect_values": suspect}
    place.drop("A.xml", GOOD.replace(b"</measValue>", b"<suspect>true</suspect></measValue>"))
    place.look(place.source())
    assert len(place.node.rows("sample")) == samples
    assert place.count("pm_results_total", fate="suspect") == 2 - samples
    (row,) = place.node.rows("ledger")
    assert (row["sent"], row["decoded"], row["shed"]) == (2, samples, 2 - samples)


def test_late_files_are_counted_and_read(place: Place) -> None:
    """The world's clock stands weeks after the file's period."""
    place.drop("A.xml")
    place.look(place.source())
    assert place.count("pm_files_late_total") == 1
    assert len(place.node.rows("sample")) == 2


def test_many_batches_of_one_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long file is offered in parts, each with a token of its own."""
    monkeypatch.setattr("collectors.pm.source.SAMPLES_PER_OFFER", 3)
    place.drop("A.xml", pm(NAMED + BOTH * 5))
    place.look(place.source())
    tokens = [token for token in place.node.tokens if token.startswith("pm:")]
    assert [token.rpartition(":")[2] for token in tokens] == ["0", "1", "2"]
    assert len(place.node.rows("sample")) == 10


def test_after_reading_files_may_be_deleted(place: Place) -> None:
    """Where somebody else keeps them."""
    place.options = {"after": "delete"}
    place.drop("A.xml")
    place.look(place.source())
    assert (place.files(), len(place.node.rows("sample"))) == ([], 2)


def test_a_file_that_cannot_be_moved_is_said_and_not_read_again(place: Place) -> None:
    """`done` is a file: an operator's mistake."""
    (place.inbox / "done").write_text("not a folder")
    place.drop("A.xml")
    source = place.source()
    place.look(source, 4)
    assert "cannot be moved" in source.health()
    assert place.count("pm_files_total") == 1
    (place.inbox / "done").unlink()
    os.utime(place.inbox / "A.xml", ns=(1, 1))
    place.look(source)
    assert (source.health(), place.files()) == ("", ["done/A.xml"])
    assert len(place.node.rows("sample")) == 2


@pytest.mark.parametrize(("options", "words"), [
    ({"folder": "/nowhere/at/all"}, "is no folder"),
    ({"kpis": {"x": "a +"}}, r"kpis\.x: formula"),
    ({"time_zone": "Mars/Olympus"}, "no time zone"),
])  # fmt: skip
def test_settings_that_cannot_be_met(place: Place, options: dict[str, Any], words: str) -> None:
    """Told at the start, with the key."""
    place.options = options
    with pytest.raises(ConfigError, match=words):
        place.source()


def test_a_folder_that_vanishes_is_trouble_not_the_end(place: Place) -> None:
    """A mount that is away: said, tried again."""
    source = place.source()
    place.inbox.rename(place.inbox.with_name("away"))
    place.look(source, 1)
    assert "in:" in source.health()
    place.inbox.with_name("away").rename(place.inbox)
    place.drop("A.xml")
    place.look(source)
    assert (source.health(), place.files()) == ("", ["done/A.xml"])
