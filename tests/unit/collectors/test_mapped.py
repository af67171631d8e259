"""The generic adapter: mapping files, every way in, and what is made of wrong records."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from collectors.http.body import HttpRefusedError
from collectors.http.client import PeerError
from collectors.http.input import Request
from collectors.mapped.mapping import MappingFile, RecordMapping, load_mapping
from collectors.mapped.records import RecordReader, document_chunk
from collectors.mapped.source import MappedSource
from collectors.mapped.tail import TailedFile
from telemetry.errors import ConfigError, DecodeError, TransientError
from tests.support.http_emulator import Asked, Emulator, Reply
from tests.support.source_world import source_of, world

SHIPPED = Path(__file__).parents[3] / "deploy/config/mappings"
SMOD = str(SHIPPED / "smod.toml")


def smod(number: str = "77", *, status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    return {
        "id": number, "ne": {"name": "msan-12", "vendor": "x"}, "port": "1/1/4", "count": 3,
        "category": "TRANSMISSION", "text": "LOS", "prio": "P1", "status": status,
        "first": "20.03.2026 10:26:40", "last": "20.03.2026 10:31:02", **more,
    }  # fmt: skip


class Here:
    def __init__(self, folder: Path, mapping: str = SMOD, **options: Any) -> None:
        self.node, self.clock, self.context = world("smod")
        self.folder = folder / "state"
        self.options = {"mapping": mapping, **options}
        self.make()

    def make(self) -> MappedSource:
        made = source_of("mapped", self.options, self.node, self.context, self.folder)
        self.source = cast(MappedSource, made)
        return self.source

    def poll(self) -> list[tuple[str, str, str]]:
        self.clock.advance(seconds=60)
        self.node.clear()
        self.source.turn()
        return self.node.alarms()


def test_a_record_of_smod_is_an_alarm() -> None:
    alarm = load_mapping(SMOD).alarm(smod())
    assert (alarm.entity, alarm.kind, alarm.severity) == ("msan-12:1/1/4", "LOS", "critical")
    assert alarm.title == "LOS on msan-12 port 1/1/4"
    assert alarm.raised_ns == 1773998800 * 10**9  # 10:26:40 in Berlin is 09:26:40 UTC in March
    assert (alarm.foreign_id, alarm.occurrence) == ("77", 3)
    assert alarm.detail == {"ne.vendor": "x", "category": "TRANSMISSION"}
    read = load_mapping(SMOD).alarm
    assert read(smod(status="CLOSED")).severity == "cleared"
    assert read(smod(status="IN_WORK")).acknowledged
    assert read(smod(status="PLANNED")).suppressed == "suppressed"
    assert read(smod(prio="P9")).severity == "indeterminate"
    with pytest.raises(ValueError, match="entity"):
        read(smod(ne={}, port=""))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "unknown field `x`"), ("format = \"yaml\"", "Invalid enum"), ("[", "not valid TOML"),
        ("", "exactly one of"), ("zone = \"Mars/Olympus\"\n[log]\nhost='h'\nmessage='m'", "no time zone"),
        ("[alarm]\nentity='a'\nkind='b'\nseverities={X='bad'}", "is none of critical"),
        ("[alarm]\nkind='b'", "entity"), ("[sample]\nentity='a'", "needs metric and value"),
        ("format='lines'\n[log]\nhost='h'\nmessage='m'", "named groups"),
        ("format='lines'\npattern='('\n[log]\nhost='h'\nmessage='m'", "no regular expression"),
    ],
)  # fmt: skip
def test_mistakes_in_a_mapping_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_mapping(tmp_path / "m.toml")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "exactly one"), ({"push": {}, "file": {"path": "/x"}}, "exactly one"),
        ({"push": {}, "complete": True}, "by rest or sql"),
        ({"push": {}, "mapping": "/nowhere.toml"}, "No such file"),
    ],
)  # fmt: skip
def test_mistakes_in_options_are_told(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Here(tmp_path, **options)


# ---- the forms of records


def mapping(form: str, **more: Any) -> RecordMapping:
    fields: dict[str, Any] = {"entity": "node", "kind": "kind", "severity": "sev"}
    return RecordMapping(msgspec.convert({"format": form, "alarm": fields, **more}, MappingFile))


FORMS = [
    pytest.param(mapping("jsonl"), b'{"node":"a","kind":"k"}\n\n{"node":"b","kind":"k"}\nnonsense\n[1]\n',
                 id="jsonl"),
    pytest.param(mapping("csv"), b'node,kind,sev\r\na,k,major\r\n"b",k,minor\r\nshort,line\r\n"x"y,,,,\n', id="csv"),
    pytest.param(mapping("csv", columns=["node", "kind"], delimiter=";"), b"a;k\nb;k\n1;2;3\n;;;", id="csv-named"),
    pytest.param(mapping("lines", pattern=r"^(?P<node>\w+) (?P<kind>\w+)$"), b"a k\nb k\nno match here\n--",
                 id="lines"),
    pytest.param(mapping("json", records="a.b"), b'{"a":{"b":[{"node":"a","kind":"k"},{"node":"b","kind":"k"},3,4]}}',
                 id="json"),
    pytest.param(mapping("xml", records="alarm"),
                 b'<?xml version="1.0"?><alarms><alarm><node>a</node><kind>k</kind></alarm>'
                 b"<alarm><node>b</node><kind>k</kind></alarm><alarm/><alarm>x</alarm></alarms>", id="xml"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "data"), FORMS)
@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_every_form_however_it_is_cut(how: RecordMapping, data: bytes, cut: int) -> None:
    blocks = [data[i : i + cut] for i in range(0, len(data), cut)]
    chunks = list(RecordReader(how).chunks(blocks))
    assert [record["node"] for chunk in chunks for record in chunk.each()] == ["a", "b"]
    assert sum(chunk.malformed for chunk in chunks) == 2
    assert chunks[0].column("node")[:2] in (["a", "b"], ("a", "b"))


def test_a_line_without_end_is_dropped_and_the_next_is_read() -> None:
    how = mapping("jsonl", line_bytes_max=50)
    blocks = [b"x" * 40] * 10 + [b'\n{"node":"a","kind":"k"}\n', b"y" * 200 + b"\n"]
    (chunk,) = RecordReader(how).chunks(blocks)
    assert (chunk.rows, chunk.malformed) == (1, 2)


def test_documents_have_a_limit_and_must_be_what_they_say() -> None:
    with pytest.raises(DecodeError, match="document_bytes_max"):
        list(RecordReader(mapping("json", document_bytes_max=10)).chunks([b"[1, 2, 3, 4, 5]"]))
    for body in (b"", b"{", b"[" * 90_000):
        with pytest.raises(DecodeError, match="no JSON"):
            document_chunk(body, mapping("json"))
    with pytest.raises(DecodeError, match="nothing at records"):
        document_chunk(b'{"error": "not today"}', mapping("json", records="alarms"))
    assert document_chunk(b'{"alarms": null}', mapping("json", records="alarms")).rows == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1774000000", 1774000000), ("1774000000500", 1774000000.5), ("2026-03-20T09:46:40Z", 1774000000),
     ("2026-03-20 10:46:40", 1774000000), ("20.03.2026 10:46", 1773999960), ("yesterday", 0), ("", 0),
     ("20.03.2026 09:46 GMT", 1773999960), ("20.03.2026 10:46 CET", 1773999960), ("20.03.2026 10:46 XYZ", 0),
     ("2026-03-20 10:46:40 CET", 1774000000), ("2026-03-20T10:46:40.000 CET", 1774000000),
     ("Fri, 20 Mar 2026 10:46:40", 1774000000), ("Fri, 20 Mar 2026 04:46:40 EST", 1774000000),
     ("Fri, 20 Mar 2026 11:46:40 CEST", 1774000000), ("Fri Mar 20 10:46:40 CET 2026", 1774000000),
     ("Fri, 20 Mar 2026 11:46:40 XYZ", 0), ("Fri Mar 20 10:46:40 XYZ 2026", 0),
     ("Mar 20 2026 10:46:40 PM", 0), ("Fri, 20 Mar 2026 10:46:40 (CET)", 0)],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    """A time whose zone is unknown is none: read in the mapping's zone it would be hours off."""
    times = ["iso", "epoch", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M %Z"]
    how = mapping("json", zone="Europe/Berlin", times=times)
    assert how.time_ns(text) == round(seconds * 1e9)


# ---- the ways in


def push(here: Here, body: bytes, **headers: str) -> dict[str, Any]:
    request = Request("POST", "/", {}, headers, "192.0.2.1", iter([body]))
    return cast(dict[str, Any], json.loads(here.source.handle(request).body))


def test_pushed_records(tmp_path: Path) -> None:
    here = Here(tmp_path, push={"listen": "http://127.0.0.1:0"})
    body = json.dumps({"alarms": [smod(), smod("78", ne={}, port="")]}).encode()
    assert push(here, body) == {
        "taken": 1, "rejected": 1, "reasons": "1 entity ({ne.name}:{port}) is empty",
    }  # fmt: skip
    assert here.node.alarms() == [("msan-12:1/1/4", "critical", "LOS on msan-12 port 1/1/4")]
    assert push(here, json.dumps({"alarms": [smod(status="CLOSED")]}).encode())["taken"] == 1
    assert here.node.open_ids() == set()
    with pytest.raises(HttpRefusedError, match="no JSON"):
        push(here, b"{")
    here.source.turn()
    (row,) = here.node.rows("ledger")[-1:]
    assert row["sent"] == row["decoded"] + row["undecodable"]


def test_pushed_samples_count_once_under_one_key(tmp_path: Path) -> None:
    here = Here(tmp_path, str(SHIPPED / "probe-csv.toml"), push={"listen": "http://127.0.0.1:0"})
    body = b"time;site;target;rtt_ms;loss\n2026-03-20T10:57:00;BER;ber-agg-01;3.1;0\n2026-03-20T10:57:00;BER;x;-;0\n"
    for _ in range(2):
        assert push(here, body, **{"idempotency-key": "a1"}) == {
            "taken": 2, "rejected": 1, "reasons": "1 metric or value is empty or no number",
        }  # fmt: skip
    assert here.node.values() == {
        "entity=ber-agg-01,metric=rtt_ms,site=BER": (3.1, 0),
        "entity=ber-agg-01,metric=loss,site=BER": (0.0, 0),
        "entity=x,metric=loss,site=BER": (0.0, 0),
    }
    assert len(here.node.rows("sample")) == 3
    assert here.node.rows("series")[0]["unit"] == "ms"


class Smod:
    """A REST interface that lists open alarms in pages."""

    def __init__(self) -> None:
        self.alarms: list[Any] = []
        self.page = 2
        self.status = 200
        self.http = Emulator(self.answer)

    def answer(self, asked: Asked) -> Reply:
        start = int(asked.target.partition("start=")[2] or 0)
        shown = self.alarms[start : start + self.page]
        more = (
            f"http://smod.internal/api?start={start + self.page}"
            if start + self.page < len(self.alarms)
            else None
        )
        return Reply(self.status, json.dumps({"alarms": shown, "more": more}).encode())


@pytest.fixture
def system() -> Iterator[Smod]:
    made = Smod()
    yield made
    made.http.close()


def test_a_polled_list_that_is_complete_ends_what_is_gone(tmp_path: Path, system: Smod) -> None:
    here = Here(tmp_path, rest={"url": system.http.url + "/api", "next": "more"}, complete=True)
    system.alarms = [smod(str(i), port=f"1/{i}") for i in range(5)]
    assert len(here.poll()) == 5
    assert here.poll() == []
    del system.alarms[1]
    assert here.poll() == [("msan-12:1/1", "cleared", "LOS on msan-12 port 1/1")]
    system.alarms.append({"id": "broken"})
    del system.alarms[0]
    assert here.poll() == []  # a list with a record that cannot be read clears nothing
    system.status = 503
    with pytest.raises(PeerError, match="503"):
        here.poll()
    system.status = 200
    del system.alarms[-1]
    assert here.poll() == [("msan-12:1/0", "cleared", "LOS on msan-12 port 1/0")]


def test_polled_sql_asks_only_for_what_is_new(tmp_path: Path) -> None:
    database = tmp_path / "smod.db"
    with sqlite3.connect(database) as rows:
        rows.execute("CREATE TABLE alarm (node TEXT, kind TEXT, sev TEXT, at INTEGER)")
        rows.execute("INSERT INTO alarm VALUES ('a', 'k', 'major', 5)")
    (tmp_path / "m.toml").write_text("[alarm]\nentity='node'\nkind='kind'\nseverity='sev'\n")
    query = "SELECT * FROM alarm WHERE at > {since}"
    sql = {"connect": {"database": str(database)}, "query": query, "since_field": "at"}
    here = Here(tmp_path, str(tmp_path / "m.toml"), sql=sql)
    assert here.poll() == [("a", "major", "k")]
    with sqlite3.connect(database) as rows:
        rows.execute("INSERT INTO alarm VALUES ('b', 'k', 'cleared', 7), ('c', 'k', 'minor', 6)")
    rows.close()
    here.node.away = True
    with pytest.raises(TransientError):
        here.poll()
    here.node.away = False
    assert here.poll() == [("b", "cleared", "k"), ("c", "minor", "k")]
    assert here.poll() == []
    here.make().start()
    here.source.stop()
    assert here.source._since("0") == "7"


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [({"driver": "no_such_driver", "query": "x"}, "not installed"), ({"query": "SELEC"}, "syntax error"),
     ({"query": "SELECT * FROM nowhere"}, "no such table")],
)  # fmt: skip
def test_sql_that_does_not_work_is_one_sentence(
    tmp_path: Path, sql: dict[str, Any], sentence: str
) -> None:
    here = Here(tmp_path, sql={"connect": {"database": ":memory:"}, **sql})
    with pytest.raises(TransientError, match=sentence):
        here.poll()


