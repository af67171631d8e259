"""Requests are answered or refused with a sentence; feeds are numbered."""

import builtins
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from runtime.bus import (
    REPEAT_NS,
    Doorbell,
    Hub,
    Later,
    Line,
    Message,
    Publisher,
    RequestClient,
    RequestServer,
)
from telemetry.errors import TransientError


class Ask(msgspec.Struct):
    number: int


class Answer(msgspec.Struct):
    double: int


class Said(msgspec.Struct):
    words: list[str]
    data: bytes


def fail(name: str) -> None:
    # What is logged here pytest sends on as UTF-8.
    raise getattr(builtins, name)("a\ud800" if name == "ValueError" else "a")


def test_one_verb_alone_is_answered_and_the_others_afterwards_in_order(tmp_path: Path) -> None:
    said: list[int] = []
    server = RequestServer(f"ipc://{tmp_path}/node.sock")
    server.handle("say", Ask, lambda ask: said.append(ask.number) or ask)  # type: ignore[func-returns-value]
    server.handle("double", Ask, lambda ask: Answer(ask.number * 2))
    server.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.connect(f"ipc://{tmp_path}/node.sock")
    for number, verb in enumerate((b"say", b"double", b"say")):
        peer.send_multipart([b"n", verb, msgspec.msgpack.encode(Ask(number))])
    peer.send_multipart([b"not our four frames"])
    answered = 0
    while not answered:
        server.socket.poll(1000)
        answered = server.serve_only("double")
    assert peer.poll(1000)
    assert msgspec.msgpack.decode(peer.recv_multipart()[2], type=Answer) == Answer(2)
    assert (answered, said) == (1, [])
    while server.serve_only("double") or len(server._put_off) < 3:
        server.socket.poll(1000)
    assert server.serve(limit=1) == 1
    assert said == [0]
    server.serve()
    assert said == [0, 2]
    peer.close()
    context.term()
    server.stop()


