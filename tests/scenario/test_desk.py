"""A whole running instance of profile site, asked as its users ask: REST, live feed, SQL, CLI."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from alerting.config import SinkSettings
from alerting.sinks import Parcel, make_sink
from alerting.words.alert import Alert
from tests.support import processes
from tests.support.live_node import CLOCK, feed, write_config
from tests.support.sink_peers import RIGS
from tocsin.api import models
from tocsin.api.openapi import Operation
from tocsin.api.operations import OPERATIONS
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a busy machine starts it in minutes
SECOND = 1_000_000_000
# What each path that needs an argument is asked with, besides what the running instance knows.
ASKED = {
    "series": {"match": "view=exporter,measure=octets", "since": "10m"},
    "query": {"sql": "select count() as n from frames"},
    "query_body": {"sql": "select count() as n from frames"},
    "actions": {"kind": "acknowledge"},
}


@dataclass(frozen=True, slots=True)
class Running:
    """Where the instance is."""

    base: str
    sql: str
    config: Path
    state: Path
    alarm: str  # id of one that was raised
    incident: str  # and of its incident

    def verb(self, *words: str, config: bool = True) -> "subprocess.CompletedProcess[bytes]":
        """Run a verb of the command line beside the instance."""
        command = [sys.executable, "-m", "tocsin", *words]
        command += ["-c", str(self.config)] if config else []
        return subprocess.run(
            [*command, "--state", str(self.state)], capture_output=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An instance that has stored ticks and raised an alarm for a silent exporter."""
    folder = tmp_path_factory.mktemp("d")  # short: a unix socket's path has 108 bytes
    first = os.getpid() % 100  # a range of our own: others test here too
    ports = (
        free_port(43300 + first, socket.SOCK_DGRAM),
        free_port(43600 + first, socket.SOCK_DGRAM),
    )
    api, sql = (
        free_port(48500 + first, socket.SOCK_STREAM),
        free_port(48800 + first, socket.SOCK_STREAM),
    )
    config = write_config(
        folder, port=ports[0], sflow_port=ports[1],
        extra=f'[api]\nlisten = "127.0.0.1:{api}"\nsql_listen = "127.0.0.1:{sql}"\n[history]\nflows = true\n',
    )  # fmt: skip
    config.write_text(config.read_text("utf-8").replace('"sensor"', '"site"'), "utf-8")
    network = load_demo_network()
    assert "vie1" in network.names
    process = processes.start(
        [sys.executable, "-m", "tocsin", "run", "-c", str(config), "--state", str(folder / "state")]
    )
    base = f"http://127.0.0.1:{api}"
    try:
        with processes.beside(_feed_when_up, base, ports):
            alarm = _first_alarm(base, process)
            yield Running(base, f"http://127.0.0.1:{sql}", config, folder / "state", *alarm)
    finally:
        processes.stop(process)


def _feed_when_up(stop: threading.Event, base: str, ports: tuple[int, int]) -> None:
    """Send once the instance hears: who falls silent before it was ever heard is not missed."""
    while not stop.is_set():
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{base}/ready", timeout=5).status_code == 200:
                break
        CLOCK.sleep(0.3)
    now_ns = CLOCK.now_ns()
    fault = Fault("exporter-down", "vie1", now_ns + 25 * SECOND, now_ns + 3600 * SECOND)
    feed(stop, (fault,), ports)