class Tail(Here):
    def __init__(self, folder: Path, **more: Any) -> None:
        (folder / "m.toml").write_text(
            "format='lines'\npattern='^(?P<node>\\w+) (?P<sev>\\w+)'\n"
            "[alarm]\nentity='node'\nkind='=line'\nseverity='sev'\n"
        )
        self.path = folder / "alarms.log"
        super().__init__(folder, str(folder / "m.toml"), file={"path": str(self.path), **more})

    def open(self) -> None:
        self.source._feed.load()
        self.source._tail = TailedFile(self.path, from_start=True, line_bytes_max=1000)
        self.source._tail.restore(self.source._feed.memory.get("tail", {}))

    def again(self) -> None:
        """A restart."""
        assert self.source._tail
        self.source._tail.close()
        self.make()
        self.open()


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Tail]:
    made = Tail(tmp_path)
    made.open()
    yield made
    assert made.source._tail
    made.source._tail.close()


def test_a_tailed_file_over_rotation_truncation_and_restart(tail: Tail) -> None:
    def names() -> list[str]:
        return [entity for entity, _, _ in tail.poll()]

    tail.path.write_text("a major\nb mi")
    assert names() == ["a"]
    with tail.path.open("a") as file:
        file.write("nor\nc major\n")
    assert names() == ["b", "c"]
    with tail.path.open("a") as file:
        file.write("d major\n")
    tail.path.rename(tail.path.with_suffix(".log.1"))
    tail.path.write_text("e major\n")
    assert names() == ["d", "e"]
    tail.path.write_text("f m\n")  # truncated and written anew
    assert names() == ["f"]
    tail.again()
    assert names() == []
    with tail.path.open("a") as file:
        file.write("g major\n")
    tail.path.rename(tail.path.with_suffix(".log.2"))
    tail.path.write_text("h major\n")
    tail.again()
    assert names() == ["g", "h"]


