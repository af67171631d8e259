"""Mutated messages of other systems: refused with a reason or read, never a crash, always bounded."""

import copy
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from collectors.foreign_sync import ForeignAlarm
from collectors.foreign_text import json_of
from collectors.http.body import Body, HttpRefusedError, TooSlowError
from collectors.managers.alertmanager import AlertmanagerOptions, read_list, read_webhook
from collectors.managers.netcool import NetcoolOptions, alarm_of, row_set
from collectors.managers.spectrum import SpectrumOptions, places_of
from collectors.managers.spectrum import alarm_of as spectrum_alarm
from collectors.managers.spectrum_answers import notified, page_of
from collectors.managers.tmf642 import alarm_of as tmf642_alarm
from collectors.mapped.mapping import MappingFile, RecordMapping
from collectors.mapped.records import RecordReader, file_chunks
from collectors.mapped.rows import MappedRows
from collectors.pm.xml import PmReader, read_measurements
from collectors.ves.events import Reading, read_event
from collectors.ves.fields import fault_of
from telemetry.batch import batch_from_rows
from telemetry.errors import DecodeError
from telemetry.schemas import ALARM, LOG
from tests.support.source_world import START_NS
from tests.unit.collectors.test_pm_xml import NAMED, pm, value

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 10_000  # of each format


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Cut, flip, repeat and swap bytes; put numbers and brackets where none should be."""
    made = bytearray(data[: random.integers(0, len(data) + 1)] if random.random() < 0.2 else data)
    for _ in range(int(random.integers(1, 5))):
        if not made:
            break
        at = int(random.integers(len(made)))
        match int(random.integers(5)):
            case 0:
                made[at] ^= 1 << int(random.integers(8))
            case 1:
                words = (
                    b"null",
                    b"1e999",
                    b"[]",
                    b"{}",
                    b"-1",
                    b'"',
                    b"\x00",
                    b"\xff",
                    b"<",
                    b"NaN",
                    b"9" * 30,
                )
                made[at : at + 1] = words[int(random.integers(len(words)))]
            case 2:
                end = min(at + int(random.integers(1, 40)), len(made))
                made[at:at] = made[at:end]
            case 3:
                del made[at : at + int(random.integers(1, 40))]
            case _:
                made[at] = int(random.integers(256))
    return bytes(made)


def mutate_tree(value: Any, random: np.random.Generator) -> Any:
    """Change a value somewhere in a JSON document; the document stays one."""
    made = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []
    waiting = [made]
    while waiting:
        here = waiting.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            spots.append((here, key))
            if isinstance(here[key], dict | list):
                waiting.append(here[key])
    wrong = (
        None,
        True,
        0,
        -1,
        1e300,
        "",
        "x" * 9_000,
        [],
        {},
        [[]],
        {"a": {}},
        "0x",
        "\u0000",
        2**70,
        "-",
    )
    for _ in range(int(random.integers(1, 4))):
        here, key = spots[int(random.integers(len(spots)))]
        if isinstance(here, dict) and key in here:
            here[key] = wrong[int(random.integers(len(wrong)))]
    return made


def shortened(value: Any) -> Any:
    """Return a document whose lists hold two entries at most."""
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value[:2]] if isinstance(value, list) else value


def rows_can_be_made(alarms: list[ForeignAlarm]) -> None:
    rows = [alarm.row("fuzz", START_NS) for alarm in alarms]
    batch = batch_from_rows(ALARM, rows)
    assert batch.rows == len(alarms)
    for row in rows:
        assert len(row["entity"]) <= 1_024
        assert len(row["specific_problem"]) <= 4_096
        assert len(row["explain"]) <= 400_000


def read_ves(body: bytes) -> None:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    event = document.get("event") if isinstance(document, dict) else None
    for major in (5, 7):
        if fault_of(event, major):
            continue
        out = Reading()
        read_event(event, out, START_NS)
        rows_can_be_made(out.alarms)
        batch_from_rows(LOG, out.logs)
        for block in out.measured:
            assert all(abs(value) < float("inf") for _, _, _, value, _, _ in block.values)


def read_netcool(body: bytes) -> None:
    try:
        rows, _, _ = row_set(body)
    except ValueError:
        return
    options = NetcoolOptions(url="http://x")
    rows_can_be_made([alarm for row in rows if (alarm := alarm_of(row, 0, options)) is not None])


def read_spectrum(body: bytes) -> None:
    try:
        found = page_of(body).alarms
        notified(body)
    except ValueError:
        return
    places = places_of(found, [])
    options = SpectrumOptions(url="http://x")
    rows_can_be_made([spectrum_alarm(a, places[a.alarm_id], 0, options) for a in found])


def read_alertmanager(body: bytes) -> None:
    try:
        document = json_of(body)
    except ValueError:
        return
    options = AlertmanagerOptions()
    for read in (lambda: read_webhook(document, options)[0], lambda: read_list(document, options)):
        try:
            rows_can_be_made(read())
        except ValueError:
            continue


def read_tmf642(body: bytes) -> None:
    try:
        document = json_of(body)
    except ValueError:
        return
    entries = document if isinstance(document, list) else []
    made = [tmf642_alarm(entry) for entry in entries if isinstance(entry, dict)]
    rows_can_be_made([alarm for alarm in made if alarm is not None])


WEBHOOK = {"version": "4", "truncatedAlerts": 1, "alerts": [
    {"status": "firing", "labels": {"alertname": "a", "instance": "b:1"}, "annotations": {"summary": "s"},
     "startsAt": "2026-03-20T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "f"}]}  # fmt: skip
TMF642 = [{"id": "1", "alarmedObject": {"id": "olt"}, "perceivedSeverity": "major", "state": "raised",
           "alarmType": "communicationsAlarm", "probableCause": "lossOfSignal", "specificProblem": "x",
           "alarmRaisedTime": "2026-03-20T10:00:00Z", "affectedService": [{"id": "s"}]}]  # fmt: skip


def ves_seeds(shared: Path) -> list[bytes]:
    names = ("ves7_valid_30_1_1_event.json", "measurement7x.json", "measurement5x.json",
             "ves7_valid_ip_v4.json")  # fmt: skip
    folder = shared / "captures/ves/onap-ves-collector"
    suite = shared / "captures/ves/onap-testsuite/dcae/ves_stdnDefined_3GPP-FaultSupervision.json"
    return [*((folder / name).read_bytes() for name in names), suite.read_bytes()]


def netcool_seeds(shared: Path) -> list[bytes]:
    return [(shared / "specs/samples/netcool_get_alerts_status.json").read_bytes()]


def spectrum_seeds(shared: Path) -> list[bytes]:
    folder = shared / "specs/samples"
    return [p.read_bytes() for p in sorted(folder.glob("spectrum_alarms_*"))]


@pytest.mark.parametrize(
    ("seeds", "read"),
    [
        pytest.param(ves_seeds, read_ves, id="ves"),
        pytest.param(netcool_seeds, read_netcool, id="netcool"),
        pytest.param(spectrum_seeds, read_spectrum, id="spectrum"),
        pytest.param(
            lambda _: [json.dumps(WEBHOOK).encode()], read_alertmanager, id="alertmanager"
        ),
        pytest.param(lambda _: [json.dumps(TMF642).encode()], read_tmf642, id="tmf642"),
    ],
)
def test_messages(
    shared: Path, deep: bool, seeds: Callable[[Path], list[bytes]], read: Callable[[bytes], None]
) -> None:
    random = np.random.default_rng(3)
    originals = seeds(shared)
    for original in originals:
        read(original)
    trees = [json.loads(data) for data in originals if data.lstrip()[:1] in b"{["]
    if not deep:  # long lists say the same again
        trees = [shortened(tree) for tree in trees]
        texts = [data[:4_000] for data in originals if data.lstrip()[:1] not in b"{["]
        originals = [*(json.dumps(tree).encode() for tree in trees), *texts]
    for i in range(200_000 if deep else MUTANTS):
        if i % 2 or not trees:
            read(mutate(originals[i % len(originals)], random))
        else:
            read(json.dumps(mutate_tree(trees[i // 2 % len(trees)], random)).encode())


FORMS = {
    "jsonl": b'{"node":"a","t":1774000000,"v":1.5}\n{"node":"b","t":"2026-03-20T10:00:00Z","v":"2"}\n',
    "csv": b'node,t,v\na,1774000000,1.5\n"b",2026-03-20T10:00:00Z,2\n',
    "json": b'[{"node":"a","t":1774000000,"v":1.5},{"node":"b","t":0,"v":[]}]',
    "xml": b'<?xml version="1.0" encoding="utf-8"?><a><r><node>a</node><t>1774000000</t><v>1</v></r><r/></a>',
    "lines": b"a 1774000000 1.5\nb 2026 2\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_records_by_mapping(form: str, deep: bool) -> None:
    random = np.random.default_rng(5)
    file = {
        "format": form, "records": "r" if form == "xml" else "", "line_bytes_max": 200,
        "pattern": r"(?P<node>\w+) (?P<t>\S+) (?P<v>\S+)",
        "sample": {"entity": "node", "time": "t", "metric": "=v", "value": "v"},
    }  # fmt: skip
    rows = MappedRows("fuzz", RecordMapping(msgspec.convert(file, MappingFile)), series_max=50)
    for _ in range(200_000 if deep else MUTANTS):
        data = mutate(FORMS[form], random)
        cut = int(random.integers(1, 40))
        blocks = [data[at : at + cut] for at in range(0, len(data), cut)]
        try:
            for chunk in RecordReader(rows.mapping).chunks(blocks):
                batches, taken = rows.batches(chunk, START_NS)
                assert taken <= chunk.rows
                assert all(batch.rows for batch in batches)
        except DecodeError:
            continue
        rows.take_rejected()


def test_bodies(deep: bool) -> None:
    random = np.random.default_rng(7)
    originals = [
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: t\r\n\r\n"),
        ({"Content-Length": "11", "Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00" + b"\x00" * 30),
        ({"Content-Length": "11"}, b"hello world"),
    ]
    for i in range(200_000 if deep else MUTANTS):
        headers, data = originals[i % 3]
        body = Body(BytesIO(mutate(data, random)), headers, 1_000)
        try:
            assert len(b"".join(body.blocks())) <= 1_000
            assert body.whole
        except (HttpRefusedError, TooSlowError):
            assert not body.whole


@pytest.mark.parametrize("form", ["arrow", "arrows", "parquet"])
def test_columnar_files_by_mapping(form: str, deep: bool, tmp_path: Path) -> None:
    """What is damaged is refused with the reason; the library's own parser must not bring us down."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"node": ["a", "b"], "t": [1774000000, 1774000060], "v": [1.5, None]})
    path = tmp_path / f"file.{form}"
    if form == "parquet":
        parquet.write_table(table, path)
    else:
        make = pyarrow.ipc.new_stream if form == "arrows" else pyarrow.ipc.new_file
        with make(str(path), table.schema) as out:
            out.write_table(table)
    whole, random = path.read_bytes(), np.random.default_rng(9)
    file = {
        "format": "parquet" if form == "parquet" else "arrow",
        "sample": {"entity": "node", "time": "t", "metric": "=v", "value": "v"},
    }
    rows = MappedRows("fuzz", RecordMapping(msgspec.convert(file, MappingFile)), series_max=50)
    good = 0
    for n in range(200_000 if deep else MUTANTS // 10):  # opening one takes milliseconds
        path.write_bytes(whole if n == 0 else mutate(whole, random))
        try:
            for chunk in file_chunks(path, rows.mapping, lambda _: None):
                _, taken = rows.batches(chunk, START_NS)
                good += taken
        except DecodeError:
            continue
        rows.take_rejected()
    assert good >= 2


PM_SEEDS = (
    pm(NAMED + value('<r p="1">10</r><r p="2">4.5</r><suspect>true</suspect>')),
    pm("<measTypes>a b</measTypes>" + value("<measResults>1 NIL</measResults>")),
)


def test_pm_files(deep: bool) -> None:
    random = np.random.default_rng(11)
    for n in range(200_000 if deep else MUTANTS):
        data = PM_SEEDS[n % 2] if n < 2 else mutate(PM_SEEDS[n % 2], random)
        cut = int(random.integers(1, 400))
        reader = PmReader()
        try:
            found = list(
                read_measurements((data[at : at + cut] for at in range(0, len(data), cut)), reader)
            )
        except DecodeError:
            continue
        assert sum(len(one.values) for one in found) <= reader.report.results
        assert all(abs(v) < float("inf") for one in found for v in one.values.values())
