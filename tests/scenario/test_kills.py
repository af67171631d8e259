"""A whole Tocsin under load, its processes killed at random: what is promised of each still holds.

`tocsin run` with two shards, gate and desk; the demo's exporters send the whole time; a webhook keeps
the keys of what it was sent. Six kills here, fifty with DEEP=1.
"""

import contextlib
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from alerting.words.alert import Alert, canonical
from runtime.bus import RequestClient
from runtime.journal import BlockKind, JournalReader
from telemetry.errors import TransientError
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, feed, write_config
from tocsin import verbs
from tocsin.cases.replay import Replay
from tocsin.config import load_config, with_probation
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000
ROLES = {
    "node": b"tocsin.node", "gate": b"tocsin.gate", "desk": b"tocsin.desk",
    "shard": b"tocsin.node.shard",
}  # fmt: skip
EXTRA = """
[alerting.sinks.hook]
kind = "webhook"
send = "alarms"
url = "http://127.0.0.1:{hook}/"
[api]
listen = "127.0.0.1:{api}"
sql_listen = ""
"""


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps the idempotency key of every event."""

    keys: Counter[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys[self.headers["Idempotency-Key"]] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[int, Counter[str]]]:
    handler = type("Handler", (Hook,), {"keys": Counter()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, handler.keys  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


class Instance:
    """`tocsin run`, and the pids of its processes by role."""

    def __init__(self, config: Path, state: Path) -> None:
        self.config, self.state = config, state
        command = [sys.executable, "-m", "tocsin", "run", "-c", str(config), "--state", str(state)]
        self.process = processes.start(command, start_new_session=True)

    def pids(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {role: [] for role in ROLES}
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
                waiting += [int(child) for child in children]
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                for role, module in ROLES.items():
                    if module in words:
                        found[role].append(pid)
        return found

    def at_work(self) -> dict[str, list[int]]:
        """The pids of each role that runs; of the node and its shards once it closes ticks."""
        found = {role: pids for role, pids in self.pids().items() if pids}
        client = RequestClient(f"ipc://{self.state}/node.sock")
        try:
            closes = client.ask("status", verbs.Nothing(), verbs.Status).ticks > 1
        except TransientError:
            closes = False
        finally:
            client.close()
        return found if closes else {r: p for r, p in found.items() if r in ("gate", "desk")}

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Ask the running desk, as an operator does; None answers are tried again for a minute."""
        command = [sys.executable, "-m", "tocsin", "query", sql, "-o", "jsonl",
                   "-c", str(self.config), "--state", str(self.state)]  # fmt: skip
        for _ in range(60):
            made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if made.returncode == 0:
                return [json.loads(line) for line in made.stdout.splitlines()]
            CLOCK.sleep(1.0)
        raise AssertionError(f"no answer: {made.stderr}")

    def stop(self) -> int:
        return processes.stop(self.process, seconds=30.0)


def journalled(state: Path) -> dict[int, int]:
    """Return rows of each tick as history keeps them: a row a series and measure."""
    rows: dict[int, int] = {}
    for block in JournalReader(state / "journal").read():
        if block.kind is BlockKind.TICK:
            assert block.tick_end_ns not in rows, "a tick was journalled twice"
            rows[block.tick_end_ns] = sum(
                batch.rows for batch in block.batches if batch.schema.name == "frame"
            )
    return {tick: count for tick, count in rows.items() if count}  # event ticks have no frames


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_whoever_is_killed_nothing_is_lost_or_told_under_another_name(
    tmp_path_factory: pytest.TempPathFactory, hook: tuple[int, Counter[str]], deep: bool
) -> None:
    folder = tmp_path_factory.mktemp("k")
    ports = (free_port(42655, socket.SOCK_DGRAM), free_port(46843, socket.SOCK_DGRAM))
    extra = EXTRA.format(hook=hook[0], api=free_port(48770, socket.SOCK_STREAM))
    config = write_config(
        folder, port=ports[0], sflow_port=ports[1], checkpoint_seconds=15.0, extra=extra
    )
    text = config.read_text("utf-8").replace('profile = "sensor"', 'profile = "site"\nworkers = 2')
    config.write_text(text, "utf-8")
    instance = Instance(config, folder / "s")
    instance.query("select 1")
    start_ns = CLOCK.now_ns()
    used = load_demo_network().links_used()
    faults = tuple(
        Fault("link-cut", used[i % 12], start_ns + at * SECOND, start_ns + (at + 12) * SECOND)
        for i, at in enumerate(range(16, 900, 18))
    )
    random = np.random.default_rng(11)
    killed: Counter[str] = Counter()
    with processes.beside(feed, faults, ports):
        try:
            CLOCK.sleep(14.0)
            while killed.total() < (50 if deep else 6):
                CLOCK.sleep(float(random.uniform(2.0, 7.0)))
                assert instance.process.poll() is None, "the supervisor ended"
                running = instance.at_work()
                if not running:
                    continue
                role = min(running, key=lambda one: (killed[one], list(ROLES).index(one)))
                pids = running[role]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[int(random.integers(len(pids)))], signal.SIGKILL)
                    killed[role] += 1
            CLOCK.sleep(12.0)
            _check_history(instance, killed)
        finally:
            # Under load still: silence at the end would be a fault of its own.
            code = instance.stop()
    assert code == 0
    assert set(killed) == set(ROLES), killed
    _check_alarms(instance, hook[1], killed)


