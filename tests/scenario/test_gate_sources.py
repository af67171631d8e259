"""Offers of sources: answered when journalled, each token once, also when either side dies; nobody blocks another."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from collectors.sources import SOURCES, SourceSettings
from runtime.bus import RequestServer
from runtime.clock import SystemClock
from runtime.component import Context
from runtime.journal import BlockKind, JournalReader
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError, TransientError
from telemetry.foreign_alarm import alarm_row
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import ALARM, FLOW, SAMPLE
from tests.support import processes
from tests.support.live_node import LiveNode, write_config
from tocsin import verbs
from tocsin.demo.settings import free_port
from tocsin.gate.sources import OfferLine, Sources
from tocsin.node.offers import Offers
from tocsin.testing import make_context

CLOCK = SystemClock()


def alarms(*entities: str) -> list[Batch]:
    rows = [
        alarm_row(
            source="test",
            kind="k",
            entity=entity,
            severity="major",
            changed_ns=CLOCK.now_ns(),
            title="t",
        )
        for entity in entities
    ]
    return [batch_from_rows(ALARM, rows)]


class NodeEnd:
    """The node's request socket and offers, with a journal in memory; a thread serves it."""

    def __init__(self, address: str) -> None:
        self.journal: list[Batch] = []
        self.trouble = ""
        self.held: list[Any] = []  # given and not journalled
        self.offers = Offers(self.keep, trouble=lambda: self.trouble)
        self.server = RequestServer(address)
        self.server.handle("offer", verbs.Offered, self.offers.take)
        self.closing = threading.Event()
        self.closing.set()
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def keep(self, batches: Sequence[Batch], done: Callable[[], None]) -> None:
        self.held.append((batches, done))

    def run(self) -> None:
        self.server.start()
        try:
            while not self.ended:
                self.server.serve()
                if self.closing.is_set():
                    held, self.held = self.held, []
                    for batches, done in held:
                        self.journal += batches
                        done()
                CLOCK.sleep(0.002)
        finally:
            self.server.stop()

    def stop(self) -> None:
        self.ended = True
        self.thread.join(processes.JOIN_SECONDS)

    def entities(self) -> list[str]:
        return [e for b in self.journal if b.schema.name == "alarm" for e in b.texts("entity")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeEnd]:
    made = NodeEnd(f"ipc://{tmp_path}/node.sock")
    yield made
    made.stop()


class Told:
    """A source that offers when told to."""

    def __init__(self, name: str, offer: Any) -> None:
        self.name, self.offer = name, offer
        self.stopped = False

    def start(self) -> None:
        if self.name == "broken":
            raise ConfigError("no such folder; make it")

    def stop(self) -> None:
        self.stopped = True

    def health(self) -> str:
        return "its peer is away" if self.name == "lonely" else ""


@pytest.fixture
def running(
    node: NodeEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Told]]:
    assert node
    made: dict[str, Told] = {}

    def make(name: str, options: Any, context: Context, offer: Any, folder: Path) -> Told:
        assert (options, context.name) == (NoOptions(), f"sources.{name}")
        assert folder.is_dir()
        made[name] = Told(name, offer)
        return made[name]

    monkeypatch.setitem(SOURCES.ours, "told", "none:none")  # type: ignore[attr-defined]
    monkeypatch.setitem(SOURCES._found, "told", Part("told", make))
    names = ("a", "b", "broken", "lonely")
    settings = {name: SourceSettings(kind="told") for name in names}
    sources = Sources(settings, tmp_path, make_context)
    sources.start()
    made["all"] = sources  # type: ignore[assignment]
    yield made
    sources.stop()
    assert made["a"].stopped


def test_an_offer_returns_when_it_is_journalled_and_a_token_counts_once(
    node: NodeEnd, running: dict[str, Told]
) -> None:
    running["a"].offer(alarms("x"), token="1")
    assert node.entities() == ["x"]
    running["a"].offer(alarms("x"), token="1")
    running["b"].offer(alarms("y"), token="1")  # another source's token
    running["b"].offer(alarms("z"))
    running["b"].offer(alarms("z"))  # without a token each counts
    assert node.entities() == ["x", "y", "z", "z"]


