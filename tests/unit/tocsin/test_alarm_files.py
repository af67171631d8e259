"""Alarm files and topologies as people have them: other columns, times, encodings, packings, gaps."""

import bz2
import gzip
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from correlator.tables.network_map import FileNetworkMap
from telemetry.errors import ConfigError
from tocsin.files.alarms import Event, placed, read_alarms
from tocsin.files.topologies import network_of, read_topology

AT_NS = 1_774_000_000_000_000_000  # 2026-03-20T09:46:40Z
SECOND_NS = 1_000_000_000
RAISE = Event(AT_NS, "los", "r1", "critical", "light is gone")
CLEAR = Event(AT_NS + 60 * SECOND_NS, "los", "r1", "cleared", "light is gone")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("kind,entity,severity,title,start,end",
         "los,r1,critical,light is gone,1774000000,1774000060"),
        ("Cleared Time;Raised Time;Alarm Name;NE Name;Perceived Severity;Additional Text",
         "2026-03-20 09:47:40;2026-03-20 09:46:40;los;r1;Critical;light is gone"),
        ("AlarmType\tDeviceID\tStartTimestamp\tEndTimestamp\tLevel\tSummary",
         "los\tr1\t1774000000000\t1774000060000\tCRIT\tlight is gone"),
        ("alarm_id|node|time|cleared_at|severity|text",
         "los|r1|2026-03-20T10:46:40+01:00|2026-03-20T09:47:40Z|fatal|light is gone"),
        ("EVENT,HostName,Event Time,End Time,Severity,Message",
         '"los","r1","03/20/2026 09:46:40 AM","03/20/2026 09:47:40 AM","critical","light is gone"'),
        ("kind,device,timestamp,clear_time,severity,title",
         "los,r1,20260320094640,20260320094740,critical,light is gone"),
        ("type,ne,occurred,recovery time,priority,description",
         "los,r1,20.03.2026 09:46:40,20.03.2026 09:47:40,emergency,light is gone"),
    ],
)  # fmt: skip
def test_columns_and_times_of_many_makers_say_the_same(tmp_path: Path, head: str, row: str) -> None:
    assert read_alarms(write(tmp_path / "a.csv", head, row)).events == [RAISE, CLEAR]


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    rows = [
        {"alarm": {"type": "los"}, "device": {"name": "r1"}, "raised": 1774000000 + 60 * end,
         "state": ("ACTIVE", "Cleared")[end], "severity": "critical", "summary": "light is gone"}
        for end in (0, 1)
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row) for row in rows)
    forms = {
        "lines.txt": lines.encode(),
        "list.json": json.dumps(rows, indent=1).encode(),
        "under.json": json.dumps({"meta": {"n": 2}, "data": {"alarms": rows}}).encode(),
        "packed": gzip.compress(lines.encode()),
        "packed.bz2": bz2.compress(lines.encode()),
        "marked.jsonl": lines.encode("utf-16"),
    }
    for name, data in forms.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert read_alarms(path, {"kind": "alarm.type"}).events == [RAISE, CLEAR], name
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("alarms.json", forms["list.json"])
    found = read_alarms(tmp_path / "a.zip", {"kind": "alarm.type"})
    assert found.events == [RAISE, CLEAR]


def test_mixed_encodings_and_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    data = "\ufeffkind,entity,start,end\nlos,Köln,10,20\n".encode() + b"los,M\xfcnchen\x00,11,21\n"
    path.write_bytes(data)
    assert {event.entity for event in read_alarms(path).events} == {"Köln", "München"}


def test_the_order_of_dates_is_that_which_fits_all_rows(tmp_path: Path) -> None:
    rows = [f"los,r1,0{month}/0{day}/2026 10:00" for month in (1, 2) for day in range(1, 10)]
    path = write(tmp_path / "a.csv", "kind,entity,start", *rows, "los,r1,02/13/2026 10:00")
    days = [(event.time_ns - read_alarms(path).events[0].time_ns) // (86_400 * SECOND_NS)
            for event in read_alarms(path).events[::2]]  # fmt: skip
    assert days == [*range(9), *range(31, 40), 43]


def test_a_file_without_any_end_is_of_occurrences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "kind,entity,start", "los,r1,10", "los,r1,50")
    file = read_alarms(path)
    assert [event.severity for event in file.events] == ["major", "cleared"] * 2
    assert file.notes == ["no row tells of an end: each is taken as over at once"]


def test_a_missing_end_among_others_is_an_alarm_that_is_up(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "kind,entity,start,end", "los,r1,10,20", "los,r2,10,", "los,r3,10,null"
    )
    assert [e.entity for e in read_alarms(path).events if e.severity == "cleared"] == ["r1"]