def _check_history(instance: Instance, killed: Counter[str]) -> None:
    """What is journalled now must soon be in history, all of it and once; more comes meanwhile."""
    wanted = journalled(instance.state)
    newest = max(wanted)
    assert len(wanted) >= 20, f"{len(wanted)} ticks: too few to prove anything ({killed})"
    sql = (
        "select closed_ns, count() as rows, uniqExact(view, measure, series_id) as single,"
        " uniqExact(view, series_id) as series from tocsin.frames"
        f" where closed_ns <= {newest} group by closed_ns order by 1"
    )
    found: dict[int, dict[str, Any]] = {}
    for _ in range(40):
        found = {int(row["closed_ns"]): row for row in instance.query(sql)}
        if newest in found:
            break
        CLOCK.sleep(1.0)
    assert set(found) == set(wanted), (
        f"journal has {len(wanted)} ticks, history {len(found)}; "
        f"missing {sorted(set(wanted) - set(found))[:3]}, extra {sorted(set(found) - set(wanted))[:3]}"
    )
    for tick, row in found.items():
        assert int(row["rows"]) == int(row["single"]), f"tick {tick} is there twice"
        assert int(row["series"]) == wanted[tick], f"tick {tick} is not whole"
    rolled: list[dict[str, Any]] = []
    for _ in range(80):  # until a minute is over
        rolled = instance.query(
            "select bucket, sum(count) as n from tocsin.rollups final where period = 60"
            " group by bucket"
        )
        if rolled:
            break
        CLOCK.sleep(1.0)
    # Frames are read after the rollups: a minute that is rolled up is over.
    frames = instance.query(
        "select intDiv(tick_end_ns - 1, 60000000000) * 60 as bucket, count() as n"
        " from tocsin.frames where tick_seconds <= 60 group by bucket"
    )
    by_minute = {int(row["bucket"]): int(row["n"]) for row in frames}
    assert rolled, "no minute was rolled up"
    for row in rolled:
        assert int(row["n"]) == by_minute[int(row["bucket"])], f"minute {row['bucket']}"


def _check_alarms(instance: Instance, keys: Counter[str], killed: Counter[str]) -> None:
    with sqlite3.connect(instance.state / "node.sqlite") as db:
        bodies = [
            row[0] for row in db.execute("select text from change join body on number = body")
        ]
        waiting = db.execute("select count(*) from delivery where sink = 'hook'").fetchone()[0]
    alerts = [canonical(msgspec.json.decode(body, type=Alert)) for body in bodies]
    assert alerts, "no alarm at all: the test proves nothing"
    kinds = Counter(json.loads(alert)["kind"] for alert in alerts)
    assert set(kinds) == {"link-cut"}, f"a gap raised an alarm: {kinds}"
    blocks = list(JournalReader(instance.state / "journal").read())
    stated = [
        json.loads(text)
        for block in blocks
        for batch in block.batches
        if batch.schema.name == "control"
        for text, kind in zip(batch.texts("payload"), batch.texts("kind"), strict=True)
        if kind == "gap"
    ]
    assert len(stated) >= killed["node"], "each gap of the node is stated"
    replayed = Replay(with_probation(load_config(instance.config))).journal(
        instance.state / "journal"
    )
    assert sorted(replayed) == sorted(alerts), "the states are those of an uninterrupted replay"
    told = {key.removesuffix("-hook") for key in keys}
    changes = {json.loads(alert)["change"] for alert in alerts}
    assert told <= changes, f"told under another name: {sorted(told - changes)[:3]}"
    assert len(changes - told) <= waiting, f"lost: {sorted(changes - told)[:3]}"


@pytest.mark.slow
def test_a_desk_that_stands_still_or_dies_stops_neither_collecting_nor_alerting(
    tmp_path_factory: pytest.TempPathFactory, hook: tuple[int, Counter[str]]
) -> None:
    folder = tmp_path_factory.mktemp("d")
    ports = (free_port(42255, socket.SOCK_DGRAM), free_port(46543, socket.SOCK_DGRAM))
    extra = EXTRA.format(hook=hook[0], api=free_port(48570, socket.SOCK_STREAM))
    config = write_config(folder, port=ports[0], sflow_port=ports[1], extra=extra)
    text = config.read_text("utf-8").replace('profile = "sensor"', 'profile = "site"')
    config.write_text(text, "utf-8")
    instance = Instance(config, folder / "s")
    node = LiveNode(config, folder / "s")
    (desk,) = _wait_for(instance, "desk")
    node.ask()
    start_ns = CLOCK.now_ns()
    used = load_demo_network().links_used()
    faults = (
        Fault("link-cut", used[0], start_ns + 16 * SECOND, start_ns + 23 * SECOND),
        Fault("link-cut", used[1], start_ns + 30 * SECOND, start_ns + 37 * SECOND),
    )
    with processes.beside(feed, faults, ports):
        try:
            CLOCK.sleep(12.0)
            os.kill(desk, signal.SIGSTOP)
            before = node.ask().records
            CLOCK.sleep(12.0)
            assert node.ask().records - before > 5_000, "collecting stood still with the desk"
            assert any("-raised-" in key for key in hook[1]), "no alert while the desk stood still"
            told = len(hook[1])
            os.kill(desk, signal.SIGKILL)
            CLOCK.sleep(16.0)
            assert len(hook[1]) > told, "no alert after the desk died"
            assert _wait_for(instance, "desk") != [desk], "the desk came back"
        finally:
            code = instance.stop()
    assert code == 0


def _wait_for(instance: Instance, role: str) -> list[int]:
    for _ in range(100):
        if found := instance.pids()[role]:
            return found
        CLOCK.sleep(0.2)
    raise AssertionError(f"no {role}")
