"""Captures and files reach the collector that they are for, by what its part declares."""

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.block import DatagramBlock
from collectors.capture.writer import PcapngWriter
from collectors.config import ListenerSettings
from collectors.datagram import Datagram
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from runtime.registry import NoOptions, Part, Reads
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import DecodeError
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import V4_MAPPED
from telemetry.schemas import ALARM, LEDGER, LOG
from tests.support.decoding import decoded
from tocsin.cases.replay import Replay
from tocsin.config import Config

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND


class Lines:
    """Lines of text: whole datagrams, or streams cut anywhere; `!` at the start cannot be read."""

    emits = (LOG, ALARM, LEDGER)

    def __init__(self, stream: bool) -> None:
        self.stream = stream
        self.rest: dict[int, bytes] = {}
        self.bad = 0

    def decode(self, block: DatagramBlock) -> list[Batch]:
        rows = []
        for d in range(block.datagrams):
            start, size = int(block.offset[d]), int(block.length[d])
            data = block.payload[start : start + size].tobytes()
            if self.stream:
                port = int(block.exporter_port[d])
                data = self.rest.pop(port, b"") + data
                data, self.rest[port] = (data, b"") if not size else _whole(data)
            for line in data.decode().splitlines():
                if line.startswith("!"):
                    self.bad += 1
                elif line:
                    when = int(block.arrival_ns[d])
                    rows.append({"time_ns": when, "arrival_ns": when, "message": line})
        return [batch_from_rows(LOG, rows)] if rows else []

    def advance(self, frontier_ns: int) -> list[Batch]:
        bad, self.bad = self.bad, 0
        row = {"arrival_ns": frontier_ns, "protocol": "lines", "sent": bad, "undecodable": bad}
        return [batch_from_rows(LEDGER, [row])] if bad else []

    def snapshot(self, out: Any) -> None:
        """Nothing."""

    def restore(self, state: Any) -> None:
        """Nothing."""


def _whole(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _make(settings: ListenerSettings, options: NoOptions, context: Any) -> Lines:
    return Lines(settings.listen.startswith("tcp:"))


def _parse(data: bytes, name: str) -> list[Batch]:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise DecodeError("corrupt", f"{name}: no JSON") from error
    row = alarm_row(
        source=name,
        kind="k",
        entity=fields["entity"],
        severity="major",
        changed_ns=START_NS,
        title="t",
    )
    return [batch_from_rows(ALARM, [row])]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector of lines on ports 7001 (UDP) and 7002 (TCP), and a source of JSON documents."""
    reads = Reads((7001,), (7002,), "stream", lambda head: head.startswith(b"line "))
    documents = Reads(parse=_parse, looks_like=lambda head: head.startswith(b"{"))
    for registry, kind, part in (
        (COLLECTORS, "lines", Part("lines", _make, reads=reads)),
        (SOURCES, "documents", Part("documents", lambda *_: None, reads=documents)),
    ):
        monkeypatch.setitem(registry.ours, kind, "none:none")  # type: ignore[attr-defined]
        monkeypatch.setitem(registry._found, kind, part)


def packets(*payloads: tuple[bytes, int]) -> list[Datagram]:
    return [
        Datagram(START_NS + i * SECOND, 0, V4_MAPPED | 0x0A000001, 5000, port, data)
        for i, (data, port) in enumerate(payloads)
    ]


def capture(path: Path, *payloads: tuple[bytes, int]) -> Path:
    writer = PcapngWriter(path)
    for one in packets(*payloads):
        writer.write(one, destination_port=one.destination_port)
    writer.close()
    return path


def messages(rows: list[dict[str, Any]]) -> list[str]:
    return [row["message"] for row in rows if row["schema"] == "log"]


def test_a_datagram_goes_to_the_collector_of_its_port(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcapng", (b"line 1\n!bad", 7001), (b"line 2", 7001), (b"x", 9))
    rows, undecoded = decoded(path)
    assert messages(rows) == ["line 1", "line 2"]
    assert [row["time_ns"] for row in rows] == [START_NS, START_NS + SECOND]
    assert undecoded == {"lines messages that could not be read": 1}


def test_a_name_takes_every_datagram(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcapng", (b"line 1", 1), (b"line 2", 2))
    assert messages(decoded(path, protocol="lines")[0]) == ["line 1", "line 2"]


def test_a_file_of_text_is_one_stream_and_told_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(b"line %d\n" * 30_000 % tuple(range(30_000)) + b"last")
    found = messages(decoded(path)[0])
    assert found == [f"line {i}" for i in range(30_000)] + ["last"]


def test_a_document_is_parsed_by_its_source(tmp_path: Path) -> None:
    path, broken = tmp_path / "one.json", tmp_path / "two.json"
    path.write_text('{"entity": "ams1"}')
    broken.write_text("{")
    rows, undecoded = decoded(path, broken)
    assert [(row["schema"], row["entity"]) for row in rows] == [("alarm", "ams1")]
    assert list(undecoded.values()) == [1]


def test_replay_feeds_it_at_event_ticks(tmp_path: Path) -> None:
    path = capture(
        tmp_path / "a.pcapng", (b"line 1", 7001), (b"line 2", 7001), (b"x", 9), (b"line 3", 7001),
        (b"x", 9), (b"x", 9),
    )  # fmt: skip
    run = Replay(Config())
    seen = []
    run.back.on_tick = lambda tick: seen.append(
        (tick.tick_end_ns, [text for b in tick.batches for text in b.texts("message")])
    )
    assert list(run.captures([path])) == []
    assert seen == [
        (START_NS + SECOND, ["line 1"]), (START_NS + 2 * SECOND, ["line 2"]),
        (START_NS + 4 * SECOND, ["line 3"]),
    ]  # fmt: skip