def _first_alarm(base: str, process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    until_ns = CLOCK.monotonic_ns() + 240 * SECOND
    while CLOCK.monotonic_ns() < until_ns:
        assert process.poll() is None, "the instance ended"
        with contextlib.suppress(httpx.HTTPError):
            found = httpx.get(f"{base}/api/v1/alarms", params={"state": "all"}, timeout=5)
            if found.status_code == 200 and found.json()["alarms"]:
                alarm = found.json()["alarms"][0]
                return str(alarm["id"]), str(alarm["incident"])
        CLOCK.sleep(0.3)
    raise AssertionError("no alarm within four minutes")


def _ask(running: Running, op: Operation, **more: Any) -> httpx.Response:
    path = op.path.replace("{id}", running.incident if "/incidents/" in op.path else running.alarm)
    if op.method == "post":
        body = {**ASKED[op.name], **more}
        if op.name == "actions":
            body["payload"] = {"alarm": running.alarm, "by": "ann"}
        return httpx.post(running.base + path, json=body, timeout=30)
    return httpx.get(running.base + path, params={**ASKED.get(op.name, {}), **more}, timeout=30)


PLAIN = [op for op in OPERATIONS if op.answer != "text/event-stream"]


@pytest.mark.parametrize("op", PLAIN, ids=lambda op: op.name)
def test_each_operation_answers_as_its_document_says(running: Running, op: Operation) -> None:
    document = httpx.get(f"{running.base}/api/v1/openapi.json", timeout=30).json()
    described = document["paths"][op.path][op.method]
    answer = _ask(running, op)
    assert answer.status_code == 200, answer.text
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in described["responses"]["200"]["content"]
    if isinstance(op.answer, type):
        msgspec.json.decode(answer.content, type=op.answer)


@pytest.mark.parametrize(
    "op", [op for op in PLAIN if op.ask and op.method == "get"], ids=lambda op: op.name
)
def test_an_unknown_parameter_is_a_problem_that_names_the_known_ones(
    running: Running, op: Operation
) -> None:
    answer = _ask(running, op, limti=5)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = msgspec.json.decode(answer.content, type=models.Problem)
    assert "limti" in problem.detail
    assert "known" in problem.detail


def test_a_mail_shows_the_series_of_its_alarm(running: Running, tmp_path: Path) -> None:
    found = httpx.get(f"{running.base}/api/v1/alarms", params={"state": "all"}, timeout=30).json()
    alert = next(
        msgspec.convert(one, Alert) for one in found["alarms"] if one["id"] == running.alarm
    )
    with RIGS["mail"](tmp_path) as rig:
        options = {**rig.settings["options"], "pictures": running.base}
        sink = make_sink(SinkSettings(**{**rig.settings, "options": options}))
        assert sink.send([Parcel(alert, "key")], now_ns=CLOCK.now_ns())
        (mail,) = rig.messages()
    (image,) = (p for p in mail.walk() if p.get_content_type() == "image/svg+xml")
    svg = ElementTree.fromstring(image.get_payload(decode=True))
    space = "{http://www.w3.org/2000/svg}"
    assert alert.title[:60] in str(next(svg.iter(f"{space}title")).text)
    assert any(len(line.attrib["points"].split()) > 2 for line in svg.iter(f"{space}polyline"))
    assert "raised" in [text.text for text in svg.iter(f"{space}text")]


def test_history_and_node_tell_of_the_same_alarm(running: Running) -> None:
    until_ns = CLOCK.monotonic_ns() + 30 * SECOND
    while True:  # the history follows the journal
        answer = httpx.get(f"{running.base}/api/v1/alarms/{running.alarm}", timeout=30)
        if answer.status_code == 200 and answer.json()["changes"]:
            break
        assert CLOCK.monotonic_ns() < until_ns, answer.text
        CLOCK.sleep(0.3)
    told = answer.json()
    listed = httpx.get(f"{running.base}/api/v1/alarms", params={"state": "all"}, timeout=30).json()
    (same,) = [alarm for alarm in listed["alarms"] if alarm["id"] == running.alarm]
    assert (told["kind"], told["entity"]) == (same["kind"], same["entity"])
    assert told["changes"][-1]["state"] == "raised"


def test_what_operators_do_shows_in_windows_load_and_the_handover(running: Running) -> None:
    """Shelve everything behind a site and silence a kind over CLI and API; the shift's report has it."""
    done = running.verb(
        "alarm",
        "shelve",
        "site:VIE",
        "--behind",
        "--for",
        "2h",
        "--reason",
        "fibre works",
        config=False,
    )
    assert done.returncode == 0, done.stderr
    body = {
        "kind": "silence",
        "payload": {"kinds": ["doorOpen"], "seconds": 3600, "name": "doors", "by": "ann"},
    }
    assert httpx.post(f"{running.base}/api/v1/actions", json=body, timeout=30).status_code == 200
    until_ns = CLOCK.monotonic_ns() + 30 * SECOND
    while True:
        found = httpx.get(f"{running.base}/api/v1/windows", timeout=30).json()["windows"]
        alarms = httpx.get(
            f"{running.base}/api/v1/alarms", params={"state": "all"}, timeout=30
        ).json()["alarms"]
        hidden = [
            one for one in alarms if one["entity"] == "vie1" and one["suppressed"] == "shelved"
        ]
        if len(found) >= 2 and hidden:
            break
        assert CLOCK.monotonic_ns() < until_ns, (found, alarms)
        CLOCK.sleep(0.3)
    assert {one["kind"] for one in found} == {"silence", "shelved"}
    done = running.verb("handover")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "silence doors: doorOpen until" in text
    assert "fibre works" in text
    assert "exporter vie1" in text
    page = httpx.get(f"{running.base}/metrics", timeout=30).text
    assert 'tocsin_alarm_load{component="alarms",figure="raises"}' in page
    expired = running.verb("alarm", "expire", "doors", config=False)
    assert expired.returncode == 0, expired.stderr


def test_the_feed_begins_at_once_and_stays_open(running: Running) -> None:
    with httpx.stream("GET", f"{running.base}/api/v1/feed", timeout=20) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert next(stream.iter_bytes())


@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv", "arrow", "parquet"])
def test_query_and_series_in_every_format_beside_the_running_desk(
    running: Running, output: str
) -> None:
    sql = "select view, measure, count() as n from frames group by view, measure order by n, view"
    done = running.verb("query", sql, "-o", output)
    assert done.returncode == 0, done.stderr
    _rows(done.stdout, output, {"view", "measure", "n"})
    done = running.verb("series", "view=exporter,measure=octets", "-o", output, "--since", "10m")
    assert done.returncode == 0, done.stderr
    time = "time" if output in ("arrow", "parquet", "table") else "time_s"
    _rows(done.stdout, output, {time, "view", "entity", "measure", "avg"})


def _rows(data: bytes, output: str, columns: set[str]) -> None:
    """Read the output with its format's own reader; it has these columns and at least one row."""
    if output == "arrow":
        table = pa.ipc.open_stream(io.BytesIO(data)).read_all()
    elif output == "parquet":
        table = parquet.read_table(io.BytesIO(data))
    else:
        text = data.decode()
        assert all(column in text for column in columns)
        assert json.loads(text) if output == "json" else len(text.strip().splitlines()) > 1
        return
    assert set(table.column_names) == columns
    assert table.num_rows > 0


def test_raw_flows_are_there_soon_and_whole(running: Running) -> None:
    sql = (
        "select count() as n, uniqExact(exporter) as exporters, min(kept_share) as least,"
        " sum(octets * sampling_rate) as octets, uniqExact(file) as files, max(arrival_ns) as newest,"
        " countIf(isIPv4String(replaceOne(toString(source), '::ffff:', ''))) as v4 from flows"
    )
    until_ns = CLOCK.monotonic_ns() + 30 * SECOND
    while True:
        done = running.verb("query", sql, "-o", "jsonl")
        assert done.returncode == 0, done.stderr
        row = {name: float(value) for name, value in json.loads(done.stdout).items()}
        if row["n"] > 5_000:
            break
        assert CLOCK.monotonic_ns() < until_ns, row
        CLOCK.sleep(0.5)
    assert row["exporters"] == len(load_demo_network().names)
    assert row["least"] == 1.0
    assert row["octets"] > 0
    assert row["v4"] == row["n"]
    # What the views counted until the newest stored record is what is stored: nothing twice.
    status = httpx.get(f"{running.base}/api/v1/status", timeout=30).json()
    assert row["n"] <= status["node"]["records"]
    assert status["node"]["records"] - row["n"] < 900 * 30


def test_the_sql_door_gives_the_same_count(running: Running) -> None:
    sql = "select uniqExact(tick_end_ns) from tocsin.frames where tick_end_ns < {end}"
    status = httpx.get(f"{running.base}/api/v1/status", timeout=30).json()
    sql = sql.replace("{end}", str(status["desk"]["history"]["high_water_ns"]))
    by_door = httpx.post(f"{running.sql}/", content=f"{sql} format TSV", timeout=30)
    assert by_door.status_code == 200, by_door.text
    by_api = running.verb("query", sql, "-o", "jsonl")
    assert int(by_door.text) == int(next(iter(json.loads(by_api.stdout).values()))) > 10


def test_a_new_node_is_on_probation_and_an_operator_lets_a_class_alert(running: Running) -> None:
    done = running.verb(
        "probation", "live", "interface/*", "--by", "ann", "--note", "looks right", config=False
    )
    assert done.returncode == 0, done.stderr
    until_ns = CLOCK.monotonic_ns() + 30 * SECOND
    while True:  # it counts from the next second on
        listed = json.loads(running.verb("probation", "list", "-o", "json", config=False).stdout)
        by_name = {one["name"]: one for one in listed["classes"]}
        if by_name["interface/point"]["live"]:
            break
        assert CLOCK.monotonic_ns() < until_ns, listed
    assert listed["mode"] == "on", "profile site"
    assert by_name["interface/point"]["by"] == "ann"
    assert not by_name["service/point"]["live"]
    assert listed["orders"][-1]["note"] == "looks right"
    wrong = running.verb("probation", "live", "nope/*", config=False)
    assert wrong.returncode == 2
    assert b"no class matches" in wrong.stderr


def test_a_verdict_teaches_the_next_alarm_by_a_process_of_its_own(running: Running) -> None:
    done = running.verb("alarm", "feedback", "true", running.alarm, "--by", "ann", config=False)
    assert done.returncode == 0, done.stderr
    until_ns = CLOCK.monotonic_ns() + 90 * SECOND
    while True:
        told = httpx.get(f"{running.base}/api/v1/triage", timeout=30).json()
        if told["model"]:
            break
        assert CLOCK.monotonic_ns() < until_ns, told
        CLOCK.sleep(0.5)
    assert told["model"]["learned"] == 1
    assert [one["verdict"] for one in told["feedback"]] == ["true"]


def test_the_record_of_predictions_is_told(running: Running) -> None:
    done = running.verb("forecast", "--record", config=False)
    assert done.returncode == 0, done.stderr
    assert b"capacity:" in done.stdout
