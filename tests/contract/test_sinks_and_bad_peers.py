"""Every sink that speaks to a peer, against peers that do everything wrong, and then a good one.

What must hold: the sink says what went wrong in time, as something to try again; nothing is lost,
nothing comes under another key, and once the peer is well the outbox is empty and health is clear.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import Courier
from alerting.outbox.outbox import Outbox
from alerting.outbox.sink_board import SinkBoard
from alerting.sinks import SINKS, RefusedError, make_sink
from alerting.words.alert import Alert
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.errors import TransientError
from tests.support.bad_peers import NONSENSE, absent, answering, over_tls, silent
from tests.support.certificates import certificate
from tests.support.sink_peers import RIGS
from tocsin.testing import checks_sink, make_context
from tocsin.testing.alarms import AlarmWorld
from tocsin.testing.checks_sink import NOW_NS, parcel

# What a sink of each kind calls a port of a peer, plain and over TLS.
URLS: dict[str, tuple[str, str]] = {
    "webhook": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "alertmanager": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "pagerduty": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "servicenow": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "servicenow-incident": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "netcool": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "tmf621": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "grafana": ("http://127.0.0.1:{}", "https://127.0.0.1:{}"),
    "syslog": ("tcp://127.0.0.1:{}", "tls://127.0.0.1:{}"),
    "mail": ("smtp://127.0.0.1:{}", "smtps://127.0.0.1:{}"),
    "kafka": ("127.0.0.1:{}", "127.0.0.1:{}"),
    "nats": ("nats://127.0.0.1:{}", "tls://127.0.0.1:{}"),
    "snmp": ("udp://127.0.0.1:{}", ""),
}
# Syslog acknowledges nothing: over TCP it cannot know that nobody reads, or what was said back.
pytestmark = pytest.mark.slow
UNHEARD = ("syslog",)
NATS_INFO = (
    b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"tls_required":true}\r\n'
)


@pytest.fixture(scope="module")
def alert() -> Alert:
    return checks_sink.alerts()[0]


def settings_of(kind: str, url: str, folder: Path, **more: Any) -> SinkSettings:
    (folder / "secret").write_text("0123456789abcdef0123456789abcdef")
    options = {}
    if kind == "mail":
        options = {"sender": "a@example.net", "to": ["b@example.net"]}
    if kind == "snmp":
        options = {"retries": 0}
    token = str(folder / "secret") if kind == "pagerduty" else ""
    return SinkSettings(
        kind=kind, url=url, timeout_seconds=0.25, options=options, token_file=token, **more
    )


def fails(settings: SinkSettings, alert: Alert) -> str:
    sink = make_sink(settings)
    began = time.monotonic()
    try:
        with pytest.raises(TransientError) as error:
            sink.send([parcel(alert)], now_ns=NOW_NS)
    finally:
        sink.close()
    assert not isinstance(error.value, RefusedError), error.value
    assert time.monotonic() - began < 20  # a bound against hanging for ever, not a measurement
    return str(error.value)


def test_every_kind_that_speaks_to_a_peer_sits_this_exam() -> None:
    local = {"stdout", "file", "zmq", "command"}  # write here, or to whoever listens
    elsewhere = {
        "diagnostics",  # SSH: tests/live/test_actions.py
        "tmf642",  # others ask it; its listeners: tests/scenario/test_tmf642.py
    }
    assert set(SINKS.ours) == set(URLS) | local | elsewhere


@pytest.mark.parametrize("kind", URLS)
def test_a_peer_that_is_not_there(kind: str, alert: Alert, tmp_path: Path) -> None:
    with absent(udp=kind == "snmp") as port:
        assert fails(settings_of(kind, URLS[kind][0].format(port), tmp_path), alert)


@pytest.mark.parametrize("kind", [k for k in URLS if k not in UNHEARD])
def test_a_peer_that_says_nothing(kind: str, alert: Alert, tmp_path: Path) -> None:
    with silent(udp=kind == "snmp") as port:
        assert fails(settings_of(kind, URLS[kind][0].format(port), tmp_path), alert)


# The receivers of these two answer what they like: any 2xx is a yes.
ANY_2XX = ("webhook", "alertmanager", "pagerduty", "servicenow")


@pytest.mark.parametrize("kind", [k for k in URLS if k not in UNHEARD])
@pytest.mark.parametrize("answer", NONSENSE, ids=["nothing", "zeros", "no-status", "no-json"])
def test_a_peer_that_answers_nonsense(
    kind: str, answer: bytes, alert: Alert, tmp_path: Path
) -> None:
    if answer.startswith(b"HTTP/1.1 200") and kind in ANY_2XX:
        return
    with answering(answer, udp=kind == "snmp") as port:
        assert fails(settings_of(kind, URLS[kind][0].format(port), tmp_path), alert)


@pytest.mark.parametrize("kind", [k for k in URLS if URLS[k][1]])
@pytest.mark.parametrize("fault", ["expired", "unknown authority"])
def test_a_certificate_that_is_not_good(
    kind: str, fault: str, alert: Alert, tmp_path: Path
) -> None:
    shown = certificate(tmp_path, expired=fault == "expired")
    (tmp_path / "other").mkdir()
    trusted = shown if fault == "expired" else certificate(tmp_path / "other")
    greeting = NATS_INFO if kind == "nats" else b""  # it says so in plain text first
    with over_tls(shown.server(), greeting) as port:
        settings = settings_of(kind, URLS[kind][1].format(port), tmp_path, ca_file=trusted.ca)
        said = fails(settings, alert)
    if kind != "kafka":  # librdkafka tells its log, and us that nothing was acknowledged
        assert "certificate" in said


@pytest.mark.parametrize("kind", ["webhook", "syslog", "tmf621"])
def test_a_good_certificate_of_an_authority_of_ones_own(
    kind: str, alert: Alert, tmp_path: Path
) -> None:
    from tests.support.sink_peers import HttpPeer, SyslogServer

    shown = certificate(tmp_path)
    if kind == "syslog":
        server = SyslogServer(tls=shown.server())
        sink = make_sink(
            settings_of(kind, f"tls://127.0.0.1:{server.port}", tmp_path, ca_file=shown.ca)
        )
        assert sink.send([parcel(alert)], now_ns=NOW_NS)
        sink.close()
        server.stop()
        return
    peer = HttpPeer(tls=shown.server())
    peer.answer = b"[]" if kind == "tmf621" else b"yes"
    try:
        sink = make_sink(settings_of(kind, peer.url, tmp_path, ca_file=shown.ca))
        if kind == "tmf621":  # the search is heard; that a create is answered by a list is nonsense
            with pytest.raises(TransientError, match="no ticket"):
                sink.send([parcel(alert)], now_ns=NOW_NS)
        else:
            assert sink.send([parcel(alert)], now_ns=NOW_NS) == "200 yes"
        assert peer.got
    finally:
        peer.stop()


# ---- the whole way: outbox, courier, a peer that is bad and gets well


class Way:
    """An outbox and a courier on a clock that jumps over back-off and breaker."""

    def __init__(self, folder: Path, settings: SinkSettings) -> None:
        self.clock = ManualClock(1_700_000_000_000_000_000)
        made = make_context("outbox", clock=self.clock)
        self.context = Context(made.name, self.clock, made.metrics, made.log, made.seed)
        sinks = AlertingSettings(sinks={"it": settings})
        self.outbox = Outbox(folder / "node.sqlite", sinks, self.context)
        self.outbox.start()
        self.courier = Courier(
            sinks.sinks, self.context,
            fetch=lambda limit: self.outbox.due(self.clock.now_ns(), limit),
            report=lambda verdicts: self.outbox.mark(verdicts, self.clock.now_ns()),
        )  # fmt: skip
        self.board = SinkBoard(sinks.sinks, self.context)
        self.world = AlarmWorld()

    def raise_and_clear(self) -> list[Alert]:
        made: list[Alert] = []
        series = self.world.series("exporter", exporter="192.0.2.1")
        for rows in ([self.world.silence(series)], [], [], []):
            batches = self.world.batches(rows)
            made += self.outbox.commit(
                self.world.now_ns, [b for b in batches if b.schema.name == "alarm"],
                self.clock.now_ns(), incidents=[b for b in batches if b.schema.name == "incident"],
            )  # fmt: skip
        return made

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if done():
                return
            self.courier.step()
            self.clock.set_ns(self.clock.now_ns() + 1_000_000_000)
            time.sleep(0.005)
        raise AssertionError(f"it did not come about: {self.outbox.deliveries()}")

    def told_health(self) -> str:
        """What doctor, `/health` and `/status` show: the gate tells the node's board."""
        now_ns = self.clock.now_ns()
        self.board.hear(self.courier.statuses(), self.outbox.sinks(), now_ns)
        return self.board.health(now_ns)

    def states(self) -> list[str]:
        return [str(row["state"]) for row in self.outbox.deliveries()]

    def attempts(self) -> int:
        return sum(int(str(row["attempts"])) for row in self.outbox.deliveries())

    def close(self) -> None:
        self.courier.stop()
        self.outbox.stop()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Callable[[SinkSettings], Way]]:
    made: list[Way] = []

    def make(settings: SinkSettings) -> Way:
        made.append(Way(tmp_path, settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


BAD: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "gone": absent,
    "silent": silent,
    "nonsense": lambda: answering(b"\x00\xff nonsense\r\n"),
}


# What a server of each kind says when it will not, for now: 403, 421.
NO = dict.fromkeys(URLS, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
NO |= {"mail": b"421 4.3.2 not now\r\n"}
REFUSES = [k for k in URLS if URLS[k][0].startswith("http") or k == "mail"]


@pytest.mark.parametrize("kind", [k for k in URLS if k not in ("kafka",)])
@pytest.mark.parametrize("bad", [*BAD, "refuses"])
def test_nothing_is_lost_and_nothing_doubled_while_a_peer_is_bad(
    kind: str, bad: str, tmp_path: Path, way: Callable[[SinkSettings], Way]
) -> None:
    if (kind in UNHEARD and bad != "gone") or (bad == "refuses" and kind not in REFUSES):
        return
    # The bad peer first, then a good one on its port.
    from tests.support import bad_peers

    udp = kind == "snmp"
    peers = {
        "gone": lambda: bad_peers.absent(udp=udp),
        "silent": lambda: bad_peers.silent(udp=udp),
        "nonsense": lambda: bad_peers.answering(b"\x00\xff nonsense\r\n", udp=udp),
        "refuses": lambda: bad_peers.answering(NO[kind]),
    }
    with peers[bad]() as port:
        made = way(settings_of(kind, URLS[kind][0].format(port) + _path(kind), tmp_path))
        alerts = made.raise_and_clear()
        assert [a.state for a in alerts] == ["raised", "cleared"]
        made.until(lambda: made.attempts() >= 3)
        assert "sink it fails" in made.told_health()
        assert made.context.metrics.value("sink_failing", sink="it") == 1.0
        assert made.context.metrics.value("sink_waiting", sink="it") >= 1.0
        assert "sent" not in made.states()
    with RIGS[kind](tmp_path, port) as rig:
        made.until(lambda: made.states() == ["sent", "sent"])
        got = rig.got()
    assert set(got) == {made.outbox.deliveries()[0]["alarm"]}
    assert made.told_health() == ""
    assert made.outbox.health() == ""
    (status,) = made.board.statuses
    assert (status.state, status.waiting, status.given_up) == ("ok", 0, 0)
    assert made.context.metrics.value("sink_failing", sink="it") == 0.0


def _path(kind: str) -> str:
    return "/tmf-api/troubleTicket/v4" if kind == "tmf621" else ""


def test_a_silent_sink_delays_no_other(tmp_path: Path) -> None:
    """One peer that hangs for the whole test, one file: all lines are there while the other waits."""
    with silent() as port:
        sinks = {
            "hung": SinkSettings(
                kind="webhook", url=f"http://127.0.0.1:{port}", timeout_seconds=20.0
            ),
            "file": SinkSettings(kind="file", path=str(tmp_path / "lines")),
        }
        clock = ManualClock(1_700_000_000_000_000_000)
        context = make_context("outbox", clock=clock)
        outbox = Outbox(tmp_path / "node.sqlite", AlertingSettings(sinks=sinks), context)
        outbox.start()
        courier = Courier(
            sinks, context, fetch=lambda limit: outbox.due(clock.now_ns(), limit),
            report=lambda verdicts: outbox.mark(verdicts, clock.now_ns()),
        )  # fmt: skip
        world = AlarmWorld()
        series = [world.series("exporter", exporter=f"192.0.2.{i}") for i in range(20)]
        batches = world.batches([world.silence(s) for s in series])
        outbox.commit(
            world.now_ns, [b for b in batches if b.schema.name == "alarm"], clock.now_ns(),
            incidents=[b for b in batches if b.schema.name == "incident"],
        )  # fmt: skip
        end = time.monotonic() + 15
        while time.monotonic() < end:
            courier.step()
            if (tmp_path / "lines").exists() and len(
                (tmp_path / "lines").read_bytes().splitlines()
            ) == 20:
                break
            time.sleep(0.005)
        assert len((tmp_path / "lines").read_bytes().splitlines()) == 20
        states = {row["sink"]: row["state"] for row in outbox.deliveries()}
        assert states["hung"] == "waiting"
        outbox.stop()