def test_a_few_bad_rows_are_told_and_many_refuse_the_file(tmp_path: Path) -> None:
    good = [f"los,r{i},10,20,P{i % 3}" for i in range(60)]
    head = "kind,entity,start,end,severity"
    file = read_alarms(write(tmp_path / "a.csv", head, *good, "los,r9,soon,20,P1", ",r9,1,2,P1"))
    assert len(file.events) == 120
    assert file.notes == [
        "2 rows left out; the first is row 62: 'soon' is no time",
        "severities taken as indeterminate: P0, P1, P2",
    ]
    with pytest.raises(ConfigError, match="4 of 8 rows cannot be read; the first is row 6: 'soon'"):
        read_alarms(write(tmp_path / "a.csv", head, *good[:4], *["los,r9,soon,,"] * 4))


@pytest.mark.parametrize(
    "data", [b"", b"kind,entity,start\n", b"[]", b"\x1f\x8b broken", b'{"a": 1']
)
def test_what_is_no_alarm_file_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=str(path)):
        read_alarms(path)


def test_interfaces_and_numbers_of_tables_name_entities(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "alarm_id,device_id,port,start", "7.0,28.0,ge-1,5", "7,28,,5")
    assert [(e.kind, e.entity) for e in read_alarms(path).events[::2]] == [
        ("7", "28:ge-1"),
        ("7", "28"),
    ]


def test_severities_of_netcool_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Node,AlertGroup,AlertKey,Type,Severity,FirstOccurrence",
                 "r1,Link,1,1,5,1774000000", "r1,Link,1,2,0,1774000060")  # fmt: skip
    assert [(e.kind, e.severity) for e in read_alarms(path).events] == [
        ("Link", "critical"), ("Link", "cleared"),
    ]  # fmt: skip


def test_entities_are_called_as_the_topology_calls_its_nodes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "kind,entity,start", "los,ams-1,1", "los,New York,1", "los,FRA 2:et-1,1"
    )
    network = network_of([("AMS1", "fra_2"), ("fra_2", "lon1")], [])
    file = placed(read_alarms(path), network)
    assert [event.entity for event in file.events[::2]] == ["AMS1", "New_York", "fra_2:et-1"]
    assert file.notes[-1] == "the topology does not have 1 of 3 entities: New_York, ..."
    assert placed(read_alarms(path), FileNetworkMap()).events[2].entity == "New_York"


TRIANGLE = {("a", "b"), ("b", "c"), ("a", "c")}


def triangle(network: FileNetworkMap) -> set[tuple[str, str]]:
    made = set()
    for edge in network.edges():
        (a, _), (b, _) = edge.link.ends
        assert (min(a, b), max(a, b)) not in made  # an edge that is listed twice is one
        made.add((min(a, b), max(a, b)))
    return made


@pytest.mark.parametrize(
    "lines",
    [
        ["a,b", "b,c", "c,a"],
        ["source;target;weight", "a;b;1", "b;c;1", "a;c;1"],
        ["a b {}", "b c {}", "a c {}"],
        ["# from\tto", "a\tb", "b\ta", "b\tc", "a\tc", "c\ta"],
        ["Node A,Port A,Node B", "a,1,b", "b,2,c", "c,3,a"],
    ],
)
def test_edge_lists_of_several_sorts(tmp_path: Path, lines: Sequence[str]) -> None:
    assert triangle(read_topology(write(tmp_path / "t.txt", *lines))) == TRIANGLE


