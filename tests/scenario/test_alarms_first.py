"""Alarms leave before incidents are told where no sink takes these, and before the outbox has them (ADR 0067)."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from alerting.incidents.incidents import Incidents
from alerting.words.delivery import Delivery
from runtime.bus import Publisher, RequestServer, packed
from runtime.journal import JournalReader, pack
from tests.support import live_node
from tests.support.fed_node import SECOND, START_NS, Machine
from tocsin import verbs
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import Fault

CUT = Fault("link-cut", load_demo_network().links_used()[0], START_NS + 11 * SECOND, 1 << 62)


class Gate:
    """Asks what is due as soon as a node says that something will be, and before that does anything more."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"ipc://{machine.state}/node.sock")
        self.asked = False
        publish = Publisher.publish

        def wakes(publisher: Publisher, topic: str, body: bytes) -> None:
            publish(publisher, topic, body)
            if topic == "due":
                self.asked = True
                self._socket.send_multipart([b"1", b"due", packed(verbs.DueRequest())])
                assert machine.node._server.socket.poll(5000)

        monkeypatch.setattr(Publisher, "publish", wakes)

    def answer(self) -> list[Delivery]:
        """What is due, by an answer that has been sent."""
        assert self._socket.poll(2000), "no answer so far"
        return msgspec.msgpack.decode(self._socket.recv_multipart()[2], type=list[Delivery])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def kept(machine: Machine) -> tuple[Any, ...]:
    """What a node keeps of all it did: its outbox, and what it knows of incidents."""
    outbox, stage = machine.node._outbox, machine.node._back.alerting
    incidents = stage.incidents.listed(open_only=False, limit=100)
    return outbox.changes(), outbox.deliveries(), incidents


def journal(machine: Machine) -> list[tuple[int, int, bytes]]:
    """All blocks of its journal."""
    blocks = JournalReader(machine.state / "journal").read()
    return [(block.kind, block.tick_end_ns, pack(block.batches)) for block in blocks]


def test_the_gate_has_the_alarms_before_incidents_are_told_and_a_kill_there_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch, faults=(CUT,))
    killed = tmp_path / "killed"
    due: list[Delivery] = []
    advance = Incidents.advance
    with monkeypatch.context() as watched:
        gate = Gate(machine, watched)

        def told(incidents: Incidents, now_ns: int) -> list[dict[str, Any]]:
            if gate.asked and not due:
                assert machine.node._outbox.is_done(now_ns)
                due.extend(gate.answer())
                shutil.copytree(machine.state, killed, ignore=shutil.ignore_patterns("*.sock"))
            return advance(incidents, now_ns)

        watched.setattr(Incidents, "advance", told)
        while not gate.asked:
            machine.run(0.25)
        gate.close()
    whole = kept(machine)
    machine.node.stop()
    alarms, _, incidents = whole
    assert [delivery.alarm for delivery in due] == [alarm["id"] for alarm in alarms]
    assert alarms
    assert incidents
    blocks = journal(machine)
    machine.state = killed
    machine.start()
    assert "due" not in machine.node._publisher._sequence, "woken for what it knows"
    again = kept(machine)
    machine.node.stop()
    assert again == whole
    assert journal(machine) == blocks


@pytest.mark.parametrize("of", ["alarms", "incidents"])
def test_the_gate_has_what_is_due_before_the_outbox_and_a_kill_there_loses_and_doubles_nothing(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = live_node.CONFIG.replace('send = "alarms"', f'send = "{of}"')
    monkeypatch.setattr(live_node, "CONFIG", usual)
    machine = Machine(tmp_path, monkeypatch, faults=(CUT,))
    killed = tmp_path / "killed"
    due: list[Delivery] = []
    serve_only = RequestServer.serve_only
    with monkeypatch.context() as watched:
        gate = Gate(machine, watched)

        def answers(server: RequestServer, verb: str) -> int:
            found = serve_only(server, verb)
            if found and not due:
                due.extend(gate.answer())
                shutil.copytree(machine.state, killed, ignore=shutil.ignore_patterns("*.sock"))
            return found

        watched.setattr(RequestServer, "serve_only", answers)
        while not due:
            machine.run(0.25)
        gate.close()
    whole = kept(machine)
    machine.node.stop()
    blocks = journal(machine)
    machine.state = killed
    outbox = sqlite3.connect(killed / "node.sqlite")
    assert outbox.execute("select count(*) from delivery").fetchone() == (0,)
    outbox.close()
    machine.start()
    again = kept(machine)
    machine.node.stop()
    assert again == whole
    assert journal(machine) == blocks
    told = {one["key"]: one["number"] for one in again[1]}
    assert told == {delivery.key: delivery.number for delivery in due}


def test_a_sink_that_says_nothing_of_what_it_takes_gets_incidents_told_with_the_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = live_node.CONFIG.replace('send = "alarms"\n', "")
    assert usual != live_node.CONFIG
    monkeypatch.setattr(live_node, "CONFIG", usual)
    machine = Machine(tmp_path, monkeypatch, faults=(CUT,))
    machine.run(16)
    _, deliveries, incidents = kept(machine)
    machine.node.stop()
    assert incidents
    assert {one["alarm"] for one in deliveries} == {one["incident_id"] for one in incidents}
