"""Events and records a second of sources that run in the gate: VES, Netcool, files by mapping.

Part of `perf/collectors.py`. All of it is Python with JSON in C: these streams are slow by nature. The
peer of VES is the check of the same events by a compiled schema (fastjsonschema), which is what a
collector of one's own would begin with.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from collectors.http.input import Request
from collectors.managers.netcool import NetcoolOptions, alarm_of, row_set
from collectors.mapped.ingest import Ingester, TakenChunks
from collectors.mapped.mapping import MappingFile, RecordMapping
from collectors.ves.source import VesSource
from perf.measure import best_seconds, row
from tests.support.source_world import START_NS, MemoryNode, source_of, world

Rows = list[dict[str, object]]
EVENTS = 2_000
BATCH = 100
CSV_LINES = 200_000
SHARED = Path(__file__).parents[2] / "shared"


def _header(domain: str, number: int) -> dict[str, Any]:
    return {
        "version": "4.1", "vesEventListenerVersion": "7.2.1", "domain": domain, "eventId": f"e{number}",
        "eventName": domain, "priority": "High", "sequence": number + 1, "reportingEntityName": "ems1",
        "sourceName": f"du{number % 200}", "startEpochMicrosec": START_NS // 1000,
        "lastEpochMicrosec": START_NS // 1000,
    }  # fmt: skip


def _fault(number: int) -> dict[str, Any]:
    block = {
        "faultFieldsVersion": "4.0", "alarmCondition": "lossOfLight", "eventSourceType": "port",
        "specificProblem": "no light", "vfStatus": "Active", "alarmInterfaceA": f"et-0/0/{number % 48}",
        "eventSeverity": ("MAJOR", "NORMAL")[number % 2],
    }  # fmt: skip
    return {"commonEventHeader": _header("fault", number), "faultFields": block}


def _measurement(number: int) -> dict[str, Any]:
    cpus = [
        {"cpuIdentifier": f"cpu{i}", "percentUsage": 1.5 * i, "cpuIdle": 50.0} for i in range(10)
    ]
    block = {"measurementFieldsVersion": "4.0", "measurementInterval": 60, "cpuUsageArray": cpus}
    return {"commonEventHeader": _header("measurement", number), "measurementFields": block}


def ves() -> Rows:
    """VES in batches of 100: from the body of the request to what the node is offered."""
    made: Rows = []
    for name, make in (("fault", _fault), ("measurement of 20 values", _measurement)):
        events = [make(number) for number in range(EVENTS)]
        bodies = [
            json.dumps({"eventList": events[i : i + BATCH]}).encode()
            for i in range(0, EVENTS, BATCH)
        ]
        with tempfile.TemporaryDirectory() as folder:
            node, _, context = world("perf")

            def offer_all(folder: str = folder, context: Any = context, node: MemoryNode = node,
                          bodies: list[bytes] = bodies) -> None:  # fmt: skip
                source = source_of(
                    "ves", {"listen": "http://127.0.0.1:0"}, node, context, Path(folder)
                )
                assert isinstance(source, VesSource)
                for body in bodies:
                    path = "/eventListener/v7/eventBatch"
                    source.handle(Request("POST", path, {}, {}, "192.0.2.1", iter([body])))
                node.clear()

            seconds = best_seconds(offer_all)
        made += [
            row(f"VES, {name}: events a second", EVENTS / seconds, "events/s"),
            row(f"VES, {name}: CPU", seconds / EVENTS * 1e6, "s/M events", None, "lower"),
        ]
        made += _schema_alone(name, events)
    return made


def _schema_alone(name: str, events: list[dict[str, Any]]) -> Rows:
    path = SHARED / "specs/onap/CommonEventFormat_30.2.1_ONAP.json"
    if not path.exists():
        return []
    import fastjsonschema

    check = fastjsonschema.compile(json.loads(path.read_text()), use_default=False)
    bodies = [json.dumps({"event": event}).encode() for event in events]
    seconds = best_seconds(lambda: [check(json.loads(body)) for body in bodies])
    return [row(f"fastjsonschema, {name}: check alone", EVENTS / seconds, "events/s")]


def netcool() -> Rows:
    """Rows of an ObjectServer's answer to alarms, 5,000 a page."""
    one = {
        "Identifier": "a", "ServerName": "AGG_P", "ServerSerial": 1, "Node": "ber-1", "Manager": "probe",
        "AlertGroup": "Interface Status", "AlertKey": "ifEntry.1", "Severity": 5, "Type": 1, "Tally": 3,
        "Summary": "Interface down", "StateChange": 1774000181, "FirstOccurrence": 1774000000,
        "LastOccurrence": 1774000180, "Acknowledged": 0, "OwnerUID": 65534, "SuppressEscl": 0,
        "LocalPriObj": "xe-0/0/17", "X733EventType": 2, "X733ProbableCause": 8,
    }  # fmt: skip
    rows = [one | {"Identifier": f"a{i}", "ServerSerial": i} for i in range(5_000)]
    body = json.dumps({"rowset": {"osname": "AGG_P", "affectedRows": 5_000, "rows": rows}}).encode()
    options = NetcoolOptions(url="http://x")

    def read() -> None:
        found, _, _ = row_set(body)
        made = [alarm_of(one, 0, options) for one in found]
        assert all(alarm is not None for alarm in made)

    seconds = best_seconds(read)
    return [row("Netcool: rows to alarms", 5_000 / seconds, "rows/s")]


def ingest() -> Rows:
    """CSV to samples, one value a line, 500 series, from the file to what the node is offered."""
    file = {
        "format": "csv",
        "sample": {"entity": "node", "time": "time", "metric": "metric", "value": "value"},
    }
    mapping = RecordMapping(msgspec.convert(file, MappingFile))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.csv"
        with path.open("w", encoding="utf-8") as out:
            out.write("time,node,metric,value\n")
            for i in range(CSV_LINES):
                out.write(f"{1774000000 + i // 500},node-{i % 100},m{i % 5},{i % 977}.5\n")
        runs = iter(range(100))

        def take() -> None:
            node, _, context = world("perf")
            chunks = TakenChunks(Path(name) / f"taken-{next(runs)}", context, most=1_000)
            Ingester("perf", mapping, context, node, chunks).file(path)
            assert sum(b.rows for b in node.batches if b.schema.name == "sample") == CSV_LINES
            chunks.close()

        seconds = best_seconds(take)
        size = path.stat().st_size
    return [
        row("ingest: CSV lines to samples", CSV_LINES / seconds, "lines/s"),
        row("ingest: CSV", size / seconds / 1e6, "MB/s"),
    ]