def test_lines_written_just_before_the_file_was_renamed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\n")
    tailed = TailedFile(path, from_start=True, line_bytes_max=1000)
    seen: list[bytes] = []
    look = TailedFile._replaced

    def meanwhile(self: TailedFile) -> bool:  # the reader saw the end, and looks at the name now
        monkeypatch.undo()
        with path.open("a") as file:
            file.write("two\n")
        path.rename(tmp_path / "a.log.1")
        path.write_text("three\n")
        return look(self)

    monkeypatch.setattr(TailedFile, "_replaced", meanwhile)
    for block in tailed.lines():
        seen += block
        tailed.commit()
    tailed.close()
    assert seen == [b"one", b"two", b"three"]


def test_a_line_without_end_is_passed_over_in_the_memory_of_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.mapped.tail.BYTES_PER_READ_MAX", 16)
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 16 * 2_000 + b"\nnext\n")
    tailed = TailedFile(path, from_start=True, line_bytes_max=10)
    assert next(tailed.lines()) == [b"", b"next"]
    assert tailed.skipped_lines == 2_000
    tailed.close()


def test_a_tailed_file_is_read_again_when_the_node_was_away(tail: Tail) -> None:
    tail.path.write_text("a major\n")
    tail.node.away = True
    with pytest.raises(TransientError):
        tail.poll()
    tail.node.away = False
    assert len(tail.poll()) == 1
    assert tail.poll() == []


