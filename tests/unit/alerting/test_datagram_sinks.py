"""What goes to syslog and SNMP managers: whole where it is cut, once where another fails, to who has the name now."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import Courier
from alerting.sinks import make_sink
from alerting.sinks.syslog import UDP_OCTETS_MAX, message
from alerting.words.alert import canonical
from alerting.words.delivery import Delivery, Verdict
from alerting.words.escape import tidy
from runtime.clock import ManualClock
from telemetry.snmp.message import read_envelope, read_pdu
from tests.support.sink_peers import Acknowledger, SyslogServer
from tocsin.testing import checks_sink, make_context
from tocsin.testing.checks_sink import NOW_NS, parcel

ALERT = checks_sink.alerts()[0]
SECOND = 1_000_000_000
# RFC 5424 section 6: header, elements of parameters in which the three are escaped, text.
WHOLE = re.compile(
    rb'<\d{1,3}>1 \S+ \S+ tocsin - \S+ (\[[^ =\]"]+( [^ =\]"]+="([^"\\\]]|\\[\\"\]])*")*\])+ \xef\xbb\xbf.*',
    re.DOTALL,
)
texts = st.one_of(
    st.text(max_size=3000), st.text(alphabet='\\"]', max_size=1500), st.just("\U0001f525" * 900)
)


@given(texts, texts, texts)
def test_a_datagram_is_a_whole_message_however_long_its_alarm(
    title: str, why: str, do: str
) -> None:
    alert = tidy(
        msgspec.structs.replace(
            ALERT,
            title=title,
            entity=do[:300],
            kind=why[:300],
            explain={"why": [why, title], "do": do},
        )
    )
    made = message(alert, hostname="h" * 300, facility=16, octets_max=UDP_OCTETS_MAX)
    assert len(made) <= UDP_OCTETS_MAX
    assert WHOLE.fullmatch(made)
    made.decode()
    assert f'change="{alert.change}"'.encode() in made
    short = message(ALERT, hostname="h", facility=16)
    assert message(ALERT, hostname="h", facility=16, octets_max=UDP_OCTETS_MAX) == short


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Two hosts of which `nms.test` is now the one, now the other: the first of the list."""
    hosts = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    for host in hosts:
        host.bind(("127.0.0.1", 0))
        host.settimeout(5)

    def resolve(name: str, port: int, **_: Any) -> list[Any]:
        assert name == "nms.test"
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", hosts[0].getsockname())]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    made = hosts[:]
    yield hosts
    for host in made:
        host.close()


@pytest.mark.parametrize("kind", ["syslog", "snmp"])
def test_what_nobody_acknowledges_goes_to_who_has_the_name_now(
    moving: list[socket.socket], kind: str
) -> None:
    options = {"notify": "trap"} if kind == "snmp" else {}
    sink = make_sink(SinkSettings(kind=kind, url="udp://nms.test", options=options))
    sink.send([parcel(ALERT)], now_ns=NOW_NS)
    first = moving[0].recv(65_536)
    moving.reverse()
    sink.send([parcel(ALERT)], now_ns=NOW_NS + 61 * SECOND)
    second = moving[0].recv(65_536)
    sink.close()
    if kind == "syslog":
        assert second == first
        return
    uptimes = []
    for data in (first, second):
        envelope = read_envelope(data)
        uptimes.append(read_pdu(data, envelope.start, envelope.stop).varbinds[0].value)
    assert uptimes == [0, 6100], "the agent did not start anew"


def test_a_manager_that_has_a_notification_gets_no_second_because_the_next_one_failed() -> None:
    peer = Acknowledger()
    settings = SinkSettings(
        kind="snmp", url=f"udp://127.0.0.1:{peer.port}", timeout_seconds=0.2, options={"retries": 0}
    )
    sinks = AlertingSettings(sinks={"nms": settings}).sinks
    clock = ManualClock(NOW_NS)
    verdicts: list[Verdict] = []
    deliveries = [
        Delivery(
            number=n, key=f"k{n}", sink="nms", alarm=f"{n:016x}", attempts=0, created_ns=0,
            body=canonical(msgspec.structs.replace(ALERT, id=f"{n:016x}")).decode(),
        )
        for n in range(1, 6)
    ]  # fmt: skip
    answer = peer._socket.sendto
    peer_socket: Any = _Deaf(peer._socket, answer)
    peer._socket = peer_socket

    def fetch(limit: int) -> list[Delivery]:
        sent = {verdict.number for verdict in verdicts if verdict.sent}
        return [one for one in deliveries if one.number not in sent]

    courier = Courier(sinks, make_context("c", clock=clock), fetch=fetch, report=verdicts.extend)
    for _ in range(4000):
        courier.step()
        clock.advance(seconds=0.05)
        if not fetch(1):
            break
        peer_socket.pause.wait(0.002)
    courier.stop()
    peer.stop()
    answered = [data for data in peer_socket.answered if data]
    named = [re.search(rb" ([0-9a-f]{16})", data)[1] for data in answered]  # type: ignore[index]
    assert sorted(named) == sorted({*named}), "acknowledged once each"
    assert len(named) == 5


class _Deaf:
    """A socket whose third answer is lost."""

    def __init__(self, inner: socket.socket, answer: Any) -> None:
        import threading

        self._inner, self._answer = inner, answer
        self.answered: list[bytes] = []
        self.pause = threading.Event()
        self._turn = 0

    def sendto(self, data: bytes, where: Any) -> None:
        self._turn += 1
        if self._turn != 3:
            self.answered.append(data)
            self._answer(data, where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_connection_keeps_the_timeout_that_was_set(tmp_path: Path) -> None:
    server = SyslogServer()
    settings = SinkSettings(
        kind="syslog", url=f"tcp://127.0.0.1:{server.port}", timeout_seconds=20.0
    )
    sink: Any = make_sink(settings)
    for _ in range(2):
        sink.send([parcel(ALERT)], now_ns=NOW_NS)
    assert sink._socket.gettimeout() == 20.0
    sink.close()
    server.stop()