@pytest.mark.parametrize(
    "tree",
    [
        [["a", "b"], ["b", "c"], ["c", "a"]],
        {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"]},
        {"nodes": [{"id": n} for n in "abc"],
         "links": [{"source": x, "target": y} for x, y in sorted(TRIANGLE)]},
        {"nodes": [{"name": n} for n in "abc"],
         "edges": [{"source": x, "target": y} for x, y in ((0, 1), (1, 2), (0, 2))]},
        {"links": [{"from": {"device": x}, "to": {"device": y}} for x, y in sorted(TRIANGLE)]},
    ],
)  # fmt: skip
def test_topologies_in_json_of_several_sorts(tmp_path: Path, tree: object) -> None:
    (tmp_path / "t.json").write_text(json.dumps(tree))
    assert triangle(read_topology(tmp_path / "t.json")) == TRIANGLE


def test_matrices_of_several_sorts(tmp_path: Path) -> None:
    matrix = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.save(tmp_path / "t.npy", matrix)
    np.savez(tmp_path / "t.npz", matrix)
    write(tmp_path / "t.csv", *(",".join(str(x) for x in row) for row in matrix))
    for name in ("t.npy", "t.npz", "t.csv"):
        network = read_topology(tmp_path / name)
        assert network.routers() == ("0", "1", "2", "3")
        assert triangle(network) == {("0", "1"), ("1", "2"), ("0", "2")}


@pytest.mark.parametrize("text", ["", "a\nb\n", '{"links": [{"x": 1}]}', "<graphml", "[1, 2]"])
def test_what_is_no_topology_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        read_topology(path)


RAISES = [("los", "r1:1"), ("bgp", "r1")]  # and their ends, in each of these


@pytest.mark.parametrize(
    ("head", "rows", "note"),
    [
        pytest.param("device,port,alarm,phase,time",
                     ["r1,1,los,Raise,10", "r1,,bgp,Raise,12", "r1,1,los,Clear,20", "r1,,bgp,Clear,22"],
                     "column phase is taken as what begins and ends an alarm", id="a-column-of-any-name"),
        pytest.param("device,port,alarm,state,phase,time",
                     ["r1,1,los,UNACK,set,10", "r1,,bgp,ACK,set,12", "r1,1,los,ACK,clear,20", "r1,,bgp,ACK,clear,22"],
                     "column phase is taken as what begins and ends an alarm", id="a-state-that-is-none"),
        pytest.param("device,port,alarm,Notification Type,time",
                     ["r1,1,los,alarm,10", "r1,,bgp,alarm,12", "r1,1,los,CLR,20", "r1,,bgp,CLR,22"],
                     "", id="notification-type"),
        pytest.param("device,port,alarm,time",
                     ["r1,1,los,10", "r1,,bgp,12", "r1,1,los cleared,20", "r1,,bgp cleared,22"],
                     "kinds that are taken as the end of another: bgp cleared of bgp, los cleared of los",
                     id="kinds"),
        pytest.param("Alarm Source;Location Information;Alarm Name;Last Occurred (NT);Cleared On (NT)",
                     ["r1;1;los;10;20", "r1;-;bgp;12;22"], "", id="times-of-the-network"),
        pytest.param("host,port,trigger,raisedAt,clearedAt", ["r1,1,los,10,20", "r1,N/A,bgp,12,22"], "", id="camel"),
    ],
)  # fmt: skip
def test_ends_are_found_however_a_file_tells_them(
    tmp_path: Path, head: str, rows: list[str], note: str
) -> None:
    file = read_alarms(write(tmp_path / "a.csv", head, *rows))
    assert file.notes == ([note] if note else [])
    assert [(one.kind, one.entity) for one in file.events] == RAISES * 2
    assert [one.severity == "cleared" for one in file.events] == [False, False, True, True]


def test_a_kind_that_ends_itself_is_no_end_of_another(tmp_path: Path) -> None:
    rows = ["linkDown,r1,10,20", "linkUp,r1,30,40"]
    file = read_alarms(write(tmp_path / "a.csv", "kind,entity,start,end", *rows))
    assert [one.kind for one in file.events] == ["linkDown"] * 2 + ["linkUp"] * 2
    assert file.notes == []


def test_a_date_and_a_time_of_day_in_two_columns_are_one_time(tmp_path: Path) -> None:
    rows = ["30.09.2026,23:59:50,r1,los", "01.10.2026,00:00:10,r1,bgp"]
    file = read_alarms(write(tmp_path / "a.csv", "Date,Time,Host,Alarm", *rows))
    raised = [one for one in file.events if one.severity != "cleared"]
    assert [one.kind for one in raised] == ["los", "bgp"]
    assert raised[1].time_ns - raised[0].time_ns == 20 * SECOND_NS


def test_a_port_whose_number_is_in_the_name_of_its_node_is_kept(tmp_path: Path) -> None:
    rows = ["los,r12,1,10", "los,r12,2,10", "los,r12,3,10", "los,r12:4,4,10", "los,r12,r12,10"]
    file = read_alarms(write(tmp_path / "a.csv", "kind,device,port,time", *rows))
    assert {one.entity for one in file.events} == {"r12:1", "r12:2", "r12:3", "r12:4", "r12"}


def test_hosts_are_known_with_and_without_their_domain(tmp_path: Path) -> None:
    network = network_of(
        [("ams1.example.net", "fra2"), ("fra2", "lon1.a"), ("lon1.a", "lon1.b")], []
    )
    rows = [f"los,{name},10" for name in ("AMS1:et-0", "fra2.example.net", "lon1", "10.0.0.1")]
    file = placed(read_alarms(write(tmp_path / "a.csv", "kind,device,time", *rows)), network)
    found = [one.entity for one in file.events if one.severity != "cleared"]
    assert found == ["ams1.example.net:et-0", "fra2", "lon1", "10.0.0.1"], "lon1 may be either"
    assert any("does not have 2 of 4 entities" in note for note in file.notes)