def test_a_file_that_is_not_there_is_waited_for(tail: Tail) -> None:
    with pytest.raises(TransientError, match="No such file"):
        tail.poll()
    tail.path.write_text("a major\n")
    assert len(tail.poll()) == 1


def test_a_tailed_csv_of_samples_counts_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "probe.csv"
    path.write_text("time;site;target;rtt_ms;loss\n")
    here = Here(
        tmp_path, str(SHIPPED / "probe-csv.toml"), file={"path": str(path), "from_start": True}
    )
    here.source.start()
    here.source.stop()
    here.make()
    here.source._feed.load()
    here.source._tail = TailedFile(path, from_start=True, line_bytes_max=1000)
    here.source._tail.restore(here.source._feed.memory.get("tail", {}))
    with path.open("a") as file:
        file.write("2026-03-20T10:57:00;BER;x;3.1;0\n")
    here.node.forgets_to_answer = True
    with pytest.raises(TransientError):
        here.source.turn()
    here.node.forgets_to_answer = False
    here.source.turn()
    assert len(here.node.rows("sample")) == 2
    here.source._tail.close()


def test_log_lines_by_mapping(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(
        "format='jsonl'\n[log]\nhost='h'\nmessage='m'\ntime='t'\nseverity='s'\nseverities={ERR=3}\napp='=x'\n"
    )
    here = Here(tmp_path, str(tmp_path / "m.toml"), push={"listen": "http://127.0.0.1:0"})
    body = b'{"h":"r1","m":"down","t":1774000000,"s":"ERR"}\n{"h":"r1"}\n'
    assert push(here, gzip.decompress(gzip.compress(body)))["taken"] == 1
    (row,) = here.node.rows("log")
    assert (row["host"], row["severity"], row["app"], row["time_ns"]) == (
        "r1",
        3,
        "x",
        1774000000 * 10**9,
    )


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda p: p.stem)
def test_every_mapping_that_ships_loads_and_reads_its_own_example(path: Path) -> None:
    how = load_mapping(path)
    example = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")][1:]
    body = "\n".join(example).encode()
    (chunk,) = RecordReader(how).chunks([body])
    assert (chunk.rows, chunk.malformed) == (1, 0)