def test_a_repeat_before_the_first_was_journalled_counts_once(
    node: NodeEnd, running: dict[str, Told]
) -> None:
    node.closing.clear()
    threads = [
        threading.Thread(
            target=running["a"].offer, args=(alarms("x"),), kwargs={"token": "1"}, daemon=True
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while len(node.offers._waiting.get(("a", "1"), [])) < 2:
        CLOCK.sleep(0.005)
    assert all(thread.is_alive() for thread in threads), "answered before it was journalled"
    node.closing.set()
    for thread in threads:
        thread.join(processes.JOIN_SECONDS)
    assert node.entities() == ["x"]


def test_wrong_schemas_and_a_journal_that_refuses_are_errors_to_the_source(
    node: NodeEnd, running: dict[str, Told]
) -> None:
    with pytest.raises(TransientError, match="no source may offer flow"):
        running["a"].offer([batch_from_rows(FLOW, [{"octets": 1}])])
    node.trouble = "the disk is full"
    with pytest.raises(TransientError, match="the disk is full"):
        running["a"].offer(alarms("x"), token="1")
    with pytest.raises(TransientError, match="the disk is full"):
        running["a"].offer(alarms("x"), token="1")
    node.trouble = ""
    running["a"].offer(alarms("x"), token="1")
    assert node.entities() == ["x"]


def test_one_source_that_waits_does_not_hold_up_another(
    node: NodeEnd, running: dict[str, Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.verbs.JOURNALLED_SECONDS", 0.3)
    node.closing.clear()
    args = (running["a"].offer, alarms("x"))
    flood = [threading.Thread(target=_quietly, args=args, daemon=True) for _ in range(80)]
    for thread in flood:
        thread.start()
    while len(node.held) < 64:
        CLOCK.sleep(0.005)
    node.closing.set()
    running["b"].offer(alarms("y"))
    for thread in flood:
        thread.join(processes.JOIN_SECONDS)
    assert "y" in node.entities()


def _quietly(offer: Any, batches: list[Batch]) -> None:
    with contextlib.suppress(TransientError):
        offer(batches)


def test_a_source_that_cannot_start_is_told_and_the_others_go_on(
    running: dict[str, Any],
) -> None:
    running["a"].offer(alarms("x", "y"))
    told = {one.name: one for one in running["all"].statuses()}
    assert told["broken"].health == "source broken was not started: no such folder; make it"
    assert told["lonely"].health == "source lonely: its peer is away"
    assert (told["a"].health, told["a"].offered, told["a"].kind) == ("", 2, "told")


def test_a_node_that_is_away_is_a_transient_error(tmp_path: Path) -> None:
    line = OfferLine(f"ipc://{tmp_path}/absent.sock")
    line.start()
    with pytest.raises(TransientError, match="the node is away"):
        line.ask(verbs.Offered(source="a", token="", data=b""))
    line.stop()


def test_tokens_survive_a_checkpoint() -> None:
    from runtime.checkpoint import Snapshot

    def offers() -> Offers:
        return Offers(lambda batches, done: done(), trouble=lambda: "")

    from runtime.journal import pack

    one, kept = offers(), Snapshot()
    one.take(verbs.Offered(source="a", token="1", data=pack(alarms("x"))))
    one.snapshot(kept)
    two = offers()
    two.restore(kept)
    again = two.take(verbs.Offered(source="a", token="1", data=pack(alarms("x"))))
    assert isinstance(again, verbs.Nothing)


@pytest.mark.parametrize("checkpoint_seconds", [600.0, 2.0], ids=["journal-only", "checkpoints"])
def test_a_node_killed_under_offers_has_each_of_them_once(
    tmp_path: Path, checkpoint_seconds: float, deep: bool
) -> None:
    """Offers with tokens, repeated until they are answered, while the node is killed twice."""
    if checkpoint_seconds > 100.0 and not deep:
        pytest.skip("with DEEP=1 also without checkpoints")
    import socket

    ports = (free_port(42155, socket.SOCK_DGRAM), free_port(46443, socket.SOCK_DGRAM))
    config = write_config(
        tmp_path, port=ports[0], sflow_port=ports[1], checkpoint_seconds=checkpoint_seconds,
        extra="[views.samples]\ntick_seconds = 1.0\nlateness_seconds = 0.5\n",
    )  # fmt: skip
    node = LiveNode(config, tmp_path / "state").start()
    node.ask()
    line = OfferLine(f"ipc://{node.state}/node.sock")
    line.start()
    from runtime.journal import pack

    names = SeriesNames()
    done: list[int] = []

    def offer(number: int, stop: threading.Event) -> None:
        now_ns = CLOCK.now_ns()
        rows = [{"time_ns": now_ns, "arrival_ns": now_ns, "value": 1.0, "kind": SampleKind.DELTA,
                 "series_id": names.id("ams1", "offers")}]  # fmt: skip
        new = names.new()
        batches = [*([new] if new else []), batch_from_rows(SAMPLE, rows), *alarms(f"e{number}")]
        asked = verbs.Offered(source="test", token=str(number), data=pack(batches))
        while not stop.is_set():
            try:
                line.ask(asked)
                done.append(number)
                return
            except TransientError:
                CLOCK.sleep(0.1)

    def work(stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            offer(number, stop)
            number += 1

    try:
        with processes.beside(work):
            for _ in range(2):
                CLOCK.sleep(4.0)
                node.kill()
                node.start()
                node.ask()
            CLOCK.sleep(4.0)
            status = node.ask()
    finally:
        line.stop()
        code = node.stop()
    assert code == 0
    assert len(done) >= 5
    assert status.series >= 1
    seen: list[str] = []
    values = 0
    for block in JournalReader(node.state / "journal").read():
        if block.kind is BlockKind.TICK:
            for batch in block.batches:
                if batch.schema.name == "alarm":
                    seen += batch.texts("entity")
                if batch.schema.name == "frame" and batch.texts("view")[0] == "sample":
                    values += int((batch["value"][:-1] > 0).sum())
    assert len(seen) == len(set(seen)), "an offer counted twice"
    assert {f"e{number}" for number in done} <= set(seen), "an acknowledged offer is gone"
    assert values >= 3, "samples of the gate were not folded"
