"""A live node, killed while it works: nothing committed is lost, and its journal replays to the same bytes."""

import json
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest

from alerting.words.alert import Alert, canonical
from runtime.journal import BlockKind, JournalReader
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, feed, write_config
from tocsin.cases.replay import Replay
from tocsin.config import load_config
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000


def committed(state: Path) -> tuple[list[bytes], list[int]]:
    with sqlite3.connect(state / "node.sqlite") as db:
        bodies = [
            row[0]
            for row in db.execute(
                "select text from change join body on number = body order by changed_ns, key"
            )
        ]
        done = [row[0] for row in db.execute("select tick_end_ns from done order by 1")]
    return [canonical(msgspec.json.decode(body, type=Alert)) for body in bodies], done


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("checkpoint_seconds", [600.0, 4.0], ids=["journal-only", "checkpoints"])
def test_a_node_killed_twice_agrees_with_the_replay_of_its_journal(
    tmp_path: Path, deep: bool, checkpoint_seconds: float
) -> None:
    import socket

    ports = (free_port(42055, socket.SOCK_DGRAM), free_port(46343, socket.SOCK_DGRAM))
    config = write_config(
        tmp_path, port=ports[0], sflow_port=ports[1], checkpoint_seconds=checkpoint_seconds
    )
    node = LiveNode(config, tmp_path / "state").start()
    node.ask()
    start_ns = CLOCK.now_ns()
    links = load_demo_network().links_used()
    faults = (
        Fault("link-cut", links[0], start_ns + 11 * SECOND, start_ns + 40 * SECOND),
        Fault("exporter-down", "fra1", start_ns + 13 * SECOND, start_ns + 60 * SECOND),
    )
    random = np.random.default_rng(3)
    try:
        with processes.beside(feed, faults, ports):
            for pause in (14.0, *random.uniform(2.0, 5.0, 25 if deep else 1)):
                CLOCK.sleep(pause)
                node.kill()
                node.start()
                node.ask()
            CLOCK.sleep(8.0)
    finally:
        code = node.stop()
    assert code == 0
    blocks = list(JournalReader(node.state / "journal").read())
    ticks = [block.tick_end_ns for block in blocks if block.kind is BlockKind.TICK]
    results = [block.tick_end_ns for block in blocks if block.kind is BlockKind.RESULT]
    alerts, done = committed(node.state)
    assert ticks == sorted(set(ticks)), "a tick was journalled twice"
    views = [
        block.tick_end_ns
        for block in blocks
        if block.kind is BlockKind.TICK and any(b.schema.name == "frame" for b in block.batches)
    ]
    assert sorted(results) == views, "each tick of a view has one result, here no other has any"
    assert done == views, "each of them was committed once"
    gaps = [
        json.loads(text)
        for block in blocks
        for batch in block.batches
        if batch.schema.name == "control"
        for text in batch.texts("payload")
    ]
    assert len(gaps) >= 2, "each gap is stated"
    run = Replay(load_config(config))
    replayed = sorted(run.journal(node.state / "journal"), key=_order)
    assert replayed == sorted(alerts, key=_order)
    kinds = {(json.loads(a)["kind"], json.loads(a)["entity"]) for a in alerts}
    assert {("link-cut", links[0]), ("exporter-down", "fra1")} <= kinds
    assert kinds == {("link-cut", links[0]), ("exporter-down", "fra1")}, "the gap raised an alarm"


def _order(alert: bytes) -> tuple[int, str]:
    fields = json.loads(alert)
    return fields["changed_ns"], fields["change"]