def test_a_request_is_answered_and_errors_are_sentences(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/node.sock"
    server = RequestServer(address)
    server.handle("double", Ask, lambda ask: Answer(ask.number * 2))
    server.handle("say", Said, lambda said: said)
    server.handle("strange", Ask, lambda ask: object())
    server.handle("fail", str, fail)
    server.start()
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            server.serve()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    client = RequestClient(address)
    try:
        assert client.ask("double", Ask(21), Answer).double == 42
        with pytest.raises(TransientError, match="unknown verb 'halve'"):
            client.ask("halve", Ask(1), Answer)
        with pytest.raises(TransientError, match="Expected `int`"):
            client.ask("double", {"number": "x"}, Answer)
        with pytest.raises(TransientError, match="strange failed within: TypeError: Encoding"):
            client.ask("strange", Ask(1), Answer)
        for kind in (OverflowError, AttributeError, RecursionError):
            with pytest.raises(TransientError, match=rf"fail failed within: {kind.__name__}: a"):
                client.ask("fail", kind.__name__, Answer)
        with pytest.raises(TransientError, match=r"fail: a\?"):
            client.ask("fail", "ValueError", Answer)
        assert client.ask("double", Ask(4), Answer).double == 8, "the server goes on"
        # Half a surrogate pair, out of another system's JSON: it ends no gate.
        said = client.ask("say", Said(["a\ud800"], b"\xff"), Said)
        assert (said.words, said.data) == (["a?"], b"\xff")
    finally:
        ended.set()
        thread.join(30)
        client.close()
        server.stop()


def test_nobody_there_is_a_transient_error(tmp_path: Path) -> None:
    client = RequestClient(f"ipc://{tmp_path}/none.sock")
    with pytest.raises(TransientError, match="is Tocsin running"):
        client.ask("double", Ask(1), Answer, timeout_seconds=0.05)
    client.close()


class Acts:
    """A server that does what it is asked for, run as long as a test wants."""

    def __init__(self, address: str, answer: object) -> None:
        self.done: list[int] = []
        self.server = RequestServer(address)
        self.server.handle(
            "act", Ask, lambda ask: self.done.append(ask.number) or answer, acts=True
        )  # type: ignore[func-returns-value]
        self.server.start()

    def serves(self, until: Callable[[], bool]) -> None:
        """Serve until something is so, ten seconds at most."""
        for _ in range(500):
            self.server.serve()
            if until():
                return
            self.server.socket.poll(20)
        raise AssertionError("it never is")


@pytest.mark.parametrize("away", [True, False], ids=["away", "slow"])
def test_what_was_answered_as_failed_is_not_done_later(tmp_path: Path, away: bool) -> None:
    address = f"ipc://{tmp_path}/node.sock"
    node = None if away else Acts(address, Answer(1))
    client = RequestClient(address)  # as a desk's, which lasts
    with pytest.raises(TransientError, match="was not taken up, and will not be later"):
        client.ask("act", Ask(1), Answer, timeout_seconds=0.2)
    node = node or Acts(address, Answer(1))
    answers: list[Answer] = []
    asks = threading.Thread(
        target=lambda: answers.append(client.ask("act", Ask(2), Answer, timeout_seconds=10.0)),
        daemon=True,
    )
    asks.start()
    node.serves(lambda: not asks.is_alive())
    assert (node.done, answers) == ([2], [Answer(1)])
    client.close()
    node.server.stop()


def test_what_was_taken_up_and_not_answered_in_time_is_said_to_count(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/node.sock"
    node = Acts(address, Later())
    client, said = RequestClient(address), []

    def ask() -> None:
        with pytest.raises(TransientError) as raised:
            client.ask("act", Ask(1), Answer, timeout_seconds=2.0)
        said.append(str(raised.value))

    asks = threading.Thread(target=ask, daemon=True)
    asks.start()
    node.serves(lambda: not asks.is_alive())
    assert node.done == [1]
    assert "the node has taken it up" in said[0]
    client.close()
    node.server.stop()


def test_a_watcher_sees_numbers_rise_per_topic(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/pub.sock"
    publisher = Publisher(address)
    publisher.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    watcher = context.socket(zmq.SUB)
    watcher.subscribe(b"alerts")
    watcher.connect(address)
    seen: list[int] = []
    for _ in range(1000):  # joining takes the watcher a moment; it sees the first that come after
        publisher.publish("frames", b"-")
        publisher.publish("alerts", b"x")
        if watcher.poll(5):
            seen.append(int.from_bytes(watcher.recv_multipart()[1], "little"))
        if len(seen) >= 3:
            break
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert len(seen) == 3
    watcher.close()
    context.term()
    publisher.stop()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Hub, Callable[[bytes], Line]]]:
    """A started hub, and a function that makes started lines to it."""
    address = f"ipc://{tmp_path}/hub.sock"
    made = Hub(address)
    made.start()
    lines: list[Line] = []

    def line(name: bytes) -> Line:
        lines.append(Line(address, name, bytes_max=1000))
        lines[-1].start()
        return lines[-1]

    yield made, line
    for one in lines:
        one.stop()
    made.stop()


def hear(hub: Hub, count: int) -> list[Message]:
    """Read until `count` messages came."""
    found: list[Message] = []
    for _ in range(200):
        found += hub.read()
        if len(found) >= count:
            return found
        hub.socket.poll(50)
    raise AssertionError(f"{len(found)} of {count} messages in ten seconds")


def test_numbered_messages_come_once_in_order_and_are_kept_until_done(
    hub: tuple[Hub, Callable[[bytes], Line]],
) -> None:
    node, make = hub
    line = make(b"a")
    line.tell(b"hello")
    for number in range(5):
        line.send(b"closing", b"%d" % number)
    found = hear(node, 6)
    assert [(m.sequence, m.body) for m in found] == [(0, b"")] + [
        (n + 1, b"%d" % n) for n in range(5)
    ]
    assert node.received(b"a") == 5
    node.have(b"a", 3)
    line.socket.poll(2000)
    assert line.read(0) == []
    assert line.waiting == 2, "what the node is done with is forgotten, the rest is kept"


def test_what_the_node_did_not_receive_is_sent_again(
    hub: tuple[Hub, Callable[[bytes], Line]],
) -> None:
    node, make = hub
    line = make(b"a")
    line.read(1)  # starts its clock
    line.send(b"closing", b"one")
    line.send(b"closing", b"two")
    hear(node, 2)
    node.forget(b"a")  # as if both had been lost on the way
    assert line.read(REPEAT_NS) == []
    assert node.read() == []
    line.read(REPEAT_NS + 2)
    assert [m.body for m in hear(node, 2)] == [b"one", b"two"]
    line.read(3 * REPEAT_NS)  # not acknowledged yet, so it repeats once more
    line.tell(b"beat")
    assert [m.kind for m in hear(node, 1)] == [b"beat"], "a repeated message is given once"


def test_a_line_is_full_at_its_bound_and_empties_when_told(
    hub: tuple[Hub, Callable[[bytes], Line]],
) -> None:
    node, make = hub
    line = make(b"a")
    line.send(b"closing", b"x" * 999)
    assert not line.full
    line.send(b"closing", b"x")
    assert line.full
    hear(node, 2)
    node.have(b"a", 2)
    line.socket.poll(2000)
    line.read(0)
    assert not line.full
    assert line.waiting == 0


def test_workers_are_told_apart_and_strangers_ignored(
    hub: tuple[Hub, Callable[[bytes], Line]],
) -> None:
    node, make = hub
    first, second = make(b"a"), make(b"b")
    first.send(b"closing", b"1")
    second.send(b"closing", b"2")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)
    address = node.socket.getsockopt_string(zmq.LAST_ENDPOINT)
    stranger.connect(address)
    stranger.send(b"one frame")
    stranger.send_multipart([b"short", b"closing", b"3"])
    assert {(m.worker, m.body) for m in hear(node, 2)} == {(b"a", b"1"), (b"b", b"2")}
    node.tell(b"b", b"open", b"now")
    node.tell(b"nobody", b"open")
    second.socket.poll(2000)
    assert second.read(0) == [(b"open", b"now")]
    assert first.read(0) == []
    stranger.close()
    context.term()


def test_a_bell_rung_before_the_wait_ends_it(hub: tuple[Hub, Callable[[bytes], Line]]) -> None:
    node, make = hub
    bell = Doorbell()
    bell.ring()
    bell.ring()
    bell.wait(600_000)  # returns at once, or the test never ends
    bell.watch(node.socket)
    make(b"a").tell(b"hello")
    bell.wait(600_000)
    assert [m.kind for m in hear(node, 1)] == [b"hello"]
    bell.close()
    bell.ring()  # a late listener thread: nothing happens
    bell.close()
